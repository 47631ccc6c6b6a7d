package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// What a Task says while its steps run, and when they can't.

// stepRunning: one or more steps run.
func (n *next) stepRunning() {
	message := n.runningMessage()
	containers := slices.DeleteFunc(stuck(n.pod), func(container corev1.ContainerStatus) bool {
		return strings.HasPrefix(n.seen.halt, cannotStart(container.Name)) // the halt names it
	})
	if len(containers) > 0 {
		message += "; " + cause(n.pod, containers[0])
	}
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonStepRunning, message+n.haltMessage())
}

// runningMessage names the steps that run.
func (n *next) runningMessage() string {
	if len(n.running) == 1 {
		return fmt.Sprintf("step %q is running", n.running[0])
	}
	quoted := make([]string, len(n.running))
	for i, name := range n.running {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("steps %s are running", strings.Join(quoted, ", "))
}

// haltMessage returns why no further step starts, if steps beside the cause still run.
func (n *next) haltMessage() string {
	if n.seen.halt == "" || isPlain(n.seen.plan) {
		return ""
	}
	return "; no further step starts: " + n.seen.halt
}

// finalStep: the steps that are not final have ended, and a final step runs or is about to run.
func (n *next) finalStep() {
	message := fmt.Sprintf("final step %q is next", n.current.Name)
	if n.current.State == v1alpha1.StepRunning {
		message = fmt.Sprintf("final step %q is running", n.current.Name)
	}
	if n.seen.halt != "" {
		message += "; the other steps have ended: " + n.seen.halt
	}
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonFinalStepRunning, message)
}

// finalFailures returns what to add to the message about another failure because of final steps that failed, or can't start.
func (n *next) finalFailures() string {
	var message strings.Builder
	for i, step := range n.Steps {
		isFinal := i < len(n.seen.plan.Steps) && n.seen.plan.Steps[i].IsFinal
		if isFinal && i != n.seen.failed && step.State == v1alpha1.StepFailed && n.seen.plan.Steps[i].OnError != sequence.Continue {
			message.WriteString("; " + n.seen.failure(i, ""))
		}
	}
	return message.String()
}

// finalsMissed says in a message that none of the final steps ran.
const finalsMissed = "; the final steps did not run"

// withMissedFinals adds to the message about the end of an attempt that its final steps did not run, and why if they had no time left. If no node
// took the Pod, there is nothing that they had to do.
func (n *next) withMissedFinals(reason, message string) string {
	work := n.seen.plan.Work()
	if n.pod == nil {
		work = slices.IndexFunc(n.task.Spec.Steps, func(step v1alpha1.Step) bool { return step.Finally })
	}
	hadTurn := func(step v1alpha1.StepStatus) bool {
		return hasBegun(step) && step.Reason != contract.ReasonTerminated || step.Reason == contract.ReasonWhenFalse
	}
	switch {
	case work < 0 || work >= len(n.Steps) || n.PodName == "" || n.pod != nil && isUnbound(n.pod):
		return message
	case slices.ContainsFunc(n.Steps[work:], hadTurn) || strings.Contains(message, finalsMissed):
		return message
	}
	message += finalsMissed
	if late := n.lateStep(n.Steps[:work]); reason == v1alpha1.ReasonDeadlineExceeded && late != "" {
		message += fmt.Sprintf(", because step %q had not ended when spec.finallyTimeout (%s) was over: raise it above the Pod's grace period", late, n.finalTime())
	}
	return message
}

// lateStep returns the name of the step that ended last, if it was told to end at spec.timeout and had not when spec.finallyTimeout was over.
func (n *next) lateStep(steps []v1alpha1.StepStatus) string {
	if n.pod == nil || n.pod.Annotations[contract.CancelAnnotation] != contract.CancelDeadlineExceeded || n.task.Spec.Timeout == nil {
		return ""
	}
	name, last := "", n.StartTime.Add(n.task.Spec.Timeout.Duration+n.finalTime())
	for _, step := range steps {
		end := n.now // of a step whose end is unknown
		if step.FinishedAt != nil {
			end = step.FinishedAt.Time
		}
		if hasBegun(step) && !end.Before(last) {
			name, last = step.Name, end
		}
	}
	return name
}

// containerStuck: a container can't start, and the sequence waits for it. Most causes pass, or a user fixes them, so there is a grace period. Steps
// beside it may run.
func (n *next) containerStuck() {
	container := blocking(n.pod, n.seen)[0]
	reason, message := startReason(container.State.Waiting.Reason), cause(n.pod, container)
	old := *n.progress()
	if old.Reason == reason && container.State.Waiting.Reason == v1alpha1.ReasonImagePullBackOff { // of ErrImagePull, which names the cause
		message = old.Message[max(0, strings.Index(old.Message, cannotStart(container.Name))):]
	}
	if len(n.running) > 0 && !n.seen.finalIsDue {
		n.progressing(metav1.ConditionTrue, reason, n.runningMessage()+"; "+message)
	} else {
		n.progressing(metav1.ConditionFalse, reason, message)
	}
	if old.Reason == reason { // also if the last step beside it has ended
		n.progress().LastTransitionTime = old.LastTransitionTime
	}
	switch left := n.startGrace - n.now.Sub(n.progress().LastTransitionTime.Time); {
	case reason == reasonCrashLoop: // it has started, and will again
	case reason == "InvalidImageName" || left <= 0:
		n.cantStart(container, reason, message, left <= 0)
	default:
		n.again = left
	}
}

// cantStart: a container that the sequence waits for will not start. Steps beside it run to their end, and final steps follow.
func (n *next) cantStart(container corev1.ContainerStatus, reason, message string, isGraceOver bool) {
	isInit := slices.ContainsFunc(n.pod.Status.InitContainerStatuses, cantStart)
	switch {
	case n.seen.finalIsDue:
		n.giveUpFinal(container, message)
	case !isPlain(n.seen.plan) && !isInit && !lacksAgent(n.pod, container):
		n.halts(message)
	default:
		n.markStuck(container, reason, message)
		n.halts(message)
		n.startFailed(reason, message, isGraceOver)
	}
}

// markStuck makes the step of a container that can't start a failed one, unless the agent's image is the cause.
func (n *next) markStuck(container corev1.ContainerStatus, reason, message string) {
	for i := range n.Steps {
		if step := &n.Steps[i]; step.Name == container.Name && !lacksAgent(n.pod, container) {
			step.State, step.Reason, step.Message = v1alpha1.StepFailed, cleanReason(reason, v1alpha1.ReasonPodFailed), clean(message, maxStepMessage)
		}
	}
}

// haltedEnd: the sequence is over, because it was halted, and no step failed.
func (n *next) haltedEnd() {
	for _, step := range n.Steps { // whose container could not start for long, and has started since
		if strings.HasPrefix(n.seen.halt, cannotStart(step.Name)) {
			n.CurrentStep = step.Name
		}
	}
	n.podFailed(v1alpha1.ReasonPodFailed, "the sequence was halted: "+n.seen.halt+n.finalFailures(), n.now)
}

// startFailed ends the attempt because its Pod can't start.
func (n *next) startFailed(reason, message string, isGraceOver bool) {
	outcome := ""
	if isGraceOver {
		outcome = fmt.Sprintf("; this lasted %s (--start-grace-period)", n.startGrace)
	}
	if n.isLastAttempt() {
		outcome += "; the Task has failed: fix the cause, then create the Task again"
	}
	if !strings.HasSuffix(message, outcome) {
		message = clean(message, maxNote-len(outcome)) + outcome
	}
	n.podFailed(reason, message+n.finalFailures(), n.now)
}
