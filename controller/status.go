package controller

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// finished says whether a Task has ended, well or not. Nothing changes any more then.
func finished(status *v1alpha1.TaskStatus) bool {
	return meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionComplete) ||
		meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionFailed)
}

// next is a Task's status as it is to be written. The functions below bring it to a state; each may be called for
// a status that has been in that state for long, and then changes nothing.
type next struct {
	v1alpha1.TaskStatus
	generation int64
}

// nextStatus begins with what the status says now.
func nextStatus(task *v1alpha1.Task) *next {
	n := &next{TaskStatus: *task.Status.DeepCopy(), generation: task.Generation}
	n.ObservedGeneration = task.Generation
	return n
}

func (n *next) condition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&n.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: n.generation,
	})
}

// suspended: there is no Pod, and none is wanted.
func (n *next) suspended() {
	n.Phase = v1alpha1.TaskSuspended
	n.condition(v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "spec.suspend is true: set it to false to run the Task")
	n.condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonSuspended, "spec.suspend is true")
}

// waiting: there is no Pod yet, for a reason that may pass.
func (n *next) waiting(reason, message string) {
	n.Phase = v1alpha1.TaskPending
	n.resumed()
	n.condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, reason, message)
}

func (n *next) resumed() {
	if meta.IsStatusConditionTrue(n.Conditions, v1alpha1.ConditionSuspended) {
		n.condition(v1alpha1.ConditionSuspended, metav1.ConditionFalse, v1alpha1.ReasonResumed, "spec.suspend is false")
	}
}

// failed: the Task has ended and not all steps have ended well.
func (n *next) failed(reason, message string, at time.Time) {
	n.Phase = v1alpha1.TaskFailed
	n.condition(v1alpha1.ConditionFailed, metav1.ConditionTrue, reason, message)
	n.ended(reason, message, at)
	for i := range n.Steps {
		step := &n.Steps[i]
		switch step.State {
		case v1alpha1.StepWaiting:
			step.State, step.Reason, step.Message = v1alpha1.StepSkipped, "", ""
		case v1alpha1.StepRunning: // nobody will tell how it ended
			step.State, step.Reason = v1alpha1.StepFailed, reason
		}
	}
}

// complete: all steps have ended well.
func (n *next) complete(at time.Time) {
	const message = "all steps have ended well"
	n.Phase = v1alpha1.TaskSucceeded
	n.condition(v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonStepsSucceeded, message)
	n.ended(v1alpha1.ReasonStepsSucceeded, message, at)
}

func (n *next) ended(reason, message string, at time.Time) {
	n.resumed()
	n.condition(v1alpha1.ConditionProgressing, metav1.ConditionFalse, reason, message)
	n.CompletionTime = &metav1.Time{Time: at.Truncate(time.Second)}
	if n.StartTime != nil {
		n.Duration = duration.HumanDuration(max(0, n.CompletionTime.Sub(n.StartTime.Time)))
	}
}

// mirror brings the status to what the Task's Pod says.
func (n *next) mirror(pod *corev1.Pod, now time.Time) {
	seen := observe(pod)
	n.PodName = pod.Name
	n.StartTime = new(pod.CreationTimestamp)
	n.Order = int32(released(pod)) //nolint:gosec // at most 100
	n.Progress = fmt.Sprintf("%d/%d", seen.succeeded, len(seen.steps))
	n.Steps = seen.steps
	n.CurrentStep = ""
	current := slices.IndexFunc(seen.steps, func(step v1alpha1.StepStatus) bool { return step.State == v1alpha1.StepRunning })
	running := current >= 0
	if !running {
		current = seen.failed
	}
	if current < 0 && seen.succeeded < len(seen.steps) {
		current = seen.succeeded
	}
	if current >= 0 {
		n.CurrentStep = seen.steps[current].Name
	}

	switch {
	case seen.succeeded == len(seen.steps):
		n.complete(latest(seen.steps, now))
	case pod.DeletionTimestamp != nil:
		n.podDeleted(now) // the timestamp lies ahead: it is when the grace period ends
	case seen.failed >= 0 && pod.Status.Reason == "" && !running: // a step may fail while it waits; the one that runs goes on
		step := seen.steps[seen.failed]
		n.failed(v1alpha1.ReasonStepFailed, failure(step), latest(seen.steps[seen.failed:seen.failed+1], now))
	case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
		n.failed(podFailure(pod, now))
	default:
		n.progress(pod, seen.steps[current])
	}
}

