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
	plan sequence.Plan
	// steps in their order.
	steps []v1alpha1.StepStatus
	// turns tells for each step whether its turn has come.
	turns []bool
	// checks tells for each step whether its agent checks conditions or inputs first, and may end it before its command starts.
	checks []bool
	// done is how many steps count as succeeded: they passed, each after its predecessors, or finished the sequence. Of the final steps that failed,
	// only those with onError: Continue count.
	done int
	// failed is the index of the step because of which the sequence fails, or sequence.None. A step can fail before its turn, because its
	// container can't start or its agent was killed. Such a failure counts when the turn of the step has come: until then, what runs goes on.
	failed int
	// next is the index of the first step that has not passed and may still, or sequence.None. It is a final step only if workIsOver.
	next int
	// workIsOver reports whether no step that is not final runs, and none will. finalIsDue reports whether final steps are left then.
	workIsOver, finalIsDue bool
	// isOver reports whether no step runs and none will. hasSucceeded reports whether the sequence has ended well, and isJudged whether it has
	// ended at all.
	isOver, hasSucceeded, isJudged bool
	// order, halt and outcome are what the Pod's annotations should be. They follow from the steps and never take back what the annotations say.
	// An empty outcome leaves the annotation as it is.
	order         int
	halt, outcome string
	// end reports whether the halted Pod can't end by itself, because one of its containers, or all of the Pod, can't start.
	end bool
}

// observe reads a gated Pod. The result depends on nothing but the Pod: it is the same however often observe is called, and whatever the
// controllers missed before.
func observe(pod *corev1.Pod) observation { return observeWithout(pod, "") }

// observeWithout is observe after the final step was given up whose container can't start. Without a name, none is.
func observeWithout(pod *corev1.Pod, late string) observation {
	ready, helperFailed := helperState(pod)
	r := newReader(pod, cmp.Or(pod.Annotations[contract.HaltAnnotation], helperFailed))
	r.late = late
	o := r.read()
	switch ended := r.progress.EndedBy(); {
	case pod.Annotations[contract.HaltAnnotation] != "":
	case o.failed != sequence.None && r.progress.HasFailed(o.failed):
		o.halt = o.failure(o.failed, "")
	case ended != sequence.None && r.states[ended] == sequence.Finished:
		o.halt = finish(o.steps[ended])
	}
	if o.halt != "" {
		r.holdBack(&o)
	}
	decision := r.progress.Decide(sequence.Records{
		Order: r.order, Halted: o.halt != "", FinallyHalted: pod.Annotations[contract.HaltFinallyAnnotation] != "",
	})
	for i, verdict := range decision.Verdicts {
		isHalted := o.halt != "" || o.plan.Steps[i].IsFinal
		if verdict == sequence.Skip && isHalted { // its agent may need a moment to see the halt
			o.steps[i].State, o.steps[i].Reason, o.steps[i].Message = v1alpha1.StepSkipped, contract.ReasonSkipped, ""
		}
	}
	r.judge(&o, decision)
	r.annotate(&o, decision, ready)
	return o
}

// judge sets what the decision says about the sequence as a whole.
func (r *stepReader) judge(o *observation, decision sequence.Decision) {
	work := o.plan.Work()
	isTerminal := isTerminal(r.pod.Status.Phase)
	o.isOver = decision.IsOver && (r.isPlain || isTerminal || isOver(r.pod))
	o.workIsOver = decision.WorkIsOver && (r.isPlain || isTerminal || haveEnded(r.pod, o.plan.Steps[:work]))
	// In a plain sequence, nothing but the failed step can have run.
	o.isJudged = isTerminal || o.isOver || r.isPlain && decision.EndedBy != sequence.None
	finished := decision.EndedBy != sequence.None && r.states[decision.EndedBy] == sequence.Finished
	o.hasSucceeded = decision.IsOver && o.isJudged && o.failed == sequence.None
	for i, step := range o.plan.Steps {
		hasPassed := r.progress.HasPassed(i)
		isOpen := decision.Verdicts[i] == sequence.Run || decision.Verdicts[i] == sequence.Wait || r.states[i] == sequence.Running
		failed := r.states[i] == sequence.Failed && step.IsFinal && step.OnError != sequence.Continue
		if hasPassed && !failed || r.states[i] == sequence.Finished && o.turns[i] {
			o.done++
		}
		o.hasSucceeded = o.hasSucceeded && (hasPassed || finished && !step.IsFinal)
		if step.IsFinal {
			o.turns[i] = o.workIsOver && isOpen && !o.finalIsDue
			o.finalIsDue = o.finalIsDue || o.turns[i]
		}
		mayBeNext := o.turns[i]
		if !step.IsFinal {
			mayBeNext = !o.workIsOver || work == len(o.plan.Steps)
		}
		if o.next == sequence.None && !hasPassed && mayBeNext {
			o.next = i
		}
	}
}

// annotate sets what the annotations of the Pod should be.
func (r *stepReader) annotate(o *observation, decision sequence.Decision, ready bool) {
	isAlive := r.pod.DeletionTimestamp == nil && !isTerminal(r.pod.Status.Phase)
	switch {
	case o.halt == "" && (o.order > 0 || ready) && r.pod.DeletionTimestamp == nil && r.pod.Annotations[contract.HaltFinallyAnnotation] == "":
		o.order = max(o.order, decision.Order)
	case o.halt == "":
	case r.isPlain:
		o.end = isOver(r.pod) && len(stuck(r.pod)) > 0 || isUnstarted(r.pod)
		if r.overruled > 0 { // the agent released the next step; with that in the annotation, the claim never counts
			o.order = max(o.order, min(r.overruled+1, len(o.steps)))
		}
		if o.order > 0 && r.pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController {
			o.order = max(o.order, o.reached(decision.Passed))
		}
	default:
		// The Task controller ends the Pod of a Task, once it has the reason.
		o.end = podspec.OwnerTask(r.pod) == "" && (o.isOver && len(stuck(r.pod)) > 0 || isUnstarted(r.pod))
		if o.finalIsDue && isAlive {
			o.order = max(o.order, decision.Order)
		}
	}
	o.outcome = r.outcome(o)
}

// reached returns the number of the last step of a plain sequence that was released, as far as the ends of the steps tell. Agents may have
// released steps that the annotation does not know of. The first steps passed.
func (o *observation) reached(passed int) int {
	if passed == len(o.steps) {
		return passed
	}
	step := o.steps[passed]
	switch {
	case !hasEnded(step), step.State == v1alpha1.StepSucceeded && step.Reason != contract.ReasonFinished, step.FinishedAt == nil,
		step.Reason == contract.ReasonTerminated, step.Reason == contract.ReasonHaltMissing:
		return passed
	case passed > 0 && step.FinishedAt.Before(o.steps[passed-1].FinishedAt): // it failed before its turn
		return passed
	case step.StartedAt == nil && step.ExitCode != nil && *step.ExitCode == exitNotStarted:
		return passed
	}
	return passed + 1
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
		case end != nil && end.ExitCode != 0 && !restarts(pod, contract.StepOptions{}) && released(pod) == 0:
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
