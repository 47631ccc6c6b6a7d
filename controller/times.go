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
