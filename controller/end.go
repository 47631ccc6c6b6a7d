package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// A status that ends an attempt is written only after the attempt's Pod has been told: nobody looks at that Pod again, so its later steps
// would run under a Task that has failed, or beside the Pod of the next attempt.

// errStale means that a write was made from an old state of its object, and has changed nothing.
var errStale = errors.New("the Pod has changed meanwhile")

// isStale reports whether the API server refused a write because a precondition or a test of a JSON patch failed. For the latter it answers
// 422 without an object; for a Pod that would be invalid it names the Pod.
func isStale(err error) bool {
	if apierrors.IsConflict(err) {
		return true
	}
	var status apierrors.APIStatus
	return apierrors.IsInvalid(err) && errors.As(err, &status) && (status.Status().Details == nil || status.Status().Details.Kind == "")
}

// retryStale returns what Reconcile returns for an error: a stale write is no error, and is tried again as soon as the cache has caught up.
func retryStale(err error) (ctrl.Result, error) {
	if errors.Is(err, errStale) {
		return ctrl.Result{RequeueAfter: staleRetry}, nil
	}
	return ctrl.Result{}, err
}

// isEnd reports whether the status ends the attempt that the Task's status is about.
func (n *next) isEnd() bool {
	return finished(&n.TaskStatus) || len(n.Attempts) > len(n.task.Status.Attempts)
}

// isWithoutPod reports whether the status says for the first time that the Task has no Pod, and needs none.
func (n *next) isWithoutPod() bool {
	return n.task.Status.PodName == "" && n.pod == nil &&
		(finished(&n.TaskStatus) || n.Phase == v1alpha1.TaskSuspended && n.task.Status.Phase != v1alpha1.TaskSuspended)
}

// halts sets what the Pod is told when its attempt ends.
func (n *next) halts(why string) {
	if n.halt == "" {
		n.halt = clean(why, maxNote)
	}
}

// isUnbound reports whether no node has taken the Pod, so that none of its containers has run.
func isUnbound(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.Status.Phase == corev1.PodPending &&
		len(pod.Status.InitContainerStatuses)+len(pod.Status.ContainerStatuses) == 0
}

// removes makes an end delete the Pod, which no node has taken, and says so. Halted, it would stay Pending, and run its init containers on
// the first node that takes it. It has no logs to keep.
func (n *next) removes(pod *corev1.Pod) {
	n.remove = true
	const room = 512
	suffix := fmt.Sprintf("; the Pod %q was deleted, because no node had taken it", pod.Name)
	for _, kind := range []string{v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
		if condition := meta.FindStatusCondition(n.Conditions, kind); condition != nil {
			n.condition(kind, condition.Status, condition.Reason, cut(condition.Message, maxMessage-room)+suffix)
		}
	}
	if len(n.Attempts) > len(n.task.Status.Attempts) {
		last := &n.Attempts[len(n.Attempts)-1]
		last.Message = cut(last.Message, maxMessage-room) + suffix
	}
}

// isTold reports whether a Pod has no need to be halted: it is, or all of it is being ended anyway.
func isTold(pod *corev1.Pod) bool {
	return pod.Annotations[contract.HaltAnnotation] != "" || pod.DeletionTimestamp != nil || isTerminal(pod.Status.Phase)
}

// tell brings a status's end to its Pod. It returns nil only if the Pod knows, or is gone.
func (r *TaskReconciler) tell(ctx context.Context, status *next) error {
	pod := status.pod
	if pod != nil && status.expire {
		return r.expirePod(ctx, pod)
	}
	switch {
	case pod == nil || status.halt == "":
		return nil
	case status.remove && pod.DeletionTimestamp == nil: // whether or not somebody has halted it
		return r.removePod(ctx, pod)
	case isTold(pod):
		return nil
	}
	err := patchPod(ctx, r.Client, pod, haltPatch(pod, status.halt))
	if !errors.Is(err, errStale) {
		return err
	}
	var live corev1.Pod
	switch err := r.Live.Get(ctx, client.ObjectKeyFromObject(pod), &live); {
	case err != nil:
		return client.IgnoreNotFound(err)
	case live.UID != pod.UID || isTold(&live):
		return nil
	}
	return patchPod(ctx, r.Client, &live, haltPatch(&live, status.halt))
}

// removePod deletes a Pod as it was read: not one that a node has taken since.
func (r *TaskReconciler) removePod(ctx context.Context, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	switch {
	case isStale(err):
		return errStale
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("deleting the Pod %q, which no node has taken: %w", pod.Name, err)
	}
	return nil
}

