package controller

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// What happens when a Pod of the name exists that the Task gives its Pod.

// readPod returns the Pod with the name of the current attempt's Pod, or nil. If the status names a Pod that the cache does not have, it asks the
// API server, because the cache may be behind.
func (r *TaskReconciler) readPod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	var pod corev1.Pod
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: task.Namespace, Name: podspec.Name(task, task.Status.Attempt)}, &pod)
	switch {
	case apierrors.IsNotFound(err) && task.Status.PodName != "":
		return r.readLivePod(ctx, task)
	case err != nil:
		return nil, client.IgnoreNotFound(err)
	}
	return &pod, nil
}

// readLivePod is readPod without the cache.
func (r *TaskReconciler) readLivePod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := r.Live.Get(ctx, client.ObjectKey{Namespace: task.Namespace, Name: podspec.Name(task, task.Status.Attempt)}, &pod); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	distrust(&pod)
	return &pod, nil
}

// withPod adds the Pod of the name to the facts. A suspended Task creates no Pod, so another Pod may have the name.
func (f facts) withPod(pod *corev1.Pod) facts {
	f.pod, f.foreign = nil, nil
	switch {
	case pod == nil:
	case isOwn(pod, f.task):
		f.pod = pod
	case !f.task.Spec.Suspend || f.task.Status.PodName != "":
		f.foreign = pod
	}
	return f
}

// isOfFormerTask reports whether a Pod belongs to a deleted Task of the same name, so that the garbage collector removes it.
func isOfFormerTask(pod *corev1.Pod, task *v1alpha1.Task) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == v1alpha1.TaskKind.Kind && owner.Name == task.Name && owner.UID != task.UID && task.Status.PodName == ""
}

func (n *next) waitForName() {
	n.waiting(v1alpha1.ReasonPodNameConflict, fmt.Sprintf("the Pod %q of an earlier Task of this name is still being deleted", n.foreign.Name))
	n.err = errors.New("the Pod of an earlier Task of the same name still exists")
}

func (n *next) failNameConflict() {
	n.failed(v1alpha1.ReasonPodNameConflict,
		fmt.Sprintf("Pod %q exists and does not belong to this Task; delete or rename it, then create the Task again", n.foreign.Name), n.now)
}

// A user who may create Pods can give one an owner reference to a Task. Such a Pod does not belong to the Task: its end would be the Task's.

// markOwner marks a Pod as created by the operator for the Task. The webhook rejects the mark from other users, and a ValidatingAdmissionPolicy
// keeps it from being added later.
func markOwner(pod *corev1.Pod, task *v1alpha1.Task) {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.TaskUIDAnnotation, string(task.UID))
}

// isOwn reports whether the operator created the Pod for the Task: the Task's status has the Pod's UID. If that write was lost, the Pod has the
// mark. An earlier release wrote neither, but the Pod's name.
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

// distrust removes the mark from a Pod without the label that the webhook selects Pods by, because the webhook has not checked it. The cache
// selects Pods by that label.
func distrust(pod *corev1.Pod) {
	if pod.Labels[contract.SequentialLabel] != "true" {
		delete(pod.Annotations, contract.TaskUIDAnnotation)
	}
}
