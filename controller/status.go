package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// finished reports whether a Task has ended. Its status no longer changes then.
func finished(status *v1alpha1.TaskStatus) bool { return endOf(status) != nil }

// endOf returns the condition that ends a Task, or nil.
func endOf(status *v1alpha1.TaskStatus) *metav1.Condition {
	i := slices.IndexFunc(status.Conditions, func(c metav1.Condition) bool {
		return (c.Type == v1alpha1.ConditionComplete || c.Type == v1alpha1.ConditionFailed) && c.Status == metav1.ConditionTrue
	})
	if i < 0 {
		return nil
	}
	return &status.Conditions[i]
}

// next is the status that follows from facts, and what else is to be done. The methods of next that the decision table names (situations.go) are
// idempotent: a status that is in their state already stays as it is.
type next struct {
	v1alpha1.TaskStatus
	facts

	// seen is what the Pod says about the steps, running are those that run, and current is the step whose turn it is: the first that runs, that
	// failed, or that is next. It has no name if the sequence is over.
	seen    observation
	running []string
	current v1alpha1.StepStatus

	// What the Pod needs before the status is written: it is created, ended because of spec.timeout, deleted, or told something.
	create, expire, remove bool
	telling
	// advance is the patch that gives up a final step, or nil.
	advance jsonpatch.Patch
	// again is when to look again although nothing has changed; 0 is never. err, if set, is retried with back-off instead.
	again time.Duration
	err   error
}

// nextStatus begins with the present status, and copies what the Pod says into it.
func nextStatus(f facts) *next {
	n := &next{TaskStatus: *f.task.Status.DeepCopy(), facts: f}
	n.ObservedGeneration = f.task.Generation
	if f.pod != nil {
		n.mirror()
	}
	return n
}

// mirror copies what the Pod says.
func (n *next) mirror() {
	n.see(observe(n.pod))
	n.PodName, n.PodUID = n.pod.Name, n.pod.UID
	n.Attempt = int32(len(n.Attempts) + 1) //nolint:gosec // at most 101
	n.start(n.pod.CreationTimestamp.Time)
	n.resumed()
	n.Phase = v1alpha1.TaskPending
	// A Pod is Pending until all of its containers have started, and a step may run before that.
	if n.pod.Status.Phase == corev1.PodRunning || slices.ContainsFunc(n.Steps, hasBegun) {
		n.Phase = v1alpha1.TaskRunning
	}
	if n.task.Spec.Cancel {
		n.halt, n.cancel = "spec.cancel of the Task is true", contract.CancelCancelled
		if n.task.Spec.CancelFinally {
			n.haltFinally = "spec.cancelFinally of the Task is true"
		}
	}
}

// see takes over what the Pod says about the steps.
func (n *next) see(seen observation) {
	n.seen, n.Steps, n.Order = seen, seen.steps, int32(min(seen.order, len(seen.steps))) //nolint:gosec // at most 100
	n.Progress = fmt.Sprintf("%d/%d", seen.done, len(stepNames(n.task)))
	n.findCurrent()
}

// findCurrent sets the current step.
func (n *next) findCurrent() {
	n.current, n.running = v1alpha1.StepStatus{}, nil
	steps, current := n.seen.steps, n.seen.failed
	if current < 0 || n.seen.finalIsDue {
		current = n.seen.next
	}
	for i, step := range slices.Backward(steps) {
		if step.State == v1alpha1.StepRunning {
			current, n.running = i, slices.Insert(n.running, 0, step.Name)
		}
	}
	if current >= 0 && !n.seen.hasSucceeded {
		n.current = steps[current]
	}
	n.CurrentStep = n.current.Name
	if len(n.running) > 1 {
		n.CurrentStep = enumerate(n.running)
	}
}

// enumerate returns the names for a column of a table.
func enumerate(names []string) string {
	const most = 3
	if len(names) > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("+%d", len(names)-most))
	}
	return strings.Join(names, ",")
}

// hasBegun reports whether the step runs or has run.
func hasBegun(step v1alpha1.StepStatus) bool {
	return step.State == v1alpha1.StepRunning || hasEnded(step)
}

