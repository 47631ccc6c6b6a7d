package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestStatusWithoutAPod proves the states of a Task without a Pod.
func TestStatusWithoutAPod(t *testing.T) {
	const isSuspended = "True Suspended: spec.suspend is true: set it to false to run the Task"
	cases := map[string]struct {
		states []bring
		want   view
	}{
		"new": {
			[]bring{func(*next) {}},
			view{},
		},
		"suspended": {
			[]bring{suspended},
			view{Phase: "Suspended", Suspended: isSuspended, Progressing: "False Suspended: spec.suspend is true"},
		},
		"waiting": {
			[]bring{refused},
			view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Progressing: "False PodRefused: exceeded quota"},
		},
		"waiting, after it was suspended": {
			[]bring{suspended, refused},
			view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Suspended: "False Resumed: spec.suspend is false", Progressing: "False PodRefused: exceeded quota"},
		},
		"suspended, resumed, suspended": {
			[]bring{suspended, refused, suspended},
			view{Phase: "Suspended", Suspended: isSuspended, Progressing: "False Suspended: spec.suspend is true"},
		},
		"failed": {
			[]bring{conflict},
			view{
				Phase: "Failed", Progress: "0/2", Steps: "Skipped Skipped", Completed: "12:03:00",
				Failed: "True PodNameConflict: a Pod of the name exists", Progressing: "False PodNameConflict: a Pod of the name exists",
			},
		},
		"failed, after it was suspended": {
			[]bring{suspended, conflict},
			view{
				Phase: "Failed", Progress: "0/2", Steps: "Skipped Skipped", Completed: "12:03:00", Suspended: "False Resumed: spec.suspend is false",
				Failed: "True PodNameConflict: a Pod of the name exists", Progressing: "False PodNameConflict: a Pod of the name exists",
			},
		},
		"the Pod has gone": {
			[]bring{mirrored(order("2"), containers(succeeded("a"), running("b"), running("c"))), gone},
			view{
				Phase: "Failed", PodName: "example", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Failed Skipped",
				Started: "12:00:00", Completed: "12:03:00", Duration: "3m",
				Failed:      `True PodDeleted: the Pod "example" was deleted before all steps had ended`,
				Progressing: `False PodDeleted: the Pod "example" was deleted before all steps had ended`,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, viewOf(statusAfter(c.states...))); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			assertStays(t, c.states...)
		})
	}
}

// TestMirrorKeepsTheSteps proves that the details of a step are those of observe, and what becomes of the steps of a deleted Pod.
func TestMirrorKeepsTheSteps(t *testing.T) {
	at := func(t time.Time) *metav1.MicroTime { return &metav1.MicroTime{Time: t} }
	want := []v1alpha1.StepStatus{
		{Name: "a", State: "Succeeded", Reason: "Completed", ExitCode: new(int32(0)), StartedAt: at(created), FinishedAt: at(ended), Duration: "65s", ImageID: "sha256:0", Message: "mine"},
		{Name: "b", State: "Failed", Reason: "PodDeleted", StartedAt: at(ended)},
		{Name: "c", State: "Skipped", Reason: "Skipped"},
	}
	status := statusAfter(mirrored(order("2"), deleted, containers(
		withImage(exited("a", 0, "Completed", "mine"), "sha256:0"), running("b"), waiting("c", "ImagePullBackOff", "back-off"))))
	if diff := cmp.Diff(want, status.Steps); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
}

