package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// bring brings a status to a state.
type bring = func(*next)

// Ways to states, by name.
var (
	suspended bring = (*next).suspended
	refused   bring = func(n *next) { n.waiting(v1alpha1.ReasonPodRefused, "exceeded quota") }
	conflict  bring = func(n *next) { n.failed(v1alpha1.ReasonPodNameConflict, "a Pod of the name exists", lookedAt) }
	gone      bring = (*next).podDeleted
)

// look decides about a Pod, or its absence, at a time.
func look(n *next, pod *corev1.Pod, now time.Time) {
	f := n.facts
	f.task = f.task.DeepCopy()
	f.task.Status = n.TaskStatus
	f.pod, f.now = pod, now
	*n = *decide(f)
}

// statusOf begins the next status of a Task at lookedAt.
func statusOf(task *v1alpha1.Task, startGrace time.Duration) *next {
	return nextStatus(facts{task: task, startGrace: startGrace, now: lookedAt})
}

func mirrored(edits ...edit) bring {
	return func(n *next) {
		pod := sequential(edits...)
		n.task = n.task.DeepCopy()
		n.task.Spec.Steps = make([]v1alpha1.Step, len(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])))
		look(n, pod, lookedAt)
	}
}

// twoSteps is the spec of a Task without a Pod.
var twoSteps = v1alpha1.TaskSpec{Steps: []v1alpha1.Step{{Container: corev1.Container{Name: "a"}}, {Container: corev1.Container{Name: "b"}}}}

// statusAfter returns the status of a Task that was brought to the states in turn, each in a reconciliation of its own.
func statusAfter(states ...bring) v1alpha1.TaskStatus {
	status, _ := after(states...)
	return status
}

// after returns the status after the states, and the reconciliation that brought the last of them.
func after(states ...bring) (v1alpha1.TaskStatus, *next) {
	task := v1alpha1.Task{Spec: twoSteps}
	var n *next
	for _, bring := range states {
		task.Generation++
		n = statusOf(&task, 5*time.Minute)
		bring(n)
		task.Status = n.TaskStatus
		for i := range task.Status.Conditions {
			// As it is when it comes back from the API server, later.
			task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: created.Add(time.Duration(task.Generation))}
		}
	}
	return task.Status, n
}

// view is a status as users read it.
type view struct {
	Phase               v1alpha1.TaskPhase
	Order               int32
	Progress, Current   string
	Steps               string
	Started, Completed  string
	Duration            string
	Progressing         string
	Complete, Failed    string
	Suspended           string
	PodName             string
	UnexpectedCondition string
}

func viewOf(status v1alpha1.TaskStatus) view {
	v := view{
		Phase: status.Phase, Order: status.Order, Progress: status.Progress, Current: status.CurrentStep, Steps: states(status.Steps),
		Started: clock(status.StartTime), Completed: clock(status.CompletionTime), Duration: status.Duration, PodName: status.PodName,
	}
	for _, condition := range status.Conditions {
		text := fmt.Sprintf("%s %s: %s", condition.Status, condition.Reason, condition.Message)
		switch condition.Type {
		case v1alpha1.ConditionProgressing:
			v.Progressing = text
		case v1alpha1.ConditionComplete:
			v.Complete = text
		case v1alpha1.ConditionFailed:
			v.Failed = text
		case v1alpha1.ConditionSuspended:
			v.Suspended = text
		default:
			v.UnexpectedCondition = condition.Type
		}
	}
	return v
}

func clock(t *metav1.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("15:04:05.999999999")
}

// assertStays proves that the last state, reached again, changes nothing: there is no write, and no time moves.
func assertStays(t *testing.T, states ...bring) {
	t.Helper()
	task := &v1alpha1.Task{Spec: twoSteps, Status: statusAfter(states...)}
	task.Generation = task.Status.ObservedGeneration
	for i := range task.Status.Conditions { // after a while, others may be said of a Pod that is still starting
		task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: lookedAt}
	}
	n := statusOf(task, 5*time.Minute)
	states[len(states)-1](n)
	if diff := cmp.Diff(task.Status, n.TaskStatus); diff != "" {
		t.Errorf("the same state once more (-first +second):\n%s", diff)
	}
}

// asked edits the spec of the Task first.
func asked(edit func(*v1alpha1.TaskSpec), bring bring) bring {
	return func(n *next) {
		n.task = n.task.DeepCopy()
		edit(&n.task.Spec)
		bring(n)
	}
}
