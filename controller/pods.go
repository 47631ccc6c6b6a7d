package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// A status that ends an attempt is written only after the attempt's Pod has been told. The controller does not look at that Pod again, so its
// later steps would run under a Task that has failed, or beside the Pod of the next attempt.

// errStale means that a write was made from an old state of its object, and has changed nothing.
var errStale = errors.New("the Pod changed since it was read")

// isStale reports whether the API server refused a write because a precondition or a test of a JSON patch failed. For the latter it answers
// 422 without an object; for a Pod that would be invalid it names the Pod.
func isStale(err error) bool {
	if apierrors.IsConflict(err) {
		return true
	}
	var status apierrors.APIStatus
	return apierrors.IsInvalid(err) && errors.As(err, &status) && (status.Status().Details == nil || status.Status().Details.Kind == "")
}

// writeError returns what a Pod's patch or deletion failed for: nothing if the Pod is gone, and errStale if a precondition or a test failed.
func writeError(doing string, err error) error {
	if isStale(err) {
		err = errStale
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("%s the Pod: %w", doing, err)
	}
	return nil
}

// retryStale returns the result of Reconcile for an error. A stale write is no error: it is retried when the cache has caught up.
func retryStale(err error) (ctrl.Result, error) {
	if errors.Is(err, errStale) {
		return ctrl.Result{RequeueAfter: staleRetry}, nil
	}
	return ctrl.Result{}, err
}

// isEnd reports whether the status ends the current attempt.
func (n *next) isEnd() bool {
	return finished(&n.TaskStatus) || len(n.Attempts) > len(n.task.Status.Attempts)
}

// halts sets what the Pod is told when its attempt ends.
func (n *next) halts(why string) {
	if n.halt == "" {
		n.halt = clean(why, maxNote)
	}
}

// endPod makes sure that nothing of a Pod runs on under a Task that has ended: the final steps if the end has come before theirs, and containers that
// the kubelet would try to start for ever.
func (n *next) endPod() {
	if !n.seen.isOver {
		n.cancel, n.haltFinally = cmp.Or(n.cancel, contract.CancelCancelled), cmp.Or(n.haltFinally, n.halt)
	}
	n.expire = n.expire || len(stuck(n.pod)) > 0
}

// removePod makes an end delete the Pod, which no node has taken, and says so. If it were halted, it would stay Pending, and run its init
// containers on the first node that takes it. It has no logs to keep.
func (n *next) removePod() {
	n.remove = true
	const room = 512
	suffix := fmt.Sprintf("; the Pod %q was deleted, because no node had taken it", n.pod.Name)
	for _, kind := range []string{v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
		if condition := meta.FindStatusCondition(n.Conditions, kind); condition != nil {
			n.setCondition(kind, condition.Status, condition.Reason, cut(condition.Message, maxMessage-room)+suffix)
		}
	}
	if len(n.Attempts) > len(n.task.Status.Attempts) {
		last := &n.Attempts[len(n.Attempts)-1]
		last.Message = cut(last.Message, maxMessage-room) + suffix
	}
}

// telling is what a Pod is told through its annotations: why no further step starts, why the running steps end (a value of CancelAnnotation), and
// why no final step starts or goes on.
type telling struct{ halt, cancel, haltFinally string }

// annotation is an annotation of a Pod.
type annotation struct{ key, value string }

// untold returns what a Pod has not been told yet. A Pod that is being ended needs nothing, and one that runs one step after another only the
// halt, which ends the running step.
func (t telling) untold(pod *corev1.Pod) []annotation {
	if pod.DeletionTimestamp != nil || isTerminal(pod.Status.Phase) {
		return nil
	}
	all := []annotation{{contract.HaltAnnotation, t.halt}}
	if plan, _ := planOf(pod); !isPlain(plan) {
		all = append(all, annotation{contract.CancelAnnotation, t.cancel})
		if plan.Work() < len(plan.Steps) {
			all = append(all, annotation{contract.HaltFinallyAnnotation, t.haltFinally})
		}
	}
	return slices.DeleteFunc(all, func(a annotation) bool { return a.value == "" || pod.Annotations[a.key] != "" })
}

// tellPod ends, deletes or halts the Pod as decided. It returns nil only if the Pod knows, or is gone.
func (r *TaskReconciler) tellPod(ctx context.Context, n *next) error {
	pod := n.pod
	switch {
	case n.failedPod != nil:
		return r.endHelpers(ctx, n.failedPod)
	case pod != nil && n.expire:
		return r.expirePod(ctx, pod)
	case len(n.advance) > 0:
		return patchPod(ctx, r.Client, pod, n.advance)
	case pod == nil || n.telling == telling{}:
		return nil
	case n.remove && pod.DeletionTimestamp == nil: // also if it is halted, but not if it has changed, because a node may have taken it
		return writeError("deleting", r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}))
	case len(n.untold(pod)) == 0:
		return nil
	}
	err := patchPod(ctx, r.Client, pod, tellPatch(pod, n.untold(pod)))
	if !errors.Is(err, errStale) {
		return err
	}
	live, err := r.readLivePod(ctx, client.ObjectKeyFromObject(pod))
	if live == nil || live.UID != pod.UID || len(n.untold(live)) == 0 {
		return err
	}
	return patchPod(ctx, r.Client, live, tellPatch(live, n.untold(live)))
}