// haltPatch returns the patch that halts a Pod. It fails on another Pod of the same name, and on one that is halted.
func haltPatch(pod *corev1.Pod, why string) jsonpatch.Patch {
	var patch jsonpatch.Patch
	patch.Test(string(pod.UID), "metadata", "uid")
	if len(pod.Annotations) == 0 { // somebody has removed all
		patch.Test(nil, "metadata", "annotations")
		patch.Set(map[string]string{contract.HaltAnnotation: why}, "metadata", "annotations")
		return patch
	}
	testHalt(&patch, pod)
	patch.Set(why, "metadata", "annotations", contract.HaltAnnotation)
	return patch
}

// testHalt makes the patch fail if the Pod's halt is another than it was. A test for null holds if the annotation is absent.
func testHalt(patch *jsonpatch.Patch, pod *corev1.Pod) {
	if halt, has := pod.Annotations[contract.HaltAnnotation]; has {
		patch.Test(halt, "metadata", "annotations", contract.HaltAnnotation)
	} else {
		patch.Test(nil, "metadata", "annotations", contract.HaltAnnotation)
	}
}

// pod returns the Pod of the Task's present attempt, or nil. Before it says that a Pod which the status names is gone, it asks the API
// server: the cache may be behind.
func (r *TaskReconciler) pod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	var pod corev1.Pod
	key := client.ObjectKey{Namespace: task.Namespace, Name: podspec.Name(task, task.Status.Attempt)}
	err := r.Client.Get(ctx, key, &pod)
	switch {
	case apierrors.IsNotFound(err) && task.Status.PodName != "":
		return r.livePod(ctx, task)
	case err != nil:
		return nil, client.IgnoreNotFound(err)
	}
	return &pod, nil
}

// livePod is pod without the cache.
func (r *TaskReconciler) livePod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	var pod corev1.Pod
	key := client.ObjectKey{Namespace: task.Namespace, Name: podspec.Name(task, task.Status.Attempt)}
	if err := r.Live.Get(ctx, key, &pod); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	distrust(&pod)
	return &pod, nil
}

// endingPod returns the Pod of the last failed attempt as long as it may still run something, or nil.
func (r *TaskReconciler) endingPod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	failed := len(task.Status.Attempts)
	if failed == 0 {
		return nil, nil
	}
	var pod corev1.Pod
	key := client.ObjectKey{Namespace: task.Namespace, Name: task.Status.Attempts[failed-1].PodName}
	err := r.Client.Get(ctx, key, &pod)
	if apierrors.IsNotFound(err) {
		err = r.Live.Get(ctx, key, &pod)
		distrust(&pod)
	}
	switch {
	case err != nil:
		return nil, client.IgnoreNotFound(err)
	case !isMarked(&pod, task) || isTerminal(pod.Status.Phase):
		return nil, nil
	case isHeldUp(&pod):
		// What is no step would keep the Pod running for ever, and the next attempt waiting.
		want := observe(&pod)
		want.end = true
		if patch := orderPatch(&pod, want); len(patch) > 0 {
			if err := patchPod(ctx, r.Client, &pod, patch); err != nil && !errors.Is(err, errStale) {
				return nil, err
			}
		}
	}
	return &pod, nil
}

// isHeldUp reports whether a halted Pod goes on only for containers that are no steps.
func isHeldUp(pod *corev1.Pod) bool {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	return podspec.IsGated(pod) && pod.DeletionTimestamp == nil && pod.Annotations[contract.HaltAnnotation] != "" && isOver(pod) &&
		slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Running != nil && !slices.Contains(steps, c.Name)
		})
}

// waitForEnd: the next Pod is due, and the failed one may still run something.
func (n *next) waitForEnd(before *corev1.Pod, now time.Time) {
	message := fmt.Sprintf("the next Pod follows as soon as the failed Pod %q has ended", before.Name)
	if before.DeletionTimestamp == nil {
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonPodTerminating, message)
		return
	}
	if n.again = before.DeletionTimestamp.Sub(now); n.again > 0 {
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonPodTerminating, message)
		return
	}
	n.again = 0
	n.progressing(metav1.ConditionFalse, v1alpha1.ReasonPodTerminating, fmt.Sprintf(
		"%s: its grace period ended at %s, and its node %q hasn't confirmed the end; if the node is lost, delete the Node, or delete the Pod with --force",
		message, before.DeletionTimestamp.UTC().Format(time.RFC3339), before.Spec.NodeName))
}
