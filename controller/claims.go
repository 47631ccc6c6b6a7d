package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

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

// reasonOfSignaled returns the reason of a step that ended soon after a signal which may have been the stop signal of its container. The agent
// can't tell, and the controller can: it knows whether the Pod is terminating.
func reasonOfSignaled(pod *corev1.Pod, container *corev1.ContainerStatus) string {
	if isTerminating(pod) {
		return contract.ReasonStopped
	}
	return container.State.Terminated.Reason
}