// keep leaves the status as it is until the kubelet or a registry has answered.
func (n *next) keep() {
	n.TaskStatus = *n.task.Status.DeepCopy()
	n.again = n.settleTime
	if n.pod == nil {
		n.again = max(0, noteLookup-n.unresolved.pending)
	}
}

func (n *next) setCondition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&n.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: cleanReason(reason, v1alpha1.ReasonPodFailed), Message: clean(message, maxMessage),
		ObservedGeneration: n.task.Generation, LastTransitionTime: metav1.Time{Time: n.now},
	})
}

// progressing sets the condition Progressing. A new reason moves its transition time, so that the time tells how long the Task has been
// waiting for the same thing.
func (n *next) progressing(status metav1.ConditionStatus, reason, message string) {
	reason = cleanReason(reason, v1alpha1.ReasonPodFailed)
	if old := n.progress(); old.Reason != reason {
		old.Status = metav1.ConditionUnknown
	}
	n.setCondition(v1alpha1.ConditionProgressing, status, reason, message)
}

// progress returns the condition Progressing, or an empty one.
func (n *next) progress() *metav1.Condition {
	if condition := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing); condition != nil {
		return condition
	}
	return &metav1.Condition{}
}

// suspended: there is no Pod, and spec.suspend is true.
func (n *next) suspended() {
	n.Phase, n.Steps, n.Progress = v1alpha1.TaskSuspended, nil, ""
	n.StartTime = nil // set again when the Task is resumed, as for a Job
	n.setCondition(v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "spec.suspend is true: set it to false to run the Task")
	n.progressing(metav1.ConditionFalse, v1alpha1.ReasonSuspended, "spec.suspend is true")
}

func (n *next) resumed() {
	if meta.IsStatusConditionTrue(n.Conditions, v1alpha1.ConditionSuspended) {
		n.setCondition(v1alpha1.ConditionSuspended, metav1.ConditionFalse, v1alpha1.ReasonResumed, "spec.suspend is false")
	}
}

// waiting: there is no Pod yet, for a reason that may pass.
func (n *next) waiting(reason, message string) {
	n.Phase = v1alpha1.TaskPending
	n.listSteps()
	n.resumed()
	n.progressing(metav1.ConditionFalse, reason, message)
}

// listSteps names the steps as long as there is no Pod.
func (n *next) listSteps() {
	if n.PodName != "" {
		return
	}
	n.Steps = nil // the spec may have changed
	for _, name := range stepNames(n.task) {
		n.Steps = append(n.Steps, v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting})
	}
	n.Progress = fmt.Sprintf("0/%d", len(n.Steps))
}

// complete: all steps are done, or one of them finished the sequence. Some may have failed, if their failure was allowed.
func (n *next) complete() {
	message := "all steps succeeded"
	isIn := func(state v1alpha1.StepState) int {
		return slices.IndexFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return step.State == state })
	}
	if finish := finishOf(n.seen); finish != "" {
		message = finish
	} else if i := isIn(v1alpha1.StepFailed); i >= 0 {
		message = "all steps have ended; " + n.seen.failure(i, ", which does not fail the Task (onError: Continue)")
	} else if isIn(v1alpha1.StepSkipped) >= 0 {
		message = "all steps succeeded or were skipped by their conditions"
	}
	n.Phase = v1alpha1.TaskSucceeded
	n.setCondition(v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonStepsSucceeded, message)
	n.ended(v1alpha1.ReasonStepsSucceeded, message, latest(n.seen.steps, n.now))
}

// failed: the Task has ended, and not all steps are done.
func (n *next) failed(reason, message string, at time.Time) {
	reason = cleanReason(reason, v1alpha1.ReasonPodFailed)
	n.Phase = v1alpha1.TaskFailed
	n.listSteps()
	n.setCondition(v1alpha1.ConditionFailed, metav1.ConditionTrue, reason, message)
	n.halts(message)
	n.ended(reason, message, at)
	if failed := n.seen.failed; failed >= 0 && failed < len(n.seen.steps) && !isPlain(n.seen.plan) { // final steps may have followed
		n.CurrentStep = n.seen.steps[failed].Name
	}
	for i := range n.Steps {
		step := &n.Steps[i]
		switch step.State {
		case v1alpha1.StepWaiting:
			step.State, step.Reason, step.Message = v1alpha1.StepSkipped, contract.ReasonSkipped, ""
		case v1alpha1.StepRunning: // the controller does not look at the Pod again
			step.State, step.Reason = v1alpha1.StepFailed, reason
		}
	}
}

