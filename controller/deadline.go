package controller

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// spec.timeout counts from the Task's start, as activeDeadlineSeconds of a Job does: also while there is no Pod yet, while no node takes the
// Pod, and over all attempts. The kubelet ends the Pod by its own activeDeadlineSeconds, also while the operator is away; the controller does
// the rest.

// deadlineRetry is how soon a Task that has failed to be reconciled is tried again shortly before its deadline.
const deadlineRetry = 2 * time.Second

// start records that the Task is acknowledged and not suspended.
func (n *next) start(now time.Time) {
	if n.StartTime == nil {
		n.StartTime = &metav1.Time{Time: now.Truncate(time.Second)}
	}
}

// timeLeft returns how much of spec.timeout is left. The start has whole seconds, so there may be up to a second more, and never less.
func (n *next) timeLeft(now time.Time) (left time.Duration, isLimited bool) {
	timeout := n.task.Spec.Timeout
	if timeout == nil || n.StartTime == nil {
		return 0, false
	}
	return n.StartTime.Add(timeout.Duration + time.Second).Sub(now), true
}

// isTimedOut reports whether spec.timeout is over.
func (n *next) isTimedOut(now time.Time) bool {
	left, isLimited := n.timeLeft(now)
	return isLimited && left <= 0
}

// podEnds is the end of the message of the condition Progressing while a Pod is being ended by spec.timeout.
const podEnds = ": its Pod is being ended"

// timedOut returns what is said of a Task whose spec.timeout is over: also what it waited for, if no step has begun.
func (n *next) timedOut() string {
	message := fmt.Sprintf("the Task took longer than spec.timeout, which is %s", n.task.Spec.Timeout.Duration)
	old := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing)
	switch {
	case old == nil:
		return message
	case old.Reason == v1alpha1.ReasonDeadlineExceeded && strings.HasPrefix(old.Message, message): // said while the Pod was being ended
		return strings.TrimSuffix(old.Message, podEnds)
	case old.Reason == v1alpha1.ReasonSuspended, old.Reason == v1alpha1.ReasonPodCreated, old.Reason == v1alpha1.ReasonStepRunning, old.Message == "":
		return message
	}
	// A kubelet that ends a Pod reports an end, without a start, of a container that it could never start.
	if slices.ContainsFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return hasBegun(step) && step.StartedAt != nil }) {
		return message
	}
	message += "; it waited for: "
	return message + clean(old.Message, maxNote/2-len(message)) // something may follow it in an event
}

// failTimedOut: spec.timeout is over, and nothing runs.
func (n *next) failTimedOut(now time.Time) {
	n.failed(v1alpha1.ReasonDeadlineExceeded, n.timedOut(), now)
}

// endTimedOut: spec.timeout is over, and the Pod is there. The Task fails as soon as the Pod has ended.
func (n *next) endTimedOut(pod *corev1.Pod, now time.Time) {
	if isUnbound(pod) {
		n.failTimedOut(now)
		return
	}
	n.expire = true
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonDeadlineExceeded, n.timedOut()+podEnds)
}

// checkDeadline makes the Task be looked at again at its deadline.
func (n *next) checkDeadline(now time.Time) {
	left, isLimited := n.timeLeft(now)
	if !isLimited || left <= 0 || n.isEnd() {
		return
	}
	if n.again == 0 || left < n.again {
		n.again = left
	}
}

// limit sets the Pod's own deadline to what is left of the Task's.
func (n *next) limit(pod *corev1.Pod, now time.Time) {
	if left, isLimited := n.timeLeft(now); isLimited {
		seconds := math.Ceil((left - time.Second).Seconds())
		pod.Spec.ActiveDeadlineSeconds = new(max(1, int64(seconds)))
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
