package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// sequence is what a Pod's status says of its steps.
type sequence struct {
	// steps in their order.
	steps []v1alpha1.StepStatus
	// done is how many steps the sequence is past, counted from the first: those that have ended well, and those whose failure
	// doesn't matter.
	done int
	// failed is the index of the first step whose failure ends the sequence, or -1. A step that fails before its turn, since its container
	// can't be started or its agent was killed, does so when its turn has come: what runs meanwhile goes on.
	failed int
	// order and halt are what the Pod's annotations should be. They follow from the steps, and never take back what
	// the annotations already say.
	order int
	halt  string
	// end says that the Pod, which has been halted, can't end by itself: a container, or all of the Pod, can't be started.
	end bool
}

// observe reads a Pod with a StepsAnnotation. It depends on nothing but the Pod: whoever calls it, however often and after
// whatever was missed, comes to the same result.
func observe(pod *corev1.Pod) sequence {
	s := sequence{failed: -1, halt: pod.Annotations[contract.HaltAnnotation]}
	statuses := map[string]*corev1.ContainerStatus{}
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		statuses[status.Name] = status
	}
	order := released(pod)
	// The annotation follows where the step before has ended: the agents may be ahead of it, and else it is about to be written. The first
	// step has nobody but the annotation.
	follows := pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController || s.halt == ""
	// What can't be read stops at failures: the default.
	options, _ := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	ready, helperFailed := helpers(pod)
	halted := s.halt != "" || helperFailed != ""
	overruled := 0 // the number of the last step whose claim that it was skipped does not count
	for i, name := range contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]) {
		isReleased := i < order || follows && i > 0 && i == s.done || s.releasedBehindFailure(i)
		step, recorded := observeStep(name, cmp.Or(statuses[name], &corev1.ContainerStatus{}), pod, isReleased)
		signaled := step.Reason == contract.ReasonSignaled
		if signaled {
			step.Reason = reasonOfSignaled(pod, statuses[name])
		}
		if !recorded { // it runs, the command's own message is where the record would be, or the agent was killed
			if i == 0 && step.State == v1alpha1.StepRunning {
				step.StartedAt = later(step.StartedAt, lastHelperStart(pod))
			}
		}
		if i > 0 {
			step.StartedAt = later(step.StartedAt, s.steps[i-1].FinishedAt)
		}
		if (!recorded || signaled) && options[name].Timeout > 0 && step.Reason == "Error" && step.ExitCode != nil && *step.ExitCode == contract.ExitTimeout {
			step.Reason = contract.ReasonTimedOut
		}
		if step.State == v1alpha1.StepSkipped && s.failed < 0 && s.done == i && (!halted || order > i+1) {
			step = withoutClaim(step, *statuses[name].State.Terminated)
			overruled = i + 1
		}
		stopped := contract.IsInterrupted(step.Reason) || !recorded && isBeingStopped(pod) && wasKilled(step)
		failed := step.State == v1alpha1.StepFailed && (!options[name].ContinueOnError || stopped)
		switch {
		case s.failed >= 0 && neverRan(step, recorded, s.steps[s.failed]):
			step.State, step.Reason, step.ExitCode, step.StartedAt = v1alpha1.StepSkipped, contract.ReasonSkipped, nil, nil
		case failed && s.done == i: // behind a failure, done stays behind
			s.failed = i
		case !failed && hasEnded(step) && s.done == i:
			s.done++
		}
		if recorded {
			step.FinishedAt = notBefore(step.FinishedAt, step.StartedAt)
		}
		step.Duration = stepDuration(step)
		step.Reason, step.Message, step.ImageID = cleanReason(step.Reason, ""), clean(step.Message, maxStepMessage), clean(step.ImageID, maxMessage)
		s.steps = append(s.steps, step)
	}
	if s.failed >= 0 && s.halt == "" {
		s.halt = failure(s.steps[s.failed])
	}
	s.order = order
	if s.halt == "" {
		s.halt = helperFailed
	}
	if s.halt == "" {
		if (order > 0 || ready) && pod.DeletionTimestamp == nil {
			s.order = max(order, min(s.done+1, len(s.steps)))
		}
	} else {
		// Nothing after the end of the sequence runs any more, though the agents may need a moment to see it.
		for i := range s.steps {
			if s.steps[i].State == v1alpha1.StepWaiting && i != s.failed {
				s.steps[i].State, s.steps[i].Reason, s.steps[i].Message = v1alpha1.StepSkipped, contract.ReasonSkipped, ""
			}
		}
		s.end = isOver(pod) && len(stuck(pod)) > 0 || isUnstarted(pod)
		if overruled > 0 { // its agent has released the next step; and with that in the annotation, the claim never counts
			s.order = max(order, min(overruled+1, len(s.steps)))
		}
		// The agents may have released steps that the annotation doesn't know of.
		if s.order > 0 && pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController {
			s.order = max(s.order, s.reached())
		}
	}
	return s
}

