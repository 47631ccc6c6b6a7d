package podspec

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestBounds proves that no Pod and no Task takes long to answer or causes a large answer. The webhook rejects one beyond the bounds with
// one sentence, and the largest within them takes a small part of the deadline. Before there were bounds, two containers with 20,000 mounts
// took three and a half minutes.
func TestBounds(t *testing.T) {
	// The slowest takes 0.1 s on two idle cores, 7 s on busy ones with the race detector, and took minutes without the bounds.
	const patience = time.Minute
	const maxPatch = 3 << 20 // as the webhook has it
	steps := func(count int, edit func(i int, c *corev1.Container)) []corev1.Container {
		var all []corev1.Container
		for i := range count {
			container := step(fmt.Sprintf("s%d", i))
			if edit != nil {
				edit(i, &container)
			}
			all = append(all, container)
		}
		return all
	}
	mounts := func(count int) func(int, *corev1.Container) {
		return func(i int, c *corev1.Container) {
			c.WorkingDir = fmt.Sprintf("/%d/0/below", i)
			for m := range count {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: fmt.Sprintf("/%d/%d", i, m), SubPath: fmt.Sprintf("d/%d", m)})
			}
		}
	}
	deep := func(length int) func(int, *corev1.Container) {
		return func(i int, c *corev1.Container) {
			for m := range 10 {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: fmt.Sprintf("/%d/%d", i, m), SubPath: strings.Repeat("a/", length/2)})
			}
		}
	}
	volumes := func(count int) []corev1.Volume {
		var all []corev1.Volume
		for i := range count {
			all = append(all, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		}
		return all
	}
	pod := func(containers []corev1.Container, volumes []corev1.Volume) *corev1.Pod {
		pod := taskPod(containers...)
		pod.Spec.Volumes = volumes
		return pod
	}
	naming := func(pod *corev1.Pod, steps string) *corev1.Pod {
		pod.OwnerReferences = nil
		pod.Labels = map[string]string{contract.TaskLabel: "task"}
		pod.Annotations = map[string]string{"kubernetes.io/limit-ranger": strings.Repeat("a; ", 80000)}
		if steps != "" {
			pod.Annotations[contract.StepsAnnotation] = steps
		}
		return pod
	}
	task := func(count, volumeCount int) *v1alpha1.Task {
		task := &v1alpha1.Task{}
		task.Name = "task"
		for i := range count {
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step(fmt.Sprintf("s%d", i))})
		}
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: volumes(volumeCount)}}
		return task
	}
	sharing := func(task *v1alpha1.Task, bytes int) *v1alpha1.Task {
		task.Spec.StepTemplate = &v1alpha1.StepTemplate{Env: []corev1.EnvVar{{Name: "A", Value: strings.Repeat("x", bytes)}}}
		return task
	}
	for name, c := range map[string]struct {
		pod     *corev1.Pod
		task    *v1alpha1.Task
		refused string
	}{
		"containers":             {pod: pod(steps(maxContainers, nil), nil)},
		"too many containers":    {pod: pod(steps(20*maxContainers, nil), nil), refused: "spec.containers: 20000 entries, and a sequential Pod may have 1000: split the Pod into several Tasks"},
		"mounts":                 {pod: pod(steps(maxMounts/maxOwnMounts, mounts(maxOwnMounts)), volumes(maxVolumes))},
		"too many mounts":        {pod: pod(steps(1000, mounts(11)), nil), refused: "spec.containers[*].volumeMounts: 11000 entries, and a sequential Pod may have 10000: mount directories above them"},
		"too many mounts of one": {pod: pod(steps(2, mounts(20000)), nil), refused: `the container "s0" has 20000 volumeMounts, and a container may have 250: mount a directory above them`},
		"too many volumes":       {pod: pod(steps(2, nil), volumes(20000)), refused: "spec.volumes: 20000 entries, and a sequential Pod may have 1000: mount fewer volumes"},
		"long paths":             {pod: pod(steps(100, deep(maxPath)), volumes(1))},
		"too long a path":        {pod: pod(steps(1, deep(1<<20)), volumes(1)), refused: `the container "s0" has a mountPath, subPath or workingDir of more than 1024 bytes: use a shorter path`},
		"a Task":                 {pod: naming(pod(steps(maxContainers, nil), volumes(maxVolumes/2)), ""), task: task(maxContainers, maxVolumes/2)},
		"too large a Task":       {pod: naming(pod(steps(1, nil), nil), ""), task: task(20000, 0), refused: `the Task "task" has 20000 steps and sidecars and 0 volumes, and it may have 1000 and 1000: split it into several Tasks`},
		"a stepTemplate":         {pod: naming(pod(steps(1, nil), nil), ""), task: sharing(task(100, 0), 10000)},
		"too large a stepTemplate": {
			pod: naming(pod(steps(1, nil), nil), ""), task: sharing(task(100, 0), 1<<20),
			refused: `the Task "task": spec.stepTemplate and spec.params: they have 1048631 bytes, so 104863100 in all 100 steps, and at most 1048576 fit into a Pod: ` +
				"put large values into a ConfigMap, and name it in envFrom",
		},
		"too many names of steps":   {pod: naming(pod(steps(1, nil), nil), strings.Repeat("a,", 100000)), task: task(1000, 0), refused: "metadata.annotations: taskflow.practice.com/steps: 100000 entries, and a sequential Pod may have 1000: split the Pod into several Tasks"},
		"no steps, many containers": {pod: &corev1.Pod{Spec: corev1.PodSpec{Containers: steps(2000, nil)}}},
	} {
		t.Run(name, func(t *testing.T) {
			raw := encode(t, c.pod)
			var known []*v1alpha1.Task
			if c.task != nil {
				known = append(known, c.task)
			}
			began := time.Now()
			got := mutateRaw(t, raw, known...)
			if took := time.Since(began); took > patience {
				t.Errorf("the answer took %s", took)
			}
			if len(got.Patch) > maxPatch {
				t.Errorf("the patch has %d bytes", len(got.Patch))
			}
			if diff := cmp.Diff(c.refused, got.Rejection); diff != "" {
				t.Errorf("the rejection (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStepListBounds proves that a list of steps costs the webhook little time, however it is written.
func TestStepListBounds(t *testing.T) {
	const patience = 10 * time.Second // it takes less than a second
	names := func(count int) []string {
		var all []string
		for i := range count {
			all = append(all, fmt.Sprintf("s%d", i))
		}
		return all
	}
	entries := func(count int, options func(i int) string) string {
		var text strings.Builder
		for i, name := range names(count) {
			fmt.Fprintf(&text, "- {name: %s%s}\n", name, options(i))
		}
		return text.String()
	}
	var bomb strings.Builder
	bomb.WriteString("- &a [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 10 {
		fmt.Fprintf(&bomb, "- &%c [%s]\n", 'b'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", 'a'+i), 10), ", "))
	}
	for name, c := range map[string]struct {
		list    string
		steps   int
		refused string // its beginning
	}{
		"all side by side": {entries(1000, func(int) string { return ", dependsOn: []" }), 1000, ""},
		"many edges":       {entries(120, func(i int) string { return ", dependsOn: [" + strings.Join(names(i)[max(0, i-90):], ",") + "]" }), 120, ""},
		"many conditions": {entries(60, func(i int) string {
			return ", onError: Continue, when: [" + strings.Repeat("{step: s0, state: {in: [Failed]}},", min(i, 20)) + "]"
		}), 60, ""},
		"too many steps": {"[" + strings.Join(names(9000), ",") + "]", 1, "metadata.annotations: taskflow.practice.com/steps: 9000 entries, and a sequential Pod may have 1000: split the Pod into several Tasks"},
		"too long":       {entries(10000, func(int) string { return "" }), 1, "metadata.annotations: taskflow.practice.com/steps: the list has "},
		"deep":           {strings.Repeat("[", 60000), 1, "metadata.annotations: taskflow.practice.com/steps: "},
		"aliases":        {bomb.String(), 1, "metadata.annotations: taskflow.practice.com/steps: the list has more than 65536 bytes if its aliases are written out"},
		"aliases of one long text": {
			"- {name: a}\n- {name: b, x: [&s " + strings.Repeat("x", 32000) + strings.Repeat(",*s ", 8000) + "]}", 1,
			"metadata.annotations: taskflow.practice.com/steps: the list has more than 65536 bytes if its aliases are written out",
		},
		"an alias of itself": {"- &a [*a]", 1, "metadata.annotations: taskflow.practice.com/steps: "},
	} {
		t.Run(name, func(t *testing.T) {
			var containers []corev1.Container
			for _, name := range names(c.steps) {
				container := step(name, mount("v0", "/s"))
				for m := range 9 {
					container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: "v0", MountPath: fmt.Sprintf("/s/%d", m), SubPath: strconv.Itoa(m)})
				}
				containers = append(containers, container)
			}
			pod := taskPod(containers...)
			pod.OwnerReferences, pod.Labels = nil, map[string]string{contract.SequentialLabel: "true"}
			pod.Spec.Volumes = []corev1.Volume{{Name: "v0", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			pod.Annotations = map[string]string{contract.StepsAnnotation: c.list}
			began := time.Now()
			got := mutateRaw(t, encode(t, pod))
			took := time.Since(began)
			t.Logf("the answer took %s", took)
			if took > patience {
				t.Errorf("the answer took %s", took)
			}
			if !strings.HasPrefix(got.Rejection, c.refused) || c.refused == "" && got.Rejection != "" {
				t.Errorf("the rejection is %.300s, want %s", got.Rejection, c.refused)
			}
		})
	}
}
