package controller

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// lastHelperStart returns when the last running helper started, or nil if none runs. The first step waits for all of them.
func lastHelperStart(pod *corev1.Pod) *metav1.MicroTime {
	steps := podspec.StepNames(pod)
	var last *metav1.MicroTime
	for _, container := range pod.Status.ContainerStatuses {
		if running := container.State.Running; running != nil && !slices.Contains(steps, container.Name) {
			if at := microTime(running.StartedAt); last == nil || at != nil && at.After(last.Time) {
				last = at
			}
		}
	}
	return last
}

// stepDuration returns how long the command of a step ran, in human-readable form. It is empty unless both times of the step are known.
func stepDuration(step v1alpha1.StepStatus) string {
	if !hasEnded(step) || step.StartedAt == nil || step.FinishedAt == nil {
		return ""
	}
	switch d := max(0, step.FinishedAt.Sub(step.StartedAt.Time)); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return duration.HumanDuration(d)
	}
}

// earlier returns the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// microTime returns nil for an unknown time. For a container that never started, the kubelet reports 1970.
func microTime(t metav1.Time) *metav1.MicroTime {
	if t.Unix() <= 0 {
		return nil
	}
	return &metav1.MicroTime{Time: t.Time}
}

// exactTime cuts a time to microseconds, which is what a status keeps: otherwise every reconcile would find a change.
func exactTime(t time.Time) *metav1.MicroTime {
	return &metav1.MicroTime{Time: t.Truncate(time.Microsecond)}
}

// notBefore returns a time of a step, but no time before an earlier one; either is nil if it is unknown.
func notBefore(t, earliest *metav1.MicroTime) *metav1.MicroTime {
	if t == nil || earliest == nil || !t.Before(earliest) {
		return t
	}
	return earliest
}

// isWithin reports whether a time lies between two times of the kubelet, which have whole seconds.
func isWithin(t, first, last time.Time) bool {
	return !t.Before(first) && t.Before(last.Add(time.Second))
}

// earliest returns the earliest time that the kubelet knows for a step's container. A container that was restarted may have left its record
// before its last start, so its Pod's start counts. Zero: the start of the container.
func earliest(pod *corev1.Pod, container *corev1.ContainerStatus) time.Time {
	if container.RestartCount > 0 && pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return time.Time{}
}

// spec.timeout counts from the Task's start, as activeDeadlineSeconds of a Job does: also while there is no Pod yet, while the Pod is
// unschedulable, and over all attempts. The kubelet ends the Pod by its own activeDeadlineSeconds, also while the operator is down. The controller
// does the rest.

// deadlineRetry is how soon a Task that failed to be reconciled is retried shortly before its deadline.
const deadlineRetry = 2 * time.Second