// reached returns the number of the last step that was released, as far as its end and those of its predecessors tell.
func (s *sequence) reached() int {
	if s.done == len(s.steps) {
		return s.done
	}
	step := s.steps[s.done]
	switch {
	case step.State != v1alpha1.StepFailed, step.FinishedAt == nil, step.Reason == contract.ReasonTerminated, step.Reason == contract.ReasonHaltMissing:
		return s.done
	case s.done > 0 && step.FinishedAt.Before(s.steps[s.done-1].FinishedAt): // it failed before its turn
		return s.done
	case step.StartedAt == nil && step.ExitCode != nil && *step.ExitCode == exitNotStarted:
		return s.done
	}
	return s.done + 1
}

// helpers says whether the containers that are no steps let the first step begin: each is ready, or has ended; a Pod that no kubelet
// has looked at yet has none that are. One that has failed before it, and isn't started again, ends the sequence.
func helpers(pod *corev1.Pod) (ready bool, failed string) {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	ready = len(pod.Status.ContainerStatuses) > 0
	for _, container := range pod.Status.ContainerStatuses {
		if slices.Contains(steps, container.Name) {
			continue
		}
		end := container.State.Terminated
		switch {
		case end != nil && end.ExitCode != 0 && !restarts(pod) && released(pod) == 0:
			return false, fmt.Sprintf("the container %q failed with exit code %d before the first step", container.Name, end.ExitCode)
		case end != nil && end.ExitCode == 0, container.Ready:
		default:
			ready = false
		}
	}
	return ready, ""
}

// isTerminal says whether a Pod is over: nothing of it runs, or will.
func isTerminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodFailed || phase == corev1.PodSucceeded
}

// maxRetries is the most that a Task may ask for.
const maxRetries = 100

// isWithin reports whether a time is between two of the kubelet's, which are cut to whole seconds.
func isWithin(t, first, last time.Time) bool {
	return !t.Before(first) && t.Before(last.Add(time.Second))
}

// earliest returns when the container of a step may have started first, by the kubelet: one that was started again may have left its
// record before.
func earliest(pod *corev1.Pod, container *corev1.ContainerStatus) time.Time {
	if container.RestartCount > 0 && pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return time.Time{}
}

// notBefore returns the end of a step, which isn't before its start.
func notBefore(finishedAt, startedAt *metav1.MicroTime) *metav1.MicroTime {
	if finishedAt == nil || startedAt == nil || !finishedAt.Before(startedAt) {
		return finishedAt
	}
	return startedAt
}

// later is the start of a step that has started, which is not before the end of the step before: where there is no record, all that is
// known is since when its container has been waiting.
func later(startedAt, before *metav1.MicroTime) *metav1.MicroTime {
	if startedAt == nil || before == nil || startedAt.After(before.Time) {
		return startedAt
	}
	return before
}

// isBeingStopped says whether somebody ends the Pod: it is deleted, or the cluster has a reason.
func isBeingStopped(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Reason != "" || disruption(pod) != nil
}

// hasEnded says whether the step has run, well or not.
func hasEnded(step v1alpha1.StepStatus) bool {
	return step.State == v1alpha1.StepSucceeded || step.State == v1alpha1.StepFailed
}

// released is the order that the Pod's annotation says: 0 where there is none.
func released(pod *corev1.Pod) int {
	order, err := strconv.Atoi(pod.Annotations[contract.OrderAnnotation])
	if err != nil {
		return 0
	}
	return order
}

// observeStep also says whether the step has left a record.
func observeStep(name string, container *corev1.ContainerStatus, pod *corev1.Pod, isReleased bool) (step v1alpha1.StepStatus, recorded bool) {
	step = v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting, ImageID: container.ImageID}
	terminated := container.State.Terminated
	switch {
	case terminated != nil && terminated.ExitCode != 0 && restarts(pod):
		step.Reason = terminated.Reason // the kubelet is about to start it again
	case terminated != nil:
		step, recorded = observeEnd(step, *terminated, earliest(pod, container))
		if step.Reason == contract.ReasonStartError {
			step.Message = withRemedy(pod, step.Message)
		}
		return step, recorded
	case container.State.Running != nil && isReleased:
		step.State = v1alpha1.StepRunning
		step.StartedAt = microTime(container.State.Running.StartedAt)
	case container.State.Waiting != nil && container.State.Waiting.Reason != "PodInitializing":
		step.Reason, step.Message = container.State.Waiting.Reason, container.State.Waiting.Message
	}
	return step, false
}

