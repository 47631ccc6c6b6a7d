package podspec

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The bounds of a sequential Pod are far above what a node can run. They keep the time of a mutation short: part of the work grows with the
// square of a number.
const (
	maxContainers = 1000
	maxVolumes    = 1000
	maxMounts     = 10000 // of all containers
	maxOwnMounts  = 250   // of one container
	maxPath       = 1024  // bytes of mountPath, subPath, subPathExpr and workingDir
	// maxShared is the maximum size in bytes of what a stepTemplate and params add to all steps together. The API server stores no Pod of more
	// than 1.5 MiB. Without the bound, a Task of 1.3 MB with 100 steps makes a Pod of 130 MB in the operator's memory.
	maxShared = 1 << 20
)

// checkSize rejects a Pod beyond the bounds.
func checkSize(pod *corev1.Pod) error {
	mounts := 0
	for container := range containers(pod) {
		count := len(container.VolumeMounts)
		if count > maxOwnMounts {
			return fmt.Errorf("the container %q has %d volumeMounts, and a container may have %d: mount a directory above them", container.Name, count, maxOwnMounts)
		}
		mounts += count
		longest := len(container.WorkingDir)
		for i := range container.VolumeMounts {
			m := &container.VolumeMounts[i]
			longest = max(longest, len(m.MountPath), len(m.SubPath), len(m.SubPathExpr))
		}
		if longest > maxPath {
			return fmt.Errorf("the container %q has a mountPath, subPath or workingDir of more than %d bytes: use a shorter path", container.Name, maxPath)
		}
	}
	for _, c := range []struct {
		count, most   int
		field, remedy string
	}{
		{len(pod.Spec.Containers) + len(pod.Spec.InitContainers), maxContainers, "spec.containers", "split the Pod into several Tasks"},
		{len(StepNames(pod)), maxContainers, "metadata.annotations: " + contract.StepsAnnotation, "split the Pod into several Tasks"},
		{len(pod.Spec.Volumes), maxVolumes, "spec.volumes", "mount fewer volumes"},
		{mounts, maxMounts, "spec.containers[*].volumeMounts", "mount directories above them"},
	} {
		if c.count > c.most {
			return fmt.Errorf("%s: %d entries, and a sequential Pod may have %d: %s", c.field, c.count, c.most, c.remedy)
		}
	}
	return nil
}

// checkTaskSize rejects a Task that no Pod within the bounds can take its steps from.
func checkTaskSize(task *v1alpha1.Task) error {
	volumes := 0
	if task.Spec.Template != nil {
		volumes = len(task.Spec.Template.Spec.Volumes)
	}
	if count := len(task.Spec.Steps) + len(task.Spec.Sidecars); count > maxContainers || volumes > maxVolumes {
		return fmt.Errorf("the Task %q has %d steps and sidecars and %d volumes, and it may have %d and %d: split it into several Tasks",
			task.Name, count, volumes, maxContainers, maxVolumes)
	}
	if err := checkShared(task); err != nil {
		return fmt.Errorf("the Task %q: %w", task.Name, err)
	}
	return nil
}

// checkShared rejects a Task whose stepTemplate and params are too large for so many steps.
func checkShared(task *v1alpha1.Task) error {
	spec := &task.Spec
	if spec.StepTemplate == nil && len(spec.Params) == 0 {
		return nil
	}
	shared, err := json.Marshal([]any{spec.StepTemplate, spec.Params})
	if err != nil {
		return err
	}
	if size := len(shared) * len(spec.Steps); size > maxShared {
		return fmt.Errorf("spec.stepTemplate and spec.params: they have %d bytes, so %d in all %d steps, and at most %d fit into a Pod: "+
			"put large values into a ConfigMap, and name it in envFrom", len(shared), size, len(spec.Steps), maxShared)
	}
	return nil
}
