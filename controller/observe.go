package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// observation is what a Pod's status says about its steps, and what its annotations should be.
type observation struct {
	// steps in their order.
	steps []v1alpha1.StepStatus
	// done is how many steps passed, each after its predecessors.
	done int
	// failed is the index of the first step whose failure ends the sequence, or sequence.None. A step can fail before its turn, because its
	// container can't start or its agent was killed. Such a failure counts when the turn of the step has come: until then, what runs goes on.
	failed int
	// order and halt are what the Pod's annotations should be. They follow from the steps and never take back what the annotations say.
	order int
	halt  string
	// end reports whether the halted Pod can't end by itself, because one of its containers, or all of the Pod, can't start.
	end bool
}

// observe reads a gated Pod. The result depends on nothing but the Pod: it is the same however often observe is called, and whatever the
// controllers missed before.
func observe(pod *corev1.Pod) observation {
	ready, helperFailed := helperState(pod)
	o := observation{failed: sequence.None, halt: cmp.Or(pod.Annotations[contract.HaltAnnotation], helperFailed), order: released(pod)}
	progress, overruled := o.observeSteps(pod)
	if o.failed != sequence.None && pod.Annotations[contract.HaltAnnotation] == "" {
		o.halt = failure(o.steps[o.failed])
	}
	decision := progress.Decide(sequence.Records{Order: o.order, Halted: o.halt != ""})
	o.done = decision.Passed
	if o.halt == "" {
		if (o.order > 0 || ready) && pod.DeletionTimestamp == nil {
			o.order = max(o.order, decision.Order)
		}
		return o
	}
	for i, verdict := range decision.Verdicts {
		if verdict == sequence.Skip { // its agent may need a moment to see the halt
			o.steps[i].State, o.steps[i].Reason, o.steps[i].Message = v1alpha1.StepSkipped, contract.ReasonSkipped, ""
		}
	}
	o.end = isOver(pod) && len(stuck(pod)) > 0 || isUnstarted(pod)
	if overruled > 0 { // the agent released the next step; with that in the annotation, the claim never counts
		o.order = max(o.order, min(overruled+1, len(o.steps)))
	}
	if o.order > 0 && pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController {
		o.order = max(o.order, o.reached())
	}
	return o
}

// observeSteps reads the containers of the steps. It returns what the rule knows of them, and the number of the last step whose claim that
// it was skipped does not count, or 0.
func (o *observation) observeSteps(pod *corev1.Pod) (progress *sequence.Progress, overruled int) {
	statuses := map[string]*corev1.ContainerStatus{}
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		statuses[status.Name] = status
	}
	// Options that can't be read count as none: every failure ends the sequence.
	options, _ := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	plan := podspec.Plan(podspec.StepNames(pod), options)
	progress = sequence.Begin(plan)
	// Agents hand over ahead of the annotation. If only the controller releases steps, a halt means that it released no further one.
	follows := pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController || pod.Annotations[contract.HaltAnnotation] == ""
	for i, planned := range plan.Steps {
		name := planned.Name
		isTurn := progress.HasTurn(i)
		isReleased := planned.Stage <= o.order || follows && len(planned.After) > 0 && isTurn || o.releasedBehindFailure(i)
		step, recorded := observeStep(name, cmp.Or(statuses[name], &corev1.ContainerStatus{}), pod, isReleased)
		signaled := step.Reason == contract.ReasonSignaled
		switch { // the agent can't tell whether the signal was the stop signal of its container, and the controller can
		case signaled && isTerminating(pod):
			step.Reason = contract.ReasonStopped
		case signaled:
			step.Reason = statuses[name].State.Terminated.Reason
		}
		if (!recorded || signaled) && options[name].Timeout > 0 && step.Reason == "Error" && step.ExitCode != nil && *step.ExitCode == contract.ExitTimeout {
			step.Reason = contract.ReasonTimedOut
		}
		o.boundStart(&step, pod, planned, recorded)
		if step.State == v1alpha1.StepSkipped && isTurn && progress.EndedBy() == sequence.None && (o.halt == "" || planned.Stage < o.order) {
			step = withoutClaim(step, *statuses[name].State.Terminated)
			overruled = planned.Stage
		}
		isInterrupted := contract.IsInterrupted(step.Reason) || !recorded && isTerminating(pod) && hasKillExitCode(step)
		if o.failed != sequence.None && neverRan(step, recorded, o.steps[o.failed]) {
			step.State, step.Reason, step.ExitCode, step.StartedAt = v1alpha1.StepSkipped, contract.ReasonSkipped, nil, nil
		}
		progress.Add(i, stateOf(step, isInterrupted))
		if progress.EndedBy() == i && step.State == v1alpha1.StepFailed {
			o.failed = i
		}
		if recorded {
			step.FinishedAt = notBefore(step.FinishedAt, step.StartedAt)
		}
		step.Duration = stepDuration(step)
		step.Reason, step.Message, step.ImageID = cleanReason(step.Reason, ""), clean(step.Message, maxStepMessage), clean(step.ImageID, maxMessage)
		o.steps = append(o.steps, step)
	}
	return progress, overruled
}