// withRemedy puts in front of a container runtime's message what helps if the runtime can't run the agent from the agent's image, or if an
// earlier step has removed the directory of a subPath between the kubelet's and the runtime's part in mounting it.
func withRemedy(pod *corev1.Pod, message string) string {
	switch {
	case podspec.AgentVolume(pod) != nil && strings.Contains(message, contract.AgentPath):
		return fmt.Sprintf("the node can't run taskflow's agent from its image: annotate the Pod with %s: %s (%s)",
			contract.DeliveryAnnotation, contract.DeliveryInit, message)
	case strings.Contains(message, "/volume-subpaths/") && strings.Contains(message, "no such file or directory"):
		return fmt.Sprintf("an earlier step removed the directory of a subPath while the container was started: mount the whole volume instead, and use a path below it (%s)",
			message)
	}
	return message
}

// restarts says whether the kubelet starts a container of the Pod again that has failed, and its command will run again: after a halt it
// won't.
func restarts(pod *corev1.Pod) bool {
	over := isTerminal(pod.Status.Phase)
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever && !over && pod.DeletionTimestamp == nil && pod.Annotations[contract.HaltAnnotation] == ""
}

// observeEnd returns how a step has ended by what the kubelet says of its container. The record is the step's own word: it counts only within
// that, and its times not before the earliest one; the zero time stands for the start of the container.
func observeEnd(step v1alpha1.StepStatus, end corev1.ContainerStateTerminated, earliest time.Time) (ended v1alpha1.StepStatus, recorded bool) {
	step.ExitCode = new(end.ExitCode)
	step.Reason = end.Reason
	step.StartedAt = microTime(end.StartedAt)
	step.FinishedAt = microTime(end.FinishedAt)
	step.State = v1alpha1.StepSucceeded
	if end.ExitCode != 0 {
		step.State = v1alpha1.StepFailed
	}

	record, ok := contract.ParseRecord(end.Message)
	if !ok {
		step.Message = end.Message // the command's own
		return step, false
	}
	step.Message = record.Message
	step.Retries = int32(min(max(record.Retries, 0), maxRetries))
	if earliest.IsZero() {
		earliest = end.StartedAt.Time
	}
	if isWithin(record.FinishedAt, earliest, end.FinishedAt.Time) {
		step.FinishedAt = exactTime(record.FinishedAt)
	}
	switch {
	case record.StartedAt == nil:
		step.StartedAt = nil
	case isWithin(*record.StartedAt, earliest, end.FinishedAt.Time):
		step.StartedAt = exactTime(*record.StartedAt)
	}
	// Exit codes are the kubelet's to report: a record that says otherwise was left before the container was killed.
	if record.ExitCode == int(end.ExitCode) {
		step.Reason = cleanReason(record.Reason, step.Reason)
	}
	if record.Reason == contract.ReasonSkipped && end.ExitCode == 0 {
		step.State, step.ExitCode = v1alpha1.StepSkipped, nil // the command has none
	}
	return step, true
}

// microTime is nil for a time that isn't known. For a container that was never started, the kubelet says 1970.
func microTime(t metav1.Time) *metav1.MicroTime {
	if t.Unix() <= 0 {
		return nil
	}
	return &metav1.MicroTime{Time: t.Time}
}

// exactTime is as exact as a status keeps it: else each look would find that it has changed.
func exactTime(t time.Time) *metav1.MicroTime {
	return &metav1.MicroTime{Time: t.Truncate(time.Microsecond)}
}

// failure is one sentence about a step that has failed.
func failure(step v1alpha1.StepStatus) string {
	if step.Reason == contract.ReasonTerminated {
		return fmt.Sprintf("step %q was told to stop before its turn", step.Name)
	}
	text := fmt.Sprintf("step %q failed", step.Name)
	if step.ExitCode != nil {
		text += fmt.Sprintf(" with exit code %d", *step.ExitCode)
	}
	if step.Reason != "" && step.Reason != "Error" {
		text += " (" + step.Reason + ")"
	}
	switch step.Reason {
	case contract.ReasonStartError, contract.ReasonTimedOut, contract.ReasonAgentError, contract.ReasonHaltMissing:
		if step.Message != "" {
			text += ": " + step.Message
		}
	}
	return clean(text, maxNote)
}
