package podspec

import (
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// IsWhole reports whether a Task has its steps. The operator's cache drops those of Tasks that have a Pod, are finished or are large.
func IsWhole(task *v1alpha1.Task) bool { return len(task.Spec.Steps) > 0 }

// IsSequential reports whether the Pod's labels ask for a sequence. The webhook gates such a Pod.
func IsSequential(pod *corev1.Pod) bool {
	_, namesTask := pod.Labels[contract.TaskLabel]
	return namesTask || pod.Labels[contract.SequentialLabel] == "true"
}

// IsGated reports whether the webhook has gated the Pod: the annotations hold its steps and its order. The controllers release the steps of
// such a Pod.
func IsGated(pod metav1.Object) bool {
	annotations := pod.GetAnnotations()
	return annotations[contract.StepsAnnotation] != "" && annotations[contract.OrderAnnotation] != ""
}

// IsMutated reports whether the webhook has already mutated the Pod, with either delivery. A volume with the agent's name alone doesn't count:
// users can have one, and checkPod rejects it.
func IsMutated(pod *corev1.Pod) bool {
	isRunVolume := func(v corev1.Volume) bool { return v.Name == contract.RunVolume }
	return slices.ContainsFunc(pod.Spec.InitContainers, isAgentContainer) ||
		AgentVolume(pod) != nil && slices.ContainsFunc(pod.Spec.Volumes, isRunVolume)
}

// OwnerTask returns the name of the Task that the Pod's owner references name as its controller, or "". Users can write such a reference; only
// the webhook's check (checkOwner) makes it true.
func OwnerTask(pod metav1.Object) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != v1alpha1.TaskKind.Kind || !strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/") {
		return ""
	}
	return owner.Name
}

// StepNames returns the names of the Pod's steps in their order, as its annotation has them.
func StepNames(pod metav1.Object) []string {
	return contract.ParseSteps(pod.GetAnnotations()[contract.StepsAnnotation])
}

// Helpers returns the names of the Pod's helpers. They start at once, and the first step waits until they are ready.
func Helpers(pod *corev1.Pod) []string {
	steps := StepNames(pod)
	var names []string
	for i := range pod.Spec.Containers {
		if name := pod.Spec.Containers[i].Name; !slices.Contains(steps, name) {
			names = append(names, name)
		}
	}
	return names
}

// containers yields all containers of the Pod, init containers first. It yields pointers because containers are large.
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
