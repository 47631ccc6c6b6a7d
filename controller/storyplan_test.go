package controller

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// graphSeeds are stories about steps side by side and final steps.
var graphSeeds = [][]byte{
	// s0, then s1 and s2 side by side, then s3, which is final; s1 fails while s2 runs.
	{
		3, 0, 0, 0, 3, 0, 0, 0, 0, 1, 1, 0, 0, aPhase, 1, aContainer, 0, succeeded0, aContainer, 1, isRunning, aContainer, 2, isRunning, aContainer, 3, isRunning,
		aContainer, 1, failedWith1, aContainer, 2, succeeded0, aContainer, 3, succeeded0, aPhase, 3,
	},
	// The same, cancelled, and cancelled again in the final step.
	{
		3, 0, 0, 0, 3, 0, 0, 0, 0, 1, 1, 0, 0, aPhase, 1, aContainer, 0, succeeded0, aContainer, 1, isRunning, aContainer, 2, isRunning, aContainer, 3, isRunning,
		aCancel, aContainer, 1, wasCancelled, aContainer, 2, wasCancelled, aCancel, aContainer, 3, wasCancelled, aPhase, 3,
	},
	// A step finishes the sequence, and its sibling fails.
	{2, 0, 0, 0, 1, 0, 3, 0, 0, 0, 3, aPhase, 1, aContainer, 0, finished78, aContainer, 1, failedWith1, aContainer, 2, wasSkipped, aPhase, 3},
	// The timeout passes, and the final step runs; then its own time passes.
	{
		1, 0, 0, 0, 6, 0, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aContainer, 1, isRunning, aMinute, aMinute, aMinute, aMinute, aContainer, 0, wasCancelled,
		aMinute, aMinute, aMinute, aContainer, 1, wasTerminated, aReason, 2, aPhase, 3,
	},
	// The image of a branch is missing for the start grace period; then that of the final step.
	{
		2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aContainer, 1, isStuck, aContainer, 2, isRunning, aMinute, aMinute, aMinute, aMinute,
		aMinute, aMinute, aContainer, 0, succeeded0, aContainer, 2, isStuck, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute,
	},
	// One step, and two final steps, of which the first can't start; then the second can't either.
	{
		2, 0, 0, 0, 2, 0, 0, 0, 1, aPhase, 1, aContainer, 0, failedWith1, aContainer, 1, isStuck, aContainer, 2, isRunning,
		aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aContainer, 2, succeeded0,
	},
	{
		2, 0, 0, 0, 2, 0, 0, 0, 1, aPhase, 1, aContainer, 0, succeeded0, aContainer, 1, isStuck, aContainer, 2, isStuck,
		aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute,
	},
}

// ownStep is a step of a Pod, and ownPlan all of them, as the test reads them: without the code that it tests.
type ownStep struct {
	name                     string
	number, stage            int
	isFinal                  bool
	continues, atEnd, isLast bool
	// end is how it ended: ok, false, failed, finished, interrupted or skipped. Empty: it has not.
	end string
	// isOver: its container has ended, or can't start.
	isOver bool
}

type ownPlan struct {
	steps                 []ownStep
	isPlain               bool
	firstFinal, lastStage int
}

type ownOptions struct {
	ContinueOnError, FailAtEnd, Finally bool
	DependsOn                           *[]string
	When                                []any
	ExitCodes                           []struct {
		In   []int
		Then string
	}
}

// isPast reports whether the sequence may go on after the step.
func (s ownStep) isPast() bool {
	return s.end == "ok" || s.end == "false" || s.end == "failed" && (s.continues || s.atEnd || s.isFinal)
}

func readOwn(pod *corev1.Pod) ownPlan {
	var options map[string]ownOptions
	if json.Unmarshal([]byte(pod.Annotations["taskflow.practice.com/options"]), &options) != nil {
		options = nil // invalid options count as none
	}
	names := strings.Split(pod.Annotations["taskflow.practice.com/steps"], ",")
	plan := ownPlan{isPlain: true, firstFinal: math.MaxInt}
	for i, name := range names {
		o := options[name]
		step := ownStep{name: name, number: i + 1, stage: 1, isFinal: o.Finally, continues: o.ContinueOnError, atEnd: o.FailAtEnd, isLast: true}
		for before := range plan.steps {
			follows := before == i-1
			if o.DependsOn != nil {
				follows = slices.Contains(*o.DependsOn, names[before])
			}
			if follows || o.Finally {
				step.stage = max(step.stage, plan.steps[before].stage+1)
				plan.steps[before].isLast = false
			}
		}
		if o.Finally {
			plan.firstFinal = min(plan.firstFinal, step.stage)
		}
		plan.isPlain = plan.isPlain && !o.Finally && step.stage == i+1 && (o.DependsOn == nil || len(*o.DependsOn) <= 1)
		plan.lastStage = max(plan.lastStage, step.stage)
		plan.steps = append(plan.steps, step)
	}
	for i := range plan.steps {
		plan.steps[i].readEnd(pod, plan, options[names[i]])
	}
	return plan
}