// tellPatch returns the patch that sets annotations. It fails on another Pod of the same name, and on one whose annotations of these keys have
// changed.
func tellPatch(pod *corev1.Pod, annotations []annotation) jsonpatch.Patch {
	var patch jsonpatch.Patch
	patch.Test(string(pod.UID), "metadata", "uid")
	if len(pod.Annotations) == 0 { // a user has removed all
		all := map[string]string{}
		for _, a := range annotations {
			all[a.key] = a.value
		}
		patch.Test(nil, "metadata", "annotations")
		patch.Set(all, "metadata", "annotations")
		return patch
	}
	for _, a := range annotations {
		testAnnotation(&patch, pod, a.key)
		patch.Set(a.value, "metadata", "annotations", a.key)
	}
	return patch
}

// testAnnotation makes the patch fail if an annotation of the Pod has changed. A test for null holds if the annotation is absent.
func testAnnotation(patch *jsonpatch.Patch, pod *corev1.Pod, key string) {
	if value, has := pod.Annotations[key]; has {
		patch.Test(value, "metadata", "annotations", key)
	} else {
		patch.Test(nil, "metadata", "annotations", key)
	}
}

// expirePod makes the kubelet end the Pod now.
func (r *TaskReconciler) expirePod(ctx context.Context, pod *corev1.Pod) error {
	if ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0) == endNow || pod.DeletionTimestamp != nil || isTerminal(pod.Status.Phase) {
		return nil
	}
	var patch jsonpatch.Patch
	patch.Test(string(pod.UID), "metadata", "uid")
	patch.Set(endNow, "spec", "activeDeadlineSeconds")
	return patchPod(ctx, r.Client, pod, patch)
}

// createPod creates the Pod of the attempt, and returns the status that follows.
func (r *TaskReconciler) createPod(ctx context.Context, n *next) (*next, error) {
	f := n.facts
	if isReady, err := r.createClaim(ctx, n); !isReady {
		return n, err
	}
	pod := podspec.New(f.task, f.task.Status.Attempt, f.commands)
	markOwner(pod, f.task)
	n.limit(pod)
	switch err := r.Client.Create(ctx, pod); {
	case err == nil:
		f.isNew = true
	case apierrors.IsAlreadyExists(err):
		live, liveErr := r.readLivePod(ctx, podKey(f.task))
		if live == nil {
			return n, cmp.Or(liveErr, err) // without an error from the read, the Pod has just been deleted
		}
		// A controlled and labelled Pod that the webhook did not see has no mark that counts. Only the operator leaves one.
		isUnseen := metav1.IsControlledBy(live, f.task) && podspec.IsSequential(live) && !podspec.IsGated(live)
		if f = f.withPod(live); f.foreign != nil && !isUnseen {
			return decide(f), nil
		}
		f.foreign, pod = nil, live
	default:
		return n, n.podRejected(err)
	}
	if !podspec.IsGated(pod) {
		return n, r.deleteUngated(ctx, n, pod)
	}
	f.pod = pod
	return decide(f), nil
}

// podRejected returns the error if a retry may help.
func (n *next) podRejected(err error) error {
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		n.failed(v1alpha1.ReasonPodInvalid, "the API server rejected the Pod as invalid: "+err.Error(), n.now)
		return nil
	}
	n.waiting(v1alpha1.ReasonPodRefused, "the API server rejected the Pod: "+err.Error())
	return err
}

// deleteUngated deletes a Pod that the webhook has not mutated, before a node takes it: all its steps would run at once.
func (r *TaskReconciler) deleteUngated(ctx context.Context, n *next, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}, client.GracePeriodSeconds(0))
	if err := writeError("deleting", err); err != nil {
		return err
	}
	n.failed(v1alpha1.ReasonPodRefused, fmt.Sprintf("the API server did not call taskflow's webhook for the Pod, so all steps would run at once: "+
		"create the Task in another namespace than %s, or install taskflow's MutatingWebhookConfiguration again", pod.Namespace), n.now)
	return nil
}

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

// isOfFormerTask reports whether an object belongs to a deleted Task of the same name, so that the garbage collector removes it. A kind Task of
// another API group is none.
func isOfFormerTask(object metav1.Object, task *v1alpha1.Task) bool {
	owner := metav1.GetControllerOf(object)
	return owner != nil && schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind() == v1alpha1.TaskKind.GroupKind() &&
		owner.Name == task.Name && owner.UID != task.UID && task.Status.PodName == ""
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
