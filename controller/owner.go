package controller

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Anybody who may create Pods can give one an owner reference to a Task. Such a Pod is no Pod of the Task: its end would be the Task's.

// markOwner marks a Pod as one that the operator creates for the Task. The webhook refuses the mark from everybody else, and a
// ValidatingAdmissionPolicy keeps it from being added later.
func markOwner(pod *corev1.Pod, task *v1alpha1.Task) {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.TaskUIDAnnotation, string(task.UID))
}

// isOwn reports whether the operator created the Pod for the Task: the Task's status has the Pod's UID; or, if that write was lost, the
// Pod has the mark; or an earlier release, which wrote neither, has recorded the Pod's name.
func isOwn(pod *corev1.Pod, task *v1alpha1.Task) bool {
	switch status := &task.Status; {
	case !metav1.IsControlledBy(pod, task):
		return false
	case status.PodName == pod.Name && status.PodUID != "":
		return status.PodUID == pod.UID
	case isMarked(pod, task):
		return true
	default:
		return status.PodName == pod.Name
	}
}

// isMarked reports whether the Pod has the Task's mark.
func isMarked(pod *corev1.Pod, task *v1alpha1.Task) bool {
	return metav1.IsControlledBy(pod, task) && pod.Annotations[contract.TaskUIDAnnotation] == string(task.UID)
}

// distrust removes the mark of a Pod without the label that the webhook selects Pods by: nobody has checked it. The Pods in the cache are
// selected by that label.
func distrust(pod *corev1.Pod) {
	if pod.Labels[contract.SequentialLabel] != "true" {
		delete(pod.Annotations, contract.TaskUIDAnnotation)
	}
}