// TestCancel proves that a cancelled Task ends as soon as nothing in its Pod runs, and always as Cancelled.
func TestCancel(t *testing.T) {
	cancelled := exited("a", 143, "Error", contract.Record{FinishedAt: ended, ExitCode: 143, Reason: contract.ReasonCancelled}.Marshal())
	unscheduled := func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodPending
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
	}
	const ending = "Progressing Cancelled: spec.cancel is true: the running containers are being terminated"
	cases := map[string]struct {
		pod  bring
		want string // phase, and the reason and message of the condition that says most; and the steps
	}{
		"a step runs":              {mirrored(containers(running("a"), running("b"), running("c"))), "Running " + ending + " [Running Waiting Waiting]"},
		"a step runs, after halt":  {mirrored(halt("cancelled"), containers(running("a"), skipped("b"), skipped("c"))), "Running " + ending + " [Running Skipped Skipped]"},
		"the step has ended":       {mirrored(halt("cancelled"), containers(cancelled, skipped("b"), skipped("c"))), "Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]"},
		"it is being started":      {mirrored(phase(corev1.PodPending), containers(waiting("a", "PodInitializing", ""))), "Pending " + ending + " [Waiting Waiting Waiting]"},
		"no node takes the Pod":    {mirrored(unscheduled), "Cancelled Failed Cancelled: spec.cancel is true; the Pod \"example\" was deleted, because no node had taken it [Skipped Skipped Skipped]"},
		"the Pod is being deleted": {mirrored(deleted, containers(running("a"), running("b"), running("c"))), "Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]"},
		"the Pod was evicted":      {mirrored(phase(corev1.PodFailed), func(pod *corev1.Pod) { pod.Status.Reason = "Evicted" }), "Cancelled Failed Cancelled: spec.cancel is true [Skipped Skipped Skipped]"},
		"all had succeeded":        {mirrored(containers(succeeded("a"), succeeded("b"), succeeded("c"))), "Succeeded Complete StepsSucceeded: all steps succeeded [Succeeded Succeeded Succeeded]"},
		"attempts are left": {
			asked(func(spec *v1alpha1.TaskSpec) { spec.BackoffLimit = 3 }, mirrored(phase(corev1.PodFailed), containers(cancelled))),
			"Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cancel := asked(func(spec *v1alpha1.TaskSpec) { spec.Cancel = true }, c.pod)
			status := statusAfter(cancel)
			var says *metav1.Condition
			for _, kind := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
				if says = meta.FindStatusCondition(status.Conditions, kind); says != nil {
					break
				}
			}
			got := fmt.Sprintf("%s %s %s: %s [%s]", status.Phase, says.Type, says.Reason, says.Message, states(status.Steps))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			n := statusOf(&v1alpha1.Task{}, 5*time.Minute)
			if cancel(n); n.halt == "" {
				t.Error("the Pod isn't to be halted")
			}
			assertStays(t, cancel)
		})
	}
}

// TestCompleteWithAFailure proves that a Task is Complete if the failure of a step was allowed, and says so.
func TestCompleteWithAFailure(t *testing.T) {
	status := statusAfter(mirrored(order("3"), annotated(contract.OptionsAnnotation, `{"b":{"continueOnError":true}}`), containers(succeeded("a"), failedWith("b", 3), succeeded("c")), phase(corev1.PodFailed)))
	const ok = `StepsSucceeded: all steps have ended; step "b" failed with exit code 3, which does not fail the Task (onError: Continue)`
	want := view{
		Phase: "Succeeded", PodName: "example", Order: 3, Progress: "3/3", Steps: "Succeeded Failed Succeeded",
		Started: "12:00:00", Completed: "12:01:05", Duration: "65s", Complete: "True " + ok, Progressing: "False " + ok,
	}
	if diff := cmp.Diff(want, viewOf(status)); diff != "" {
		t.Errorf("the status (-want +got):\n%s", diff)
	}
}

// TestNextStatus proves that the next status begins as a copy of the present one, and has the generation of the Task, as its changed conditions
// have.
func TestNextStatus(t *testing.T) {
	task := &v1alpha1.Task{Status: statusAfter(suspended)}
	task.Generation = 7
	before := task.DeepCopy()
	n := statusOf(task, 5*time.Minute)
	want := before.Status.DeepCopy()
	want.ObservedGeneration = 7
	if diff := cmp.Diff(*want, n.TaskStatus); diff != "" {
		t.Errorf("nextStatus (-want +got):\n%s", diff)
	}

	mirrored(containers(running("a")))(n)
	if diff := cmp.Diff(before, task); diff != "" {
		t.Errorf("the Task has changed with its next status (-before +after):\n%s", diff)
	}
	for _, condition := range n.Conditions {
		if condition.ObservedGeneration != 7 {
			t.Errorf("the condition %s is of generation %d, want 7", condition.Type, condition.ObservedGeneration)
		}
	}
}

// TestFinished proves which conditions end a Task.
func TestFinished(t *testing.T) {
	cases := map[string]struct {
		status v1alpha1.TaskStatus
		want   bool
	}{
		"new":       {statusAfter(), false},
		"suspended": {statusAfter(suspended), false},
		"waiting":   {statusAfter(refused), false},
		"running":   {statusAfter(mirrored(containers(running("a")))), false},
		"failed":    {statusAfter(conflict), true},
		"complete":  {statusAfter(mirrored(containers(succeeded("a"), succeeded("b"), succeeded("c")))), true},
		"Failed is False": {
			v1alpha1.TaskStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionFailed, Status: metav1.ConditionFalse}}},
			false,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := finished(&c.status); got != c.want {
				t.Errorf("finished = %t, want %t", got, c.want)
			}
		})
	}
}
