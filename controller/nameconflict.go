package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// What happens when a Pod of the name exists that the Task gives its Pod.

// podKey returns the name of the current attempt's Pod.
func podKey(task *v1alpha1.Task) client.ObjectKey {
	return client.ObjectKey{Namespace: task.Namespace, Name: podspec.Name(task, task.Status.Attempt)}
}

// readPod returns a Pod from the cache, or nil. If a Pod is expected that the cache does not have, it asks the API server, because the cache may
// be behind.
func (r *TaskReconciler) readPod(ctx context.Context, key client.ObjectKey, isExpected bool) (*corev1.Pod, error) {
	var pod corev1.Pod
	switch err := r.Client.Get(ctx, key, &pod); {
	case apierrors.IsNotFound(err) && isExpected:
		return r.readLivePod(ctx, key)
	case err != nil:
		return nil, client.IgnoreNotFound(err)
	}
	return &pod, nil
}

// readLivePod returns a Pod from the API server, or nil. A Pod without the label that the webhook selects Pods by loses its mark, because the
// webhook has not checked it. The cache selects Pods by that label.
func (r *TaskReconciler) readLivePod(ctx context.Context, key client.ObjectKey) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := r.Live.Get(ctx, key, &pod); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if pod.Labels[contract.SequentialLabel] != "true" {
		delete(pod.Annotations, contract.TaskUIDAnnotation)
	}
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

// A user who may create Pods can give one an owner reference to a Task. Such a Pod does not belong to the Task: its end would be the Task's.

// markOwner marks a Pod as created by the operator for the Task. The webhook rejects the mark from other users, and a ValidatingAdmissionPolicy
// keeps it from being added later.
func markOwner(pod *corev1.Pod, task *v1alpha1.Task) {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.TaskUIDAnnotation, string(task.UID))
}

// isOwn reports whether the operator created the Pod for the Task: the Task's status has the Pod's UID. If that write was lost, the Pod has the
// mark. An earlier release wrote neither, but the Pod's name.
func isOwn(pod *corev1.Pod, task *v1alpha1.Task) bool {
	isNamed := task.Status.PodName == pod.Name
	if isNamed && task.Status.PodUID != "" {
		return task.Status.PodUID == pod.UID && metav1.IsControlledBy(pod, task)
	}
	return isMarked(pod, task) || isNamed && metav1.IsControlledBy(pod, task)
}

// isMarked reports whether the Pod has the Task's mark.
func isMarked(pod *corev1.Pod, task *v1alpha1.Task) bool {
	return metav1.IsControlledBy(pod, task) && pod.Annotations[contract.TaskUIDAnnotation] == string(task.UID)
}
