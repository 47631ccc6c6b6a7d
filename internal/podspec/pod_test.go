package podspec

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// newTask returns a Task with the containers as its steps.
func newTask(steps ...corev1.Container) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example", Namespace: "default", UID: "task"}}
	for _, step := range steps {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	return task
}

// TestNewPod proves the complete Pod of a Task.
func TestNewPod(t *testing.T) {
	build := corev1.Container{Name: "build", Image: "golang", Command: []string{"go"}, Args: []string{"build"}, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}
	push := corev1.Container{Name: "push", Image: "crane", Command: []string{"crane"}}
	pod := func(edits ...func(*corev1.Pod)) *corev1.Pod {
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
			if diff := cmp.Diff(c.want, New(task, 1, nil)); diff != "" {
				t.Errorf("New (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodName proves that the first Pod of a Task has the Task's name, and later Pods have a number.
func TestPodName(t *testing.T) {
	task := newTask()
	for attempt, want := range []string{"example", "example", "example-retry-1", "example-retry-2"} {
		if got := Name(task, int32(attempt)); got != want { // attempt 0: the status is empty
			t.Errorf("Name for attempt %d = %q, want %q", attempt, got, want)
		}
		if got := New(task, int32(attempt), nil).Name; got != want {
			t.Errorf("the name of the Pod of attempt %d is %q, want %q", attempt, got, want)
		}
	}
}

// TestNewPodFields proves how the fields of a Task that a Pod lacks are translated.
func TestNewPodFields(t *testing.T) {
	step := func(edit func(*v1alpha1.Step)) func(*v1alpha1.Task) {
		return func(task *v1alpha1.Task) { edit(&task.Spec.Steps[1]) }
	}
	options := func(value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations["taskflow.practice.com/options"] = value }
	}
	sidecars := func(names ...string) []corev1.Container {
		var all []corev1.Container
		for _, name := range names {
			all = append(all, corev1.Container{Name: name, Image: "proxy"})
		}
		return all
	}
	always := func(containers []corev1.Container) []corev1.Container {
		for i := range containers {
			containers[i].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		return containers
	}
	cases := map[string]struct {
		edit func(*v1alpha1.Task)
		want func(*corev1.Pod)
	}{
		"timeout":             {func(task *v1alpha1.Task) { task.Spec.Timeout = &metav1.Duration{Duration: 90 * time.Second} }, func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds = new(int64(90)) }},
		"timeout, rounded up": {func(task *v1alpha1.Task) { task.Spec.Timeout = &metav1.Duration{Duration: 1001 * time.Millisecond} }, func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds = new(int64(2)) }},
		"timeout of a step":   {step(func(s *v1alpha1.Step) { s.Timeout = &metav1.Duration{Duration: time.Second} }), options(`{"b":{"timeout":1000000000}}`)},
		"retries of a step":   {step(func(s *v1alpha1.Step) { s.Retries = new(int32(3)) }), options(`{"b":{"retries":3}}`)},
		"onError Continue":    {step(func(s *v1alpha1.Step) { s.OnError = v1alpha1.OnErrorContinue }), options(`{"b":{"continueOnError":true}}`)},
		"onError Stop":        {step(func(s *v1alpha1.Step) { s.OnError = v1alpha1.OnErrorStop }), func(*corev1.Pod) {}},
		"the other fields belong to the Task": {func(task *v1alpha1.Task) {
			task.Spec.BackoffLimit, task.Spec.TTLSecondsAfterFinished = 3, new(int32(1))
		}, func(*corev1.Pod) {}},
		"sidecars": {
			func(task *v1alpha1.Task) { task.Spec.Sidecars = sidecars("one", "two") },
			func(pod *corev1.Pod) { pod.Spec.InitContainers = always(sidecars("one", "two")) },
		},
		"sidecars, after the template's init containers": {
			func(task *v1alpha1.Task) {
				task.Spec.Sidecars = sidecars("one")
				task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{InitContainers: sidecars("first")}}
			},
			func(pod *corev1.Pod) { pod.Spec.InitContainers = append(sidecars("first"), always(sidecars("one"))...) },
		},
		// The annotation of a script has the number of its step, and so has its file.
		"a script": {
			step(func(s *v1alpha1.Step) {
				s.Command, s.Args, s.Script = nil, []string{"$(A)", ""}, "#!/usr/bin/awk -f\nBEGIN {}"
			}),
			func(pod *corev1.Pod) {
				pod.Annotations["taskflow.practice.com/script-2"] = "#!/usr/bin/awk -f\nBEGIN {}"
				pod.Spec.Containers[1].Command = []string{"/usr/bin/awk", "-f", "/taskflow/scripts/2"}
				pod.Spec.Containers[1].Args = []string{"$(A)", ""}
				pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "taskflow-scripts", MountPath: "/taskflow/scripts", ReadOnly: true}}
				pod.Spec.Volumes = []corev1.Volume{{Name: "taskflow-scripts", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
					Items: []corev1.DownwardAPIVolumeFile{{Path: "2", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['taskflow.practice.com/script-2']"}}},
				}}}}
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := newTask(corev1.Container{Name: "a", Command: []string{"a"}}, corev1.Container{Name: "b", Command: []string{"b"}})
			want := New(task, 1, nil)
			c.want(want)
			c.edit(task)
			before := task.DeepCopy()
			if diff := cmp.Diff(want, New(task, 1, nil)); diff != "" {
				t.Errorf("New (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, task); diff != "" {
				t.Errorf("the Task after New (-before +after):\n%s", diff)
			}
		})
	}
}