// start records when the controller first saw the Task not suspended.
func (n *next) start(at time.Time) {
	if n.StartTime == nil && n.isNew {
		at = n.now
	}
	if n.StartTime == nil {
		n.StartTime = &metav1.Time{Time: at.Truncate(time.Second)}
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

// isTimedOut reports whether spec.timeout has passed.
func (n *next) isTimedOut(now time.Time) bool {
	left, isLimited := n.timeLeft(now)
	return isLimited && left <= 0
}

// defaultFinallyTimeout is the default of spec.finallyTimeout.
const defaultFinallyTimeout = 5 * time.Minute

// finalTime returns how much longer than spec.timeout the final steps may run; 0 without final steps.
func (n *next) finalTime() time.Duration {
	hasFinal := n.seen.plan.Work() < len(n.seen.plan.Steps)
	if n.pod == nil {
		hasFinal = slices.ContainsFunc(n.task.Spec.Steps, func(step v1alpha1.Step) bool { return step.Finally })
	}
	switch {
	case !hasFinal:
		return 0
	case n.task.Spec.FinallyTimeout != nil:
		return n.task.Spec.FinallyTimeout.Duration
	}
	return defaultFinallyTimeout
}

// The ends of the message of the condition Progressing once spec.timeout has passed.
const (
	podEnds     = ": its Pod is being terminated"
	finalsStart = ": its final steps follow"
)

// timeoutMessage returns the message for a Task whose spec.timeout has passed, and spec.finallyTimeout, too, if its final steps took longer.
func (n *next) timeoutMessage() string {
	const finallyTimeout = "; its final steps took longer than spec.finallyTimeout, which is "
	message := n.workTimeoutMessage()
	if !n.finalsTimedOut() || strings.Contains(message, finallyTimeout) {
		return message
	}
	return message + finallyTimeout + n.finalTime().String()
}

// finalsTimedOut reports whether the Pod runs, or ended, because the time of its final steps has passed, and one of them has not ended by itself.
func (n *next) finalsTimedOut() bool {
	left, _ := n.timeLeft(n.now)
	if n.pod == nil || n.finalTime() == 0 || left+n.finalTime() > 0 && n.pod.Status.Reason != v1alpha1.ReasonDeadlineExceeded {
		return false
	}
	finals := n.seen.steps[n.seen.plan.Work():]
	return (n.seen.finalIsDue || slices.ContainsFunc(finals, hasBegun)) && slices.ContainsFunc(finals, func(step v1alpha1.StepStatus) bool {
		return !hasEnded(step) && step.Reason != contract.ReasonWhenFalse || contract.IsInterrupted(step.Reason) || step.Reason == v1alpha1.ReasonDeadlineExceeded
	})
}

// workTimeoutMessage returns what is to say about spec.timeout. If no step has begun, it says what the Pod waited for.
func (n *next) workTimeoutMessage() string {
	message := fmt.Sprintf("the Task took longer than spec.timeout, which is %s", n.task.Spec.Timeout.Duration)
	switch old := n.progress(); {
	case old.Reason == v1alpha1.ReasonDeadlineExceeded && strings.HasPrefix(old.Message, message): // while the Pod was being ended
		return strings.TrimSuffix(strings.TrimSuffix(old.Message, podEnds), finalsStart)
	case n.pod != nil && strings.HasPrefix(n.pod.Annotations[contract.HaltAnnotation], message): // while the final steps ran
		return n.pod.Annotations[contract.HaltAnnotation]
	case old.Reason == v1alpha1.ReasonSuspended, old.Reason == v1alpha1.ReasonPodCreated, old.Reason == v1alpha1.ReasonStepRunning, old.Message == "":
		return message
	// A kubelet that ends a Pod reports an end, without a start, for a container that it could never start.
	case slices.ContainsFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return hasBegun(step) && step.StartedAt != nil }):
		return message
	default:
		message += "; it waited for: "
		return message + clean(old.Message, maxNote/2-len(message)) // an event may add to it
	}
}

// failTimedOut: spec.timeout has passed, and nothing runs.
func (n *next) failTimedOut() { n.failed(v1alpha1.ReasonDeadlineExceeded, n.timeoutMessage(), n.now) }

// timingOut: spec.timeout has passed, and the Pod runs. The Task fails when the Pod has ended.
func (n *next) timingOut() {
	n.expire = true
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonDeadlineExceeded, n.timeoutMessage()+podEnds)
}

// stopForFinals: spec.timeout has passed, and final steps follow. They may run for spec.finallyTimeout.
func (n *next) stopForFinals() {
	n.halts(n.timeoutMessage())
	n.cancel = contract.CancelDeadlineExceeded
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonDeadlineExceeded, n.timeoutMessage()+finalsStart)
}

// checkDeadline makes sure that the Task is reconciled at its deadline, and at that of its final steps.
func (n *next) checkDeadline() {
	left, isLimited := n.timeLeft(n.now)
	if left <= 0 {
		left += n.finalTime()
	}
	if isLimited && left > 0 && !n.isEnd() && (n.again == 0 || left < n.again) {
		n.again = left
	}
}

// limit sets the Pod's own deadline to what is left of the Task's, plus the time for the final steps.
func (n *next) limit(pod *corev1.Pod) {
	if left, isLimited := n.timeLeft(n.now); isLimited {
		seconds := math.Ceil((left - time.Second + n.finalTime()).Seconds())
		pod.Spec.ActiveDeadlineSeconds = new(max(1, int64(seconds)))
	}
}
