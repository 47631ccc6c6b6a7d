package controller

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

var (
	tasksFinished = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "taskflow_tasks_finished_total",
		Help: "Tasks that ended, by phase.",
	}, []string{"phase"})
	stepSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "taskflow_step_duration_seconds",
		Help:    "Duration of the commands of Tasks' steps, by the state in which they ended.",
		Buckets: []float64{.1, .5, 1, 5, 15, 30, 60, 300, 900, 3600, 4 * 3600},
	}, []string{"state"})
	handoffSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "taskflow_step_handoff_seconds",
		Help:    "Time from the end of the last predecessor's command to the start of a step's command, in Tasks.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	})
	statusesRefused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "taskflow_statuses_refused_total",
		Help: "Statuses of Tasks that the API server refused to write.",
	})
	eventsDropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "taskflow_events_dropped_total",
		Help: "Events that were dropped, by reason: QueueFull, WriteFailed or Shutdown.",
	}, []string{"reason"})
)

func init() {
	metrics.Registry.MustRegister(tasksFinished, stepSeconds, handoffSeconds, statusesRefused, eventsDropped)
}

// measure counts what ended between two statuses of a Task. Each status is written once, so each end is counted once.
func measure(before, after v1alpha1.TaskStatus) {
	if finished(&after) && !finished(&before) {
		tasksFinished.WithLabelValues(string(after.Phase)).Inc()
	}
	old := stepsOf(before, after.PodName)
	for i, step := range after.Steps {
		wasEnded := i < len(old) && old[i].State == step.State
		if wasEnded || !hasEnded(step) || step.StartedAt == nil || step.FinishedAt == nil {
			continue
		}
		stepSeconds.WithLabelValues(string(step.State)).Observe(max(0, step.FinishedAt.Sub(step.StartedAt.Time).Seconds()))
		if end := endBefore(after.Steps, i); end != nil {
			handoffSeconds.Observe(max(0, step.StartedAt.Sub(end.Time).Seconds()))
		}
	}
}

// endBefore returns when the last predecessor of step i ended, or nil. Without dependsOn, the step before is the predecessor. A final step has a stage
// and no dependsOn: it follows all others.
func endBefore(steps []v1alpha1.StepStatus, i int) *metav1.MicroTime {
	step := steps[i]
	if i > 0 && step.Stage == 0 {
		return steps[i-1].FinishedAt
	}
	var last *metav1.MicroTime
	for _, before := range steps[:i] {
		isPredecessor := step.Stage > 1 && len(step.DependsOn) == 0 || slices.Contains(step.DependsOn, before.Name)
		if isPredecessor && before.FinishedAt != nil && (last == nil || last.Before(before.FinishedAt)) {
			last = before.FinishedAt
		}
	}
	return last
}

var tasksByPhase = prometheus.NewDesc("taskflow_tasks", "Existing Tasks, by phase. Every replica counts all of them.", []string{"phase"}, nil)

// countTimeout bounds how long a scrape waits for the cache.
const countTimeout = time.Second

// TaskCounter counts the existing Tasks at each scrape.
type TaskCounter struct {
	// Tasks reads from the cache.
	Tasks client.Reader
}

var _ prometheus.Collector = TaskCounter{}

// Describe implements prometheus.Collector.
func (TaskCounter) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- tasksByPhase }

// Collect implements prometheus.Collector.
func (c TaskCounter) Collect(samples chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var tasks v1alpha1.TaskList
	if err := c.Tasks.List(ctx, &tasks, client.UnsafeDisableDeepCopy); err != nil {
		return // the cache has not started yet
	}
	phases := map[v1alpha1.TaskPhase]int{
		v1alpha1.TaskPending: 0, v1alpha1.TaskRunning: 0, v1alpha1.TaskSucceeded: 0,
		v1alpha1.TaskFailed: 0, v1alpha1.TaskCancelled: 0, v1alpha1.TaskSuspended: 0,
	}
	for _, task := range tasks.Items {
		phase := task.Status.Phase
		if phase == "" {
			phase = v1alpha1.TaskPending // new
		}
		phases[phase]++
	}
	for phase, count := range phases {
		samples <- prometheus.MustNewConstMetric(tasksByPhase, prometheus.GaugeValue, float64(count), string(phase))
	}
}