// TestInterpreter proves that a script runs with the interpreter that the kernel would start for an executable file.
func TestInterpreter(t *testing.T) {
	shell := []string{"/bin/sh"}
	cases := map[string]struct {
		script string
		want   []string
	}{
		"no interpreter line":            {"echo", shell},
		"nothing":                        {"", shell},
		"a comment":                      {"# !/bin/bash\n", shell},
		"not in the first line":          {"\n#!/bin/bash", shell},
		"not at its start":               {" #!/bin/bash", shell},
		"a program":                      {"#!/bin/bash\necho", []string{"/bin/bash"}},
		"a program alone":                {"#!/bin/bash", []string{"/bin/bash"}},
		"white space":                    {"#! \t/bin/bash \t\necho", []string{"/bin/bash"}},
		"an argument":                    {"#!/usr/bin/env python3\n", []string{"/usr/bin/env", "python3"}},
		"an argument after a tab":        {"#!/usr/bin/env\tpython3\n", []string{"/usr/bin/env", "python3"}},
		"execve joins several arguments": {"#!/usr/bin/env -S python3  -u \n", []string{"/usr/bin/env", "-S python3  -u"}},
		"no program":                     {"#!\necho", shell},
		"no program but white space":     {"#!  \necho", shell},
		"Windows line endings":           {"#!/bin/bash\r\necho\r\n", []string{"/bin/bash"}},
		"what the kubelet would expand":  {"#!/$(A) $(B)\n", []string{"/$$(A)", "$$(B)"}},
		"a relative program":             {"#!bin/x\n", []string{"bin/x"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, interpreter(c.script)); diff != "" {
				t.Errorf("interpreter(%q) (-want +got):\n%s", c.script, diff)
			}
		})
	}
}

// TestNewPodLeavesTheTaskAlone proves that Task and Pod share no memory: the Task belongs to the cache.
func TestNewPodLeavesTheTaskAlone(t *testing.T) {
	task := newTask(corev1.Container{Name: "a", Command: []string{"a"}, Env: []corev1.EnvVar{{Name: "A"}}})
	task.Spec.Template = &v1alpha1.PodTemplate{
		Metadata: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"a": "b"}},
		Spec:     corev1.PodSpec{Containers: make([]corev1.Container, 0, 8), Volumes: []corev1.Volume{{Name: "work"}}},
	}
	before := task.DeepCopy()
	pod := New(task, 1, nil)
	pod.Labels["a"], pod.Annotations["a"] = "changed", "changed"
	pod.Spec.Volumes[0].Name, pod.Spec.Containers[0].Command[0], pod.Spec.Containers[0].Env[0].Name = "changed", "changed", "changed"
	if diff := cmp.Diff(before, task); diff != "" {
		t.Errorf("the Task after New (-before +after):\n%s", diff)
	}
}
