package controller

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step whose container can't start is given up when the start grace period is over, and counts as failed. What the Pod is told says so: the halt
// names the container of a step that is not final, and the order goes past a final step, so that the next one runs.

// giveUp makes step i a failed one if it was given up. It returns whether it did.
func (r *stepReader) giveUp(step *v1alpha1.StepStatus, i int) bool {
	planned, container := r.plan.Steps[i], r.statuses[step.Name]
	last := r.plan.Steps[len(r.plan.Steps)-1].Stage
	switch {
	case r.isPlain || container == nil || !cantStart(*container) || container.State.Waiting.Reason == reasonCrashLoop:
		return false
	case planned.IsFinal && (planned.Stage < min(r.order, last) || step.Name == r.late):
		step.Message = cause(r.pod, *container)
	case !planned.IsFinal && r.progress.HasTurn(i) && strings.HasPrefix(r.halt, cannotStart(step.Name)):
		step.Message = r.halt
	default:
		return false
	}
	step.State, step.Reason = v1alpha1.StepFailed, startReason(container.State.Waiting.Reason)
	return true
}

// isGivenUp reports whether a step failed because its container can't start. All others have an exit code.
func isGivenUp(step v1alpha1.StepStatus) bool {
	return step.State == v1alpha1.StepFailed && step.ExitCode == nil
}

// cannotStart is what the sentence about a container that can't start begins with.
func cannotStart(container string) string {
	return fmt.Sprintf("container %q cannot start: ", container)
}

// startReason returns the reason for which a container can't start. Those of an image that can't be pulled alternate.
func startReason(reason string) string {
	if reason == "ErrImagePull" {
		return v1alpha1.ReasonImagePullBackOff
	}
	return reason
}

// giveUpFinal: the container of the final step that is next will not start. The step counts as failed, and the next final step runs. Without one, the
// attempt ends as after a failure of the step.
func (n *next) giveUpFinal(container corev1.ContainerStatus, message string) {
	if len(n.untold(n.pod)) > 0 {
		return // it may change what the final steps are told
	}
	n.see(observeWithout(n.pod, container.Name))
	for i := range n.Steps {
		if isGivenUp(n.Steps[i]) && n.Steps[i].Name == container.Name {
			n.Steps[i].Message = clean(message, maxStepMessage)
		}
	}
	switch {
	case n.seen.finalIsDue:
		n.advance = orderPatch(n.pod, n.seen)
		n.finalStep()
	case n.task.Spec.Cancel:
		n.cancelled()
	case n.seen.failed >= 0:
		n.stepFailed()
	case n.seen.hasSucceeded, n.seen.halt == "":
		n.complete()
	default:
		n.haltedEnd()
	}
}

// finalsLate says in a message that the final steps were ended, because their time was over.
func (n *next) finalsLate() string {
	if n.task.Spec.Timeout == nil || !n.finalsTimedOut() {
		return ""
	}
	return fmt.Sprintf("; the final steps took longer than spec.finallyTimeout, which is %s", n.finalTime())
}

// lateEnd returns why the attempt failed if spec.timeout has passed. A step that had failed before is the reason, also if the time was over while the
// final steps ran.
func (n *next) lateEnd() (reason, message string) {
	failed, late := n.seen.failed, n.finalsLate()
	isLate := n.pod == nil || n.pod.Annotations[contract.CancelAnnotation] == contract.CancelDeadlineExceeded
	if isLate || late == "" || failed < 0 || n.Steps[failed].Reason == v1alpha1.ReasonDeadlineExceeded {
		return v1alpha1.ReasonDeadlineExceeded, n.timeoutMessage() + n.finalFailures() // depends on which steps have begun
	}
	reason, message = v1alpha1.ReasonStepFailed, n.seen.failure(failed, "")
	if step := n.Steps[failed]; isGivenUp(step) {
		reason, message = step.Reason, step.Message
	}
	return reason, message + late + n.finalFailures()
}