func (n *next) podDeleted(at time.Time) {
	n.failed(v1alpha1.ReasonPodDeleted, fmt.Sprintf("the Pod %q was deleted before all steps had ended", n.PodName), at)
}

// podFailure says why a Pod has ended before its steps: evicted, too slow, an init container that failed.
func podFailure(pod *corev1.Pod, now time.Time) (reason, message string, at time.Time) {
	if pod.Status.Reason != "" {
		return pod.Status.Reason, "the Pod failed: " + pod.Status.Message, now
	}
	for _, init := range pod.Status.InitContainerStatuses {
		if end := init.State.Terminated; end != nil && end.ExitCode != 0 {
			return v1alpha1.ReasonPodFailed, fmt.Sprintf("the init container %q failed with exit code %d (%s)", init.Name, end.ExitCode, end.Reason), end.FinishedAt.Time
		}
	}
	return v1alpha1.ReasonPodFailed, "the Pod ended before all steps had run", now
}

// latest is when the last of the steps ended.
func latest(steps []v1alpha1.StepStatus, now time.Time) time.Time {
	var at time.Time
	for _, step := range steps {
		if step.FinishedAt != nil && step.FinishedAt.After(at) {
			at = step.FinishedAt.Time
		}
	}
	if at.IsZero() {
		return now
	}
	return at
}

// progress: the Pod is there and not at its end; current is the step whose turn it is.
func (n *next) progress(pod *corev1.Pod, current v1alpha1.StepStatus) {
	n.resumed()
	n.Phase = v1alpha1.TaskPending
	if pod.Status.Phase == corev1.PodRunning {
		n.Phase = v1alpha1.TaskRunning
	}
	progressing := func(status metav1.ConditionStatus, reason, message string) {
		n.condition(v1alpha1.ConditionProgressing, status, reason, message)
	}
	reason, message := stuck(pod)
	switch {
	case reason != "" && current.State == v1alpha1.StepRunning: // it is a later step that can't start
		progressing(metav1.ConditionTrue, reason, message)
	case reason != "":
		progressing(metav1.ConditionFalse, reason, message)
	case current.State == v1alpha1.StepRunning:
		progressing(metav1.ConditionTrue, v1alpha1.ReasonStepRunning, fmt.Sprintf("step %q runs", current.Name))
	case n.Phase == v1alpha1.TaskRunning:
		progressing(metav1.ConditionTrue, v1alpha1.ReasonStepWaiting, fmt.Sprintf("step %q is next", current.Name))
	default:
		progressing(metav1.ConditionTrue, v1alpha1.ReasonPodCreated, fmt.Sprintf("the Pod %q is being started", pod.Name))
	}
}

// stuck says what keeps a Pod from going on, in the words of the scheduler or the kubelet: no node for it, or a container that
// can't be made. It is empty where there is nothing of the kind.
func stuck(pod *corev1.Pod) (reason, message string) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Reason, "no node takes the Pod: " + condition.Message
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, container := range statuses {
			waiting := container.State.Waiting
			if waiting == nil || waiting.Reason == "" || waiting.Reason == "PodInitializing" || waiting.Reason == "ContainerCreating" {
				continue
			}
			return waiting.Reason, fmt.Sprintf("container %q can't start: %s", container.Name, waiting.Message)
		}
	}
	return "", ""
}
