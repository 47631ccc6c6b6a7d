package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// sums returns the counts and sums of all metrics of measure, by metric and label.
func sums(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "taskflow_") {
			continue
		}
		for _, metric := range family.GetMetric() {
			words := []string{family.GetName()}
			for _, label := range metric.GetLabel() {
				words = append(words, label.GetValue())
			}
			name := strings.Join(words, " ")
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				all[name] = metric.GetCounter().GetValue()
			case dto.MetricType_HISTOGRAM:
				all[name+" count"] = float64(metric.GetHistogram().GetSampleCount())
				all[name+" sum"] = metric.GetHistogram().GetSampleSum()
			}
		}
	}
	return all
}

// TestMeasure proves that each step and each Task is counted once, when it ends, with the duration of its command and the time before it.
func TestMeasure(t *testing.T) {
	at := func(seconds float64) *metav1.MicroTime {
		return &metav1.MicroTime{Time: time.Unix(0, 0).Add(time.Duration(seconds * float64(time.Second)))}
	}
	step := func(state v1alpha1.StepState, started, finished float64) v1alpha1.StepStatus {
		status := v1alpha1.StepStatus{State: state}
		if started > 0 {
			status.StartedAt = at(started)
		}
		if finished > 0 {
			status.FinishedAt = at(finished)
		}
		return status
	}
	status := func(phase v1alpha1.TaskPhase, steps ...v1alpha1.StepStatus) v1alpha1.TaskStatus {
		s := v1alpha1.TaskStatus{Phase: phase, PodName: "pod", Steps: steps}
		if phase == v1alpha1.TaskSucceeded || phase == v1alpha1.TaskFailed {
			s.CompletionTime = &metav1.Time{Time: time.Unix(9, 0)}
			kind := v1alpha1.ConditionComplete
			if phase == v1alpha1.TaskFailed {
				kind = v1alpha1.ConditionFailed
			}
			s.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue}}
		}
		return s
	}
	const succeeded, failed = "taskflow_step_duration_seconds Succeeded", "taskflow_step_duration_seconds Failed"
	const handoff = "taskflow_step_handoff_seconds"
	waits := step(v1alpha1.StepWaiting, 0, 0)
	runs := status(v1alpha1.TaskRunning, step(v1alpha1.StepRunning, 1, 0), waits)
	first := status(v1alpha1.TaskRunning, step(v1alpha1.StepSucceeded, 1, 3), waits)
	both := status(v1alpha1.TaskSucceeded, step(v1alpha1.StepSucceeded, 1, 3), step(v1alpha1.StepSucceeded, 3.5, 4))
	broken := status(v1alpha1.TaskFailed, step(v1alpha1.StepFailed, 1, 2), step(v1alpha1.StepSkipped, 0, 0))
	cases := map[string]struct {
		before, after v1alpha1.TaskStatus
		want          map[string]float64
	}{
		"it runs":        {status(v1alpha1.TaskPending), runs, map[string]float64{}},
		"the first step": {runs, first, map[string]float64{succeeded + " count": 1, succeeded + " sum": 2}},
		"the second step, and the end": {first, both, map[string]float64{
			succeeded + " count": 1, succeeded + " sum": 0.5, handoff + " count": 1, handoff + " sum": 0.5, "taskflow_tasks_finished_total Succeeded": 1,
		}},
		"both steps at once": {runs, both, map[string]float64{
			succeeded + " count": 2, succeeded + " sum": 2.5, handoff + " count": 1, handoff + " sum": 0.5, "taskflow_tasks_finished_total Succeeded": 1,
		}},
		"nothing new": {both, both, map[string]float64{}},
		"a failure, and what is skipped": {runs, broken, map[string]float64{
			failed + " count": 1, failed + " sum": 1, "taskflow_tasks_finished_total Failed": 1,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := sums(t)
			measure(c.before, c.after)
			got := map[string]float64{}
			for key, value := range sums(t) {
				if value != before[key] {
					got[key] = value - before[key]
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what was counted (-want +got):\n%s", diff)
			}
		})
	}
}
