package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// lastHelperStart returns when the last running helper started, or nil if none runs. The first step waits for all of them.
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

// stepDuration returns how long the command of a step ran, in human-readable form. It is empty unless both times of the step are known.
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

// earlier returns the earlier of two times.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// microTime returns nil for an unknown time. For a container that never started, the kubelet reports 1970.
func microTime(t metav1.Time) *metav1.MicroTime {
	if t.Unix() <= 0 {
		return nil
	}
	return &metav1.MicroTime{Time: t.Time}
}

// exactTime cuts a time to microseconds, which is what a status keeps: otherwise every reconcile would find a change.
func exactTime(t time.Time) *metav1.MicroTime {
	return &metav1.MicroTime{Time: t.Truncate(time.Microsecond)}
}

// later returns the start of a step, but no time before the end of its predecessor. Without a record, only the start of the container is known,
// and the agent has waited in it since.
func later(startedAt, before *metav1.MicroTime) *metav1.MicroTime {
	if startedAt == nil || before == nil || startedAt.After(before.Time) {
		return startedAt
	}
	return before
}

// notBefore returns the end of a step, but no time before its start.
func notBefore(finishedAt, startedAt *metav1.MicroTime) *metav1.MicroTime {
	if finishedAt == nil || startedAt == nil || !finishedAt.Before(startedAt) {
		return finishedAt
	}
	return startedAt
}

// isWithin reports whether a time lies between two times of the kubelet, which have whole seconds.
func isWithin(t, first, last time.Time) bool {
	return !t.Before(first) && t.Before(last.Add(time.Second))
}

// earliest returns the earliest time that the kubelet knows for a step's container. A container that was restarted may have left its record
// before its last start, so its Pod's start counts. Zero: the start of the container.
func earliest(pod *corev1.Pod, container *corev1.ContainerStatus) time.Time {
	if container.RestartCount > 0 && pod.Status.StartTime != nil {
		return pod.Status.StartTime.Time
	}
	return time.Time{}
}
