package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step's termination message is the step's own word: its command can write a record there, or release the next step before it has ended
// itself. The functions below say what the status makes of it.

// withoutClaim returns a step whose record says that it was skipped although its turn had come, and nobody halted the sequence or a later
// step was released. The kubelet's word counts: its container exited with 0.
func withoutClaim(step v1alpha1.StepStatus, end corev1.ContainerStateTerminated) v1alpha1.StepStatus {
	end.Message = ""
	step, _ = observeEnd(step, end, time.Time{})
	step.Message = ""
	return step
}

// neverRan reports whether the command of a step behind the one that failed did not run. Usually none of them ran. But a step that leaves a
// good record and fails after it, or is killed, releases the next one, which may have ended by then. If it isn't known what the agent said,
// because the kubelet cut the record or there was no place for one, times decide: a step that was skipped ended after the failure.
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

// releasedBehindFailure reports whether step i, counted from 0, was released although a step before it failed: by one that ran all the same.
func (s *observation) releasedBehindFailure(i int) bool {
	return s.failed >= 0 && i > s.failed+1 && s.steps[i-1].State == v1alpha1.StepSucceeded
}

// reasonOfSignaled returns the reason of a step whose command ended soon after a signal that may have been the stop signal of its container.
func reasonOfSignaled(pod *corev1.Pod, container *corev1.ContainerStatus) string {
	if isTerminating(pod) {
		return contract.ReasonStopped
	}
	return container.State.Terminated.Reason
}
