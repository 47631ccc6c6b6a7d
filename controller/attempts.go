package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// podFailed ends the attempt. Another one follows if spec.backoffLimit allows it.
func (n *next) podFailed(reason, message string, at time.Time) {
	// The kubelet's deadline is the Task's, so no attempt has time left. The kubelet may report it after the final container states.
	isHalted := n.pod != nil && n.pod.Annotations[contract.CancelAnnotation] == contract.CancelDeadlineExceeded
	isLast := n.task.Spec.Timeout != nil && (reason == v1alpha1.ReasonDeadlineExceeded || isHalted || n.isTimedOut(at) && n.finalTime() == 0)
	if isLast {
		n.markInterrupted(v1alpha1.ReasonDeadlineExceeded)
		reason, message = n.lateEnd()
	}
	message = n.withMissedFinals(reason, message)
	if isLast || n.isLastAttempt() {
		n.failed(reason, message, at)
		return
	}
	n.halts(message)
	failed := n.PodName
	n.Attempts = append(n.Attempts, v1alpha1.AttemptStatus{
		PodName: failed, CompletionTime: metav1.Time{Time: at.Truncate(time.Second)},
		Reason: cleanReason(reason, v1alpha1.ReasonPodFailed), Message: clean(message, maxMessage),
	})
	n.Attempt = int32(len(n.Attempts) + 1) //nolint:gosec // at most 101
	n.Phase, n.PodName, n.PodUID, n.Order, n.CurrentStep, n.Steps = v1alpha1.TaskPending, "", "", 0, "", nil
	n.listSteps()
	n.progressing(metav1.ConditionFalse, v1alpha1.ReasonRetrying,
		fmt.Sprintf("the Pod %q failed, and the next one is created at %s: %s", failed, n.nextAttempt().UTC().Format(time.TimeOnly), message))
}

// isLastAttempt reports whether no other Pod follows the present one.
func (n *next) isLastAttempt() bool { return int(n.task.Spec.BackoffLimit) <= len(n.Attempts) }

// nextAttempt returns when the next Pod is due. The pauses are those of the Job controller.
func (n *next) nextAttempt() time.Time {
	const first, longest = 10 * time.Second, 6 * time.Minute
	failures := len(n.Attempts)
	if failures == 0 {
		return time.Time{}
	}
	pause := first << min(failures-1, 10)
	return n.Attempts[failures-1].CompletionTime.Add(min(pause, longest))
}

// markInterrupted gives the reason to the steps that the end of their Pod interrupted, because they are not at fault: to those that ran, which
// are the ones that no step that has begun follows. The steps that waited for their turn were skipped.
func (n *next) markInterrupted(reason string) {
	reason = cleanReason(reason, v1alpha1.ReasonPodFailed)
	const lost = "ContainerStatusUnknown" // the kubelet does not know how it ended, or whether it ever ran
	first := slices.IndexFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return step.State != v1alpha1.StepSucceeded })
	isBefore := make([]bool, len(n.Steps)) // before a step that has begun
	for i, step := range slices.Backward(n.Steps) {
		if isBefore[i] {
			n.markBefore(isBefore, i)
			continue
		}
		hadNoTurn := i > first
		if len(n.seen.turns) == len(n.Steps) && !isPlain(n.seen.plan) {
			hadNoTurn = !n.seen.turns[i]
		}
		switch step := &n.Steps[i]; {
		case step.Reason == contract.ReasonTerminated, step.Reason == lost && hadNoTurn:
			step.State, step.Reason, step.Message, step.ExitCode = v1alpha1.StepSkipped, contract.ReasonSkipped, "", nil
			continue
		case step.Reason == contract.ReasonStopped, step.Reason == lost: // not done, regardless of the exit code
			if step.State == v1alpha1.StepSucceeded {
				n.seen.done--
				n.Progress, n.CurrentStep = fmt.Sprintf("%d/%d", n.seen.done, len(n.Steps)), step.Name
			}
			step.State, step.Reason = v1alpha1.StepFailed, reason
		case step.State == v1alpha1.StepFailed && hasKillExitCode(*step):
			step.Reason = reason
		}
		if hasBegun(step) {
			n.markBefore(isBefore, i)
		}
	}
}

// markBefore marks the predecessors of step i. Without a plan, all steps before it are.
func (n *next) markBefore(isBefore []bool, i int) {
	if len(n.seen.plan.Steps) != len(isBefore) {
		for before := range i {
			isBefore[before] = true
		}
		return
	}
	for _, before := range n.seen.plan.Steps[i].After {
		isBefore[before] = true
	}
}

// readFailedPod returns the Pod of the last failed attempt as long as its containers may run, or nil.
func (r *TaskReconciler) readFailedPod(ctx context.Context, task *v1alpha1.Task) (*corev1.Pod, error) {
	failed := len(task.Status.Attempts)
	if failed == 0 {
		return nil, nil
	}
	pod, err := r.readPod(ctx, client.ObjectKey{Namespace: task.Namespace, Name: task.Status.Attempts[failed-1].PodName}, true)
	if pod == nil || !isMarked(pod, task) || isTerminal(pod.Status.Phase) {
		return nil, err
	}
	return pod, nil
}

// waitForFailedPod: the next Pod is due, and containers of the failed Pod may still run.
func (n *next) waitForFailedPod() {
	message := fmt.Sprintf("the next Pod is created when the failed Pod %q has ended", n.failedPod.Name)
	deletion := n.failedPod.DeletionTimestamp
	if deletion != nil && !deletion.After(n.now) {
		n.progressing(metav1.ConditionFalse, v1alpha1.ReasonPodTerminating, fmt.Sprintf(
			"%s: its grace period ended at %s, and its node %q has not confirmed the end; if the node is lost, delete the Node, or delete the Pod with --force",
			message, deletion.UTC().Format(time.RFC3339), n.failedPod.Spec.NodeName))
		return
	}
	if deletion != nil {
		n.again = deletion.Sub(n.now)
	}
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonPodTerminating, message)
}

// endHelpers ends a halted Pod in which only helpers run: the next attempt would wait for them.
func (r *TaskReconciler) endHelpers(ctx context.Context, pod *corev1.Pod) error {
	steps := podspec.StepNames(pod)
	hasHelper := slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil && !slices.Contains(steps, c.Name)
	})
	if !hasHelper || !podspec.IsGated(pod) || pod.Annotations[contract.HaltAnnotation] == "" || !isOver(pod) {
		return nil
	}
	return r.expirePod(ctx, pod)
}