// readEnd reads the container of the step.
func (s *ownStep) readEnd(pod *corev1.Pod, plan ownPlan, o ownOptions) {
	isStuck := func(c corev1.ContainerStatus) bool {
		return c.State.Waiting != nil && c.State.Waiting.Reason != "PodInitializing"
	}
	for _, status := range pod.Status.ContainerStatuses {
		end := status.State.Terminated
		if status.Name != s.name {
			continue
		}
		s.isOver = end != nil || status.State.Running == nil && (isStuck(status) || slices.ContainsFunc(pod.Status.InitContainerStatuses, isStuck))
		if s.isFinal && isStuck(status) && s.number < len(plan.steps) && released(pod) > s.stage { // it was given up
			s.end = "failed"
		}
		if end == nil {
			continue
		}
		var message struct {
			Taskflow struct {
				FinishedAt, Reason, StartedAt string
				ExitCode                      int
				CommandExitCode               *int
				Passes                        bool
			}
		}
		_ = json.Unmarshal([]byte(end.Message), &message) // a message of the command is no record
		record := message.Taskflow
		recorded, code := record.FinishedAt != "", record.ExitCode
		if !recorded {
			record.Reason = ""
		}
		if record.CommandExitCode != nil {
			code = *record.CommandExitCode
		}
		isTold := slices.Contains([]string{"Cancelled", "Terminated", "Stopped", "HaltMissing"}, record.Reason)
		finishes := len(o.ExitCodes) > 0 && slices.Contains(o.ExitCodes[0].In, code)
		switch {
		case end.ExitCode == 0 && record.Reason == "Skipped" && !s.hasRun(pod, plan):
			s.end = "skipped"
		case end.ExitCode == 0 && record.Reason == "WhenFalse" && len(o.When) > 0:
			s.end = "false"
		case end.ExitCode == 0 && record.Reason == "Finished" && finishes && !s.isFinal:
			s.end = "finished"
		case end.ExitCode == 0 && record.Passes && s.continues && code != 0 && !finishes && !isTold:
			s.end = "failed"
		case end.ExitCode == 0:
			s.end = "ok"
		case isTold, !recorded && isEnded(pod) && end.Reason == "Error" && (end.ExitCode == 137 || end.ExitCode == 143):
			s.end = "interrupted"
		default:
			s.end = "failed"
		}
	}
}

// hasRun reports whether a step that claims to have been skipped has run: nothing was halted, or a later step was released, or somebody was told.
func (s *ownStep) hasRun(pod *corev1.Pod, plan ownPlan) bool {
	order := released(pod)
	halt := pod.Annotations["taskflow.practice.com/halt"]
	if s.isFinal {
		return pod.Annotations["taskflow.practice.com/halt-finally"] == "" || order > s.stage
	}
	var told struct{ Steps map[int]string }
	_ = json.Unmarshal([]byte(pod.Annotations["taskflow.practice.com/outcome"]), &told) // none yet
	return halt == "" || order > s.stage && order < plan.firstFinal || strings.HasPrefix(told.Steps[s.number], "Succeeded")
}

// wasInterrupted reports whether a last step was told to stop because its Pod is being ended: it is not done, even with exit code 0.
func (p ownPlan) wasInterrupted(pod *corev1.Pod) bool {
	return isEnded(pod) && slices.ContainsFunc(p.steps, func(step ownStep) bool {
		return step.isLast && slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.Name == step.name && c.State.Terminated != nil && strings.Contains(c.State.Terminated.Message, `"reason":"Stopped"`)
		})
	})
}

// checkOutcome proves what the final steps are told when they are released.
func (p ownPlan) checkOutcome(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	var told struct{ Status, FailedStep string }
	if err := json.Unmarshal([]byte(pod.Annotations["taskflow.practice.com/outcome"]), &told); err != nil {
		t.Errorf("final steps are released, and the outcome is %q", pod.Annotations["taskflow.practice.com/outcome"])
		return
	}
	allPast, finished := true, false
	for _, step := range p.steps {
		allPast = allPast && (step.isFinal || step.isPast() && (step.end != "failed" || !step.atEnd))
		finished = finished || step.end == "finished"
	}
	isCancelled := pod.Annotations["taskflow.practice.com/cancel"] == "Cancelled"
	switch {
	case allPast && told.Status != "Succeeded", !allPast && !finished && told.Status == "Succeeded",
		!isCancelled && told.Status == "Cancelled", isCancelled && told.Status == "Failed", told.Status != "Failed" && told.FailedStep != "":
		t.Errorf("the final steps are told %+v; all others are past: %t, one finished the sequence: %t, it was cancelled: %t", told, allPast, finished, isCancelled)
	}
}
