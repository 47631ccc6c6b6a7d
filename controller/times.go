package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// lastHelperStart returns when the last of the containers that are not steps started, or nil. The first step waits for all of them.
func lastHelperStart(pod *corev1.Pod) *metav1.MicroTime {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	var last *metav1.MicroTime
	for _, container := range pod.Status.ContainerStatuses {
		if running := container.State.Running; running != nil && !slices.Contains(steps, container.Name) {
			if at := microTime(running.StartedAt); last == nil || at != nil && at.After(last.Time) {
				last = at
			}
		}
	}
	return last
}

// stepDuration returns how long the command of a step ran, for people. It is empty unless both of the step's times are known.
func stepDuration(step v1alpha1.StepStatus) string {
	if !hasEnded(step) || step.StartedAt == nil || step.FinishedAt == nil {
		return ""
	}
	switch d := max(0, step.FinishedAt.Sub(step.StartedAt.Time)); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return duration.HumanDuration(d)
	}
}

// finishedAt returns when the controllers saw the end of a Task. Its completion time is by the clocks of nodes.
func finishedAt(status *v1alpha1.TaskStatus) time.Time {
	var at time.Time
	for _, kind := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed} {
		if condition := meta.FindStatusCondition(status.Conditions, kind); condition != nil && condition.Status == metav1.ConditionTrue {
			at = condition.LastTransitionTime.Time
		}
	}
	return at
}

// earlier returns the earlier one of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
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

// later is the start of a step that has started, which is not before the end of the step before: where there is no record, all that is
// known is since when its container has been waiting.
func later(startedAt, before *metav1.MicroTime) *metav1.MicroTime {
	if startedAt == nil || before == nil || startedAt.After(before.Time) {
		return startedAt
	}
	return before
}

// notBefore returns the end of a step, which isn't before its start.
func notBefore(finishedAt, startedAt *metav1.MicroTime) *metav1.MicroTime {
	if finishedAt == nil || startedAt == nil || !finishedAt.Before(startedAt) {
		return finishedAt
	}
	return startedAt
}

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