func (n *next) ended(reason, message string, at time.Time) {
	n.resumed()
	n.progressing(metav1.ConditionFalse, reason, message)
	if n.StartTime != nil && at.Before(n.StartTime.Time) { // by the clock of a node
		at = n.StartTime.Time
	}
	n.CompletionTime = &metav1.Time{Time: at.Truncate(time.Second)}
	if n.StartTime != nil {
		n.Duration = duration.HumanDuration(max(0, n.CompletionTime.Sub(n.StartTime.Time)))
	}
}

// latest returns when the last of the steps ended.
func latest(steps []v1alpha1.StepStatus, now time.Time) time.Time {
	var at time.Time
	for _, step := range steps {
		if step.FinishedAt != nil && step.FinishedAt.After(at) {
			at = step.FinishedAt.Time
		}
	}
	if at.IsZero() {
		return now
	}
	return earlier(at, now)
}

// cancelled: the Task has ended because spec.cancel is true.
func (n *next) cancelled() {
	n.failed(v1alpha1.ReasonCancelled, n.withMissedFinals(v1alpha1.ReasonCancelled, "spec.cancel is true"+n.finalsLate()+n.finalFailures()), n.now)
	n.Phase = v1alpha1.TaskCancelled
}

func (n *next) stepFailed() {
	step := n.seen.steps[n.seen.failed]
	if isGivenUp(step) {
		n.startFailed(step.Reason, step.Message, step.Reason != "InvalidImageName")
		return
	}
	ended := []v1alpha1.StepStatus{step}
	if !isPlain(n.seen.plan) {
		ended = n.seen.steps
	}
	n.podFailed(v1alpha1.ReasonStepFailed, n.seen.failure(n.seen.failed, "")+n.finalFailures(), latest(ended, n.now))
}

// podDeleted: the Pod is being deleted, or is gone. Its deletionTimestamp lies ahead: it is the end of the grace period.
func (n *next) podDeleted() {
	reason, message := v1alpha1.ReasonPodDeleted, fmt.Sprintf("the Pod %q was deleted before all steps had ended", n.PodName)
	if n.pod != nil {
		if condition := disruption(n.pod); condition != nil {
			reason, message = condition.Reason, fmt.Sprintf("the Pod %q was deleted: %s", n.PodName, condition.Message)
		}
	}
	n.markInterrupted(reason)
	n.podFailed(reason, message, n.now)
}

// podEnded: the Pod is terminal, and not because of a step: it was evicted, exceeded its deadline, or an init container failed.
func (n *next) podEnded() {
	reason, message, at := v1alpha1.ReasonPodFailed, "the Pod ended before all steps had run", n.now
	condition := disruption(n.pod)
	failedInit := slices.IndexFunc(n.pod.Status.InitContainerStatuses, func(container corev1.ContainerStatus) bool {
		return container.State.Terminated != nil && !hasSucceeded(container)
	})
	switch {
	case n.pod.Status.Reason != "":
		reason, message = n.pod.Status.Reason, strings.TrimRight("the Pod failed: "+n.pod.Status.Message, ": ")
	case condition != nil:
		reason, message = condition.Reason, "the Pod failed: "+condition.Message
	case failedInit >= 0:
		container := n.pod.Status.InitContainerStatuses[failedInit]
		end := container.State.Terminated
		message = fmt.Sprintf("init container %q failed with exit code %d (%s)", container.Name, end.ExitCode, end.Reason)
		at = earlier(end.FinishedAt.Time, n.now)
	}
	n.markInterrupted(reason)
	n.podFailed(reason, message, at)
}

// The methods below set the condition Progressing of a Task whose Pod is not at its end.

func (n *next) gated() {
	var names []string
	for _, gate := range n.pod.Spec.SchedulingGates {
		names = append(names, gate.Name)
	}
	n.progressing(metav1.ConditionFalse, corev1.PodReasonSchedulingGated, "the Pod is not scheduled before its scheduling gates are removed: "+strings.Join(names, ", "))
}