// boundStart makes a step start after its predecessors ended, and the first one after the helpers started. Without a record, only the start
// of the container is known, and the agent has waited in it since.
func (o *observation) boundStart(step *v1alpha1.StepStatus, pod *corev1.Pod, planned sequence.Step, recorded bool) {
	if len(planned.After) == 0 && !recorded && step.State == v1alpha1.StepRunning {
		step.StartedAt = notBefore(step.StartedAt, lastHelperStart(pod))
	}
	for _, before := range planned.After {
		step.StartedAt = notBefore(step.StartedAt, o.steps[before].FinishedAt)
	}
}

// stateOf returns what the rule takes a step for.
func stateOf(step v1alpha1.StepStatus, isInterrupted bool) sequence.State {
	switch step.State {
	case v1alpha1.StepRunning:
		return sequence.Running
	case v1alpha1.StepSucceeded:
		return sequence.Succeeded
	case v1alpha1.StepSkipped:
		return sequence.Skipped
	case v1alpha1.StepFailed:
		if isInterrupted {
			return sequence.Interrupted
		}
		return sequence.Failed
	}
	return sequence.Waiting
}

// reached returns the number of the last step that was released, as far as the ends of the steps tell. Agents may have released steps that
// the annotation does not know of.
func (o *observation) reached() int {
	if o.done == len(o.steps) {
		return o.done
	}
	step := o.steps[o.done]
	switch {
	case step.State != v1alpha1.StepFailed, step.FinishedAt == nil, step.Reason == contract.ReasonTerminated, step.Reason == contract.ReasonHaltMissing:
		return o.done
	case o.done > 0 && step.FinishedAt.Before(o.steps[o.done-1].FinishedAt): // it failed before its turn
		return o.done
	case step.StartedAt == nil && step.ExitCode != nil && *step.ExitCode == exitNotStarted:
		return o.done
	}
	return o.done + 1
}

// helperState reports whether the helpers let the first step start: each is ready or has succeeded. Before the kubelet reports on the Pod, none
// is ready. A helper that failed before the first step, and that the kubelet does not restart, ends the sequence; failed is the sentence.
func helperState(pod *corev1.Pod) (ready bool, failed string) {
	steps := podspec.StepNames(pod)
	ready = len(pod.Status.ContainerStatuses) > 0
	for _, container := range pod.Status.ContainerStatuses {
		if slices.Contains(steps, container.Name) {
			continue
		}
		end := container.State.Terminated
		switch {
		case end != nil && end.ExitCode != 0 && !restarts(pod) && released(pod) == 0:
			return false, fmt.Sprintf("helper %q failed with exit code %d before the first step", container.Name, end.ExitCode)
		case end != nil && end.ExitCode == 0, container.Ready:
		default:
			ready = false
		}
	}
	return ready, ""
}

// isTerminal reports whether the phase is final: no container runs, and none will.
func isTerminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodFailed || phase == corev1.PodSucceeded
}

// isTerminating reports whether the Pod is being ended from outside: it was deleted, or the cluster has a reason to end it.
func isTerminating(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Reason != "" || disruption(pod) != nil
}

// hasEnded reports whether the step succeeded or failed.
func hasEnded(step v1alpha1.StepStatus) bool {
	return step.State == v1alpha1.StepSucceeded || step.State == v1alpha1.StepFailed
}

// released returns the order in the Pod's annotation, or 0 if there is none.
func released(pod *corev1.Pod) int {
	order, err := strconv.Atoi(pod.Annotations[contract.OrderAnnotation])
	if err != nil {
		return 0
	}
	return order
}
