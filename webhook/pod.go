package webhook

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// draft is a Pod of a user's on its way to a sequential one: pod is how it is by now, and patch what has made it so.
type draft struct {
	pod      *corev1.Pod
	patch    jsonpatch.Patch
	warnings []string
	// release gives back what the draft holds of Handler.LargeTasks, if it holds something.
	release func()
}

// isSequential says whether taskflow has anything to do with the Pod.
func isSequential(pod *corev1.Pod) bool {
	_, named := pod.Labels[contract.TaskLabel]
	return named || pod.Labels[contract.SequentialLabel] == "true"
}

// isPlanned says whether the webhook has been at the Pod, whichever way it delivered the agent then. A volume alone may be a user's, and
// is refused for its name.
func isPlanned(pod *corev1.Pod) bool {
	isRunVolume := func(v corev1.Volume) bool { return v.Name == contract.RunVolume }
	return slices.ContainsFunc(pod.Spec.InitContainers, isAgentContainer) ||
		slices.ContainsFunc(pod.Spec.Volumes, isAgentVolume) && slices.ContainsFunc(pod.Spec.Volumes, isRunVolume)
}

// isTasks reports whether the Pod says that it is a Task's own. Created by the operator, it has all that it needs.
func isTasks(pod *corev1.Pod) bool {
	_, named := pod.Labels[contract.TaskLabel]
	return named && controllingTask(pod) != ""
}

// controllingTask returns the name of the Task that is the Pod's controller by its owner references, or "".
func controllingTask(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != v1alpha1.TaskKind.Kind || !strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/") {
		return ""
	}
	return owner.Name
}

// containers are all that the Pod has. They are large: so not copies.
func containers(pod *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// sequence settles which containers are the steps, and how the Pod ends.
func (d *draft) sequence() error {
	names := contract.ParseSteps(d.pod.Annotations[contract.StepsAnnotation])
	if len(names) == 0 {
		for _, container := range d.pod.Spec.Containers {
			names = append(names, container.Name)
		}
	}
	d.annotate(map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)})

	if policy := d.pod.Spec.RestartPolicy; policy != corev1.RestartPolicyNever && policy != corev1.RestartPolicyOnFailure {
		d.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		d.patch.Set(corev1.RestartPolicyNever, "spec", "restartPolicy")
		d.warn("spec.restartPolicy Always has become Never, since steps end: set it to Never or OnFailure")
	}
	if helpers := helpers(d.pod); len(helpers) > 0 {
		d.warn("not in the sequence: %s; the Pod ends only when they do, unless each is an init container with restartPolicy: Always",
			strings.Join(helpers, ", "))
	}
	return checkContinue(d.pod)
}

// helpers are the names of the containers that are no steps. They start at once, and the first step waits until they are ready.
func helpers(pod *corev1.Pod) []string {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	var names []string
	for _, container := range pod.Spec.Containers {
		if !slices.Contains(steps, container.Name) {
			names = append(names, container.Name)
		}
	}
	return names
}

// resolve gives the steps without a command that of their image. All are asked for at once: an admission has little time.
func (d *draft) resolve(ctx context.Context, commands controller.CommandResolver, namespace string) error {
	steps, err := stepContainers(d.pod)
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(i int) bool { return len(d.pod.Spec.Containers[i].Command) > 0 })
	requests := make([]entrypoint.Request, len(steps))
	for n, i := range steps {
		requests[n] = entrypoint.RequestFor(namespace, &d.pod.Spec, &d.pod.Spec.Containers[i])
	}
	found, failed := entrypoint.ResolveAll(ctx, commands.Resolve, requests)
	for n, i := range steps {
		container := &d.pod.Spec.Containers[i]
		switch {
		case failed[n] != nil && ctx.Err() != nil:
			return fmt.Errorf("the container %q: its registry has not told the command of the image %q in time: set command", container.Name, container.Image)
		case failed[n] != nil:
			return fmt.Errorf("the container %q: %w", container.Name, failed[n])
		}
		// They get into the patch when the agent is put before them.
		container.Command, container.Args = found[n].Fill(container.Args)
		if image := found[n].Image; image != "" {
			container.Image = image
			d.patch.Set(image, "spec", "containers", strconv.Itoa(i), "image")
		}
	}
	return nil
}

// annotate sets annotations.
func (d *draft) annotate(values map[string]string) {
	if len(d.pod.Annotations) == 0 {
		d.pod.Annotations = maps.Clone(values)
		d.patch.Set(values, "metadata", "annotations")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if d.pod.Annotations[key] != values[key] {
			d.pod.Annotations[key] = values[key]
			d.patch.Set(values[key], "metadata", "annotations", key)
		}
	}
}

func (d *draft) warn(format string, args ...any) {
	d.warnings = append(d.warnings, fmt.Sprintf(format, args...))
}
