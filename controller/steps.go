package controller

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// observeStep returns the status of a step from the status of its container, and whether the step left a record. A container that runs is a
// running step only if isReleased; otherwise its agent waits.
func observeStep(name string, container *corev1.ContainerStatus, pod *corev1.Pod, isReleased bool) (step v1alpha1.StepStatus, recorded bool) {
	step = v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting, ImageID: container.ImageID}
	terminated := container.State.Terminated
	switch {
	case terminated != nil && terminated.ExitCode != 0 && restarts(pod):
		step.Reason = terminated.Reason // the kubelet is about to restart it
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

// observeEnd returns how a step ended, as the kubelet reports its container. The step can forge its record, so the record only adds detail: it
// can't contradict the kubelet, and its times count only between earliest and the end of the container. If earliest is zero, the start of the
// container takes its place.
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
		step.Message = end.Message // the command wrote it
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
	// If the exit codes differ, the container was killed after its agent left the record.
	if record.ExitCode == int(end.ExitCode) {
		step.Reason = cleanReason(record.Reason, step.Reason)
	}
	if record.Reason == contract.ReasonSkipped && end.ExitCode == 0 {
		step.State, step.ExitCode = v1alpha1.StepSkipped, nil // no command ran, so there is no exit code
	}
	return step, true
}

// maxRetries is the most that a Task may ask for.
const maxRetries = 100

// restarts reports whether the kubelet restarts a failed container of the Pod and its command runs again. After a halt, no command runs again.
func restarts(pod *corev1.Pod) bool {
	over := isTerminal(pod.Status.Phase)
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever && !over && pod.DeletionTimestamp == nil && pod.Annotations[contract.HaltAnnotation] == ""
}

// withRemedy adds the remedy to two messages of container runtimes: the runtime can't run the agent from its image volume, and an earlier step
// removed the directory of a subPath after the kubelet prepared the mount and before the runtime made it.
func withRemedy(pod *corev1.Pod, message string) string {
	switch {
	case podspec.AgentVolume(pod) != nil && strings.Contains(message, contract.AgentPath):
		return fmt.Sprintf("the node cannot run taskflow's agent from its image: annotate the Pod with %s: %s (%s)",
			contract.DeliveryAnnotation, contract.DeliveryInit, message)
	case strings.Contains(message, "/volume-subpaths/") && strings.Contains(message, "no such file or directory"):
		return fmt.Sprintf("an earlier step removed the directory of a subPath while the container was started: mount the whole volume instead, and use a path below it (%s)",
			message)
	}
	return message
}

// failure returns one sentence about a failed step: the halt, and the message of conditions and events.
func failure(step v1alpha1.StepStatus) string {
	if step.Reason == contract.ReasonTerminated {
		return fmt.Sprintf("step %q was interrupted before its turn", step.Name)
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

// A step can forge its termination message: its command can write a record there, or release the next step before it ends itself. The functions
// below decide how much of a record the status believes.

// withoutClaim returns the status of a step whose record claims that it was skipped, although its turn had come and nothing had ended the
// sequence. Only the kubelet's word counts: the container exited with 0.
func withoutClaim(step v1alpha1.StepStatus, end corev1.ContainerStateTerminated) v1alpha1.StepStatus {
	end.Message = ""
	step, _ = observeEnd(step, end, time.Time{})
	step.Message = ""
	return step
}

// neverRan reports whether the command of a step behind the failed one did not run. Usually none of them ran. But a step that publishes a
// record of success and then fails has released the next step, which may have ended since. If no record can be read, because the kubelet cut
// it or it had no place, times decide: a skipped step ended after the failure.
func neverRan(step v1alpha1.StepStatus, recorded bool, failed v1alpha1.StepStatus) bool {
	switch {
	case step.State == v1alpha1.StepFailed:
		return step.Reason == contract.ReasonHaltMissing
	case step.State != v1alpha1.StepSucceeded:
		return false
	case recorded && step.StartedAt != nil, !recorded && step.Message != "" && !contract.IsRecord(step.Message):
		return false
	}
	const precision = time.Second // of the kubelet's times
	return step.FinishedAt == nil || failed.FinishedAt == nil || step.FinishedAt.Add(precision).After(failed.FinishedAt.Time)
}

// releasedBehindFailure reports whether step i, counted from 0, was released although an earlier step failed: a step in between ran all the
// same, and its agent released step i.
func (s *observation) releasedBehindFailure(i int) bool {
	return s.failed >= 0 && i > s.failed+1 && s.steps[i-1].State == v1alpha1.StepSucceeded
}
