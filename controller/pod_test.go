package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/contract"
	"github.com/taskflow/taskflow-operator/entrypoint"
)

// newTask is a Task with the containers as its steps.
func newTask(steps ...corev1.Container) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example", Namespace: "default", UID: "task"}}
	for _, step := range steps {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	return task
}

// TestNewPod proves the whole of the Pod that a Task gets.
func TestNewPod(t *testing.T) {
	build := corev1.Container{Name: "build", Image: "golang", Command: []string{"go"}, Args: []string{"build"}, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}
	push := corev1.Container{Name: "push", Image: "crane", Command: []string{"crane"}}
	pod := func(edits ...edit) *corev1.Pod {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name:        "example",
				Namespace:   "default",
				Labels:      map[string]string{"taskflow.practice.com/task": "example"},
				Annotations: map[string]string{"taskflow.practice.com/steps": "build,push"},
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "api.practice.com/v1alpha1", Kind: "Task", Name: "example", UID: "task",
					Controller: new(true), BlockOwnerDeletion: new(true),
				}},
			},
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{build, push}},
		}
		for _, edit := range edits {
			edit(pod)
		}
		return pod
	}
	cases := map[string]struct {
		template *v1alpha1.PodTemplate
		want     *corev1.Pod
	}{
		"no template":       {nil, pod()},
		"an empty template": {&v1alpha1.PodTemplate{}, pod()},
		"a template": {
			&v1alpha1.PodTemplate{
				Metadata: metav1.ObjectMeta{Labels: map[string]string{"team": "x"}, Annotations: map[string]string{"example.com/note": "y"}},
				Spec: corev1.PodSpec{
					RestartPolicy:      corev1.RestartPolicyOnFailure,
					ServiceAccountName: "builder",
					InitContainers:     []corev1.Container{{Name: "prepare"}},
					Volumes:            []corev1.Volume{{Name: "work"}},
					NodeSelector:       map[string]string{"disk": "fast"},
				},
			},
			pod(func(pod *corev1.Pod) {
				pod.Labels["team"], pod.Annotations["example.com/note"] = "x", "y"
				pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
				pod.Spec.ServiceAccountName = "builder"
				pod.Spec.InitContainers = []corev1.Container{{Name: "prepare"}}
				pod.Spec.Volumes = []corev1.Volume{{Name: "work"}}
				pod.Spec.NodeSelector = map[string]string{"disk": "fast"}
			}),
		},
		"a template can't give another name, sequence, task or owner": {
			&v1alpha1.PodTemplate{Metadata: metav1.ObjectMeta{
				Name: "other", GenerateName: "other-", Namespace: "other", Finalizers: []string{"example.com/mine"},
				Labels:          map[string]string{contract.TaskLabel: "other"},
				Annotations:     map[string]string{contract.StepsAnnotation: "push"},
				OwnerReferences: []metav1.OwnerReference{{Name: "other"}},
			}},
			pod(),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := newTask(build, push)
			task.Spec.Template = c.template
			if diff := cmp.Diff(c.want, newPod(task, 1, nil)); diff != "" {
				t.Errorf("newPod (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNewPodCommands proves what a step without a command runs: what it would have run without taskflow. It always has a command then:
// the webhook can't look into the image, and refuses a step without one.
func TestNewPodCommands(t *testing.T) {
	type argv struct{ Command, Args []string }
	var (
		own   = argv{[]string{"sh", "-c"}, []string{"echo $(A)"}}
		image = func(entry, cmd []string) *entrypoint.Command { return &entrypoint.Command{Entrypoint: entry, Cmd: cmd} }
	)
	cases := map[string]struct {
		step  argv
		image *entrypoint.Command
		want  argv
	}{
		"its own command":                      {own, nil, own},
		"ENTRYPOINT":                           {argv{}, image([]string{"/app", "run"}, nil), argv{[]string{"/app", "run"}, nil}},
		"ENTRYPOINT and CMD":                   {argv{}, image([]string{"/app"}, []string{"--help"}), argv{[]string{"/app"}, []string{"--help"}}},
		"ENTRYPOINT, args in the place of CMD": {argv{nil, []string{"$(A)"}}, image([]string{"/app"}, []string{"--help"}), argv{[]string{"/app"}, []string{"$(A)"}}},
		"CMD":                                  {argv{}, image(nil, []string{"sh", "$(A)"}), argv{[]string{"sh", "$$(A)"}, nil}},
		"args in the place of CMD":             {argv{nil, []string{"env", "$(A)"}}, image(nil, []string{"sh"}), argv{[]string{"env", "$(A)"}, nil}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := newTask(
				corev1.Container{Name: "first", Command: []string{"first"}},
				corev1.Container{Name: "step", Command: c.step.Command, Args: c.step.Args},
			)
			commands := map[string]entrypoint.Command{}
			if c.image != nil {
				commands["step"] = *c.image
			}
			containers := newPod(task, 1, commands).Spec.Containers
			if diff := cmp.Diff(argv{Command: []string{"first"}}, argv{containers[0].Command, containers[0].Args}); diff != "" {
				t.Errorf("what the other step runs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, argv{containers[1].Command, containers[1].Args}); diff != "" {
				t.Errorf("what the step runs (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNewPodLeavesTheTaskAlone proves that Task and Pod share nothing: the Task is the cache's.
func TestNewPodLeavesTheTaskAlone(t *testing.T) {
	task := newTask(corev1.Container{Name: "a", Command: []string{"a"}, Env: []corev1.EnvVar{{Name: "A"}}})
	task.Spec.Template = &v1alpha1.PodTemplate{
		Metadata: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"a": "b"}},
		Spec:     corev1.PodSpec{Containers: make([]corev1.Container, 0, 8), Volumes: []corev1.Volume{{Name: "work"}}},
	}
	before := task.DeepCopy()
	pod := newPod(task, 1, nil)
	pod.Labels["a"], pod.Annotations["a"] = "changed", "changed"
	pod.Spec.Volumes[0].Name, pod.Spec.Containers[0].Command[0], pod.Spec.Containers[0].Env[0].Name = "changed", "changed", "changed"
	if diff := cmp.Diff(before, task); diff != "" {
		t.Errorf("the Task after newPod (-before +after):\n%s", diff)
	}
}

// TestArchitecture proves for which architecture a step's image is asked.
func TestArchitecture(t *testing.T) {
	cases := map[string]struct {
		template *v1alpha1.PodTemplate
		want     string
	}{
		"no template":        {nil, ""},
		"no node selector":   {&v1alpha1.PodTemplate{}, ""},
		"a selector":         {&v1alpha1.PodTemplate{Spec: corev1.PodSpec{NodeSelector: map[string]string{"kubernetes.io/arch": "arm64"}}}, "arm64"},
		"a selector of else": {&v1alpha1.PodTemplate{Spec: corev1.PodSpec{NodeSelector: map[string]string{"kubernetes.io/os": "linux"}}}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := newTask()
			task.Spec.Template = c.template
			if got := architecture(task); got != c.want {
				t.Errorf("architecture = %q, want %q", got, c.want)
			}
		})
	}
}
