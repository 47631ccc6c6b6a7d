package controller

import (
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// observeStep returns the status of a step from the status of its container, and whether the step left a record. A container that runs is a
// running step only if isReleased; otherwise its agent waits.
func observeStep(
	name string, container *corev1.ContainerStatus, pod *corev1.Pod, isReleased bool, options contract.StepOptions,
) (step v1alpha1.StepStatus, recorded bool) {
	step = v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting, ImageID: container.ImageID}
	terminated := container.State.Terminated
	switch {
	case terminated != nil && terminated.ExitCode != 0 && restarts(pod, options):
		step.Reason = terminated.Reason // the kubelet is about to restart it
	case terminated != nil:
		step, recorded = observeEnd(step, *terminated, earliest(pod, container), options)
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
func observeEnd(
	step v1alpha1.StepStatus, end corev1.ContainerStateTerminated, earliest time.Time, options contract.StepOptions,
) (ended v1alpha1.StepStatus, recorded bool) {
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
		believe(&step, record, end, options)
	}
	step.Outputs, step.OmittedOutputs = outputs(record)
	if record.Reason == contract.ReasonSkipped && end.ExitCode == 0 {
		step.State, step.ExitCode = v1alpha1.StepSkipped, nil // no command ran, so there is no exit code
	}
	return step, true
}

// believe sets what a record says beyond the kubelet, as far as the options of the step permit it: that a condition did not hold, and that the exit
// code of the command is another one than that of the container and means something else.
func believe(step *v1alpha1.StepStatus, record contract.Record, end corev1.ContainerStateTerminated, options contract.StepOptions) {
	code := record.Code()
	meaning := contract.MeaningOf(code, options.ExitCodes)
	isFailure := meaning == contract.ThenFail || meaning == contract.ThenRetry || meaning == "" && code != 0
	switch exitCode := int32(min(max(code, 0), math.MaxUint8)); {
	case record.Reason == contract.ReasonWhenFalse && end.ExitCode == 0 && len(options.When) > 0 && record.StartedAt == nil:
		step.State, step.ExitCode = v1alpha1.StepSkipped, nil
	case record.Reason == contract.ReasonFinished && end.ExitCode == 0 && meaning == contract.ThenFinish && !options.Finally:
		step.ExitCode = &exitCode
	case record.Reason == contract.ReasonWhenFalse, record.Reason == contract.ReasonFinished:
		step.Reason, step.Message = end.Reason, ""
	case record.CommandExitCode == nil:
	case end.ExitCode == 0 && record.Passes && options.ContinueOnError && isFailure && !contract.IsInterrupted(record.Reason):
		step.State, step.ExitCode, step.Reason = v1alpha1.StepFailed, &exitCode, cleanReason(record.Reason, "Error")
	case end.ExitCode == 0 && meaning == contract.ThenSucceed, end.ExitCode != 0 && meaning != "" && isFailure:
		step.ExitCode = &exitCode
	}
}

// maxOutputs bounds the outputs of a step in the status, in bytes: as many as fit into a kubelet's termination message.
const maxOutputs = 4096

// outputs returns the outputs in a record, and the keys of those that are not in it.
func outputs(record contract.Record) (values map[string]string, omitted []string) {
	left := maxOutputs
	for _, key := range record.OutputKeys {
		value, has := record.Outputs[key]
		if left -= len(key); left < 0 {
			break
		}
		key, value = strings.ToValidUTF8(key, ""), strings.ToValidUTF8(value, "")
		switch {
		case !has || len(value) > left:
			omitted = append(omitted, key)
			continue
		case values == nil:
			values = map[string]string{}
		}
		left -= len(value)
		values[key] = value
	}
	return values, omitted
}

// maxRetries is the most that a Task may ask for.
const maxRetries = 100

// restarts reports whether the kubelet restarts a failed container of the Pod and its command runs again. After a halt, no command runs again; that of a
// final step after a halt of the final steps.
func restarts(pod *corev1.Pod, options contract.StepOptions) bool {
	over, halt := isTerminal(pod.Status.Phase), contract.HaltAnnotation
	if options.Finally {
		halt = contract.HaltFinallyAnnotation
	}
	return pod.Spec.RestartPolicy != corev1.RestartPolicyNever && !over && pod.DeletionTimestamp == nil && pod.Annotations[halt] == ""
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

// finish returns one sentence about a step that finished the sequence: the halt, and the message of conditions and events.
func finish(step v1alpha1.StepStatus) string {
	return fmt.Sprintf("step %q finished the sequence with exit code %d", step.Name, ptr.Deref(step.ExitCode, 0))
}

// finishOf returns the sentence about the step that finished the sequence, or "".
func finishOf(seen observation) string {
	for _, step := range seen.steps {
		if step.State == v1alpha1.StepSucceeded && step.Reason == contract.ReasonFinished {
			return finish(step)
		}
	}
	return ""
}

// skip returns one sentence about a step of which a condition did not hold.
func skip(step v1alpha1.StepStatus) string {
	text := fmt.Sprintf("step %q was skipped", step.Name)
	if step.Message != "" {
		text += ": " + step.Message
	}
	return clean(text, maxNote)
}

// failure returns one sentence about step i, which failed: the halt, and the message of conditions and events. What is added stands before the
// details, which may end with a remedy.
func (o *observation) failure(i int, added string) string {
	step, what := o.steps[i], "step"
	if o.plan.Steps[i].IsFinal {
		what = "final step"
	}
	if step.Reason == contract.ReasonTerminated {
		return fmt.Sprintf("%s %q was interrupted before its turn%s", what, step.Name, added)
	}
	text := fmt.Sprintf("%s %q failed", what, step.Name)
	if step.ExitCode != nil {
		text += fmt.Sprintf(" with exit code %d", *step.ExitCode)
	}
	if step.Reason != "" && step.Reason != "Error" {
		text += " (" + step.Reason + ")"
	}
	text += added
	switch step.Reason {
	case contract.ReasonStartError, contract.ReasonTimedOut, contract.ReasonAgentError, contract.ReasonHaltMissing,
		contract.ReasonInputInvalid, contract.ReasonOutputInvalid:
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
	step, _ = observeEnd(step, end, time.Time{}, contract.StepOptions{})
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
