//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// told is what a Pod is told by its annotations.
type told struct{ Order, Halt, Cancel, HaltFinally, Status, FailedStep string }

// awaitTold waits until the Pod is told so.
func awaitTold(t *testing.T, pod *corev1.Pod, want told) {
	t.Helper()
	wait.For(t, "the annotations", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		a := pod.Annotations
		outcome, _ := contract.ParseOutcome(a[contract.OutcomeAnnotation])
		got := told{
			a[contract.OrderAnnotation], a[contract.HaltAnnotation], a[contract.CancelAnnotation], a[contract.HaltFinallyAnnotation], outcome.Status, outcome.FailedStep,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("-want +got:\n%s", diff)
		}
		return nil
	})
}

// awaitProgress waits until the Task says so: its current step, and the reason and the message of the condition Progressing.
func awaitProgress(t *testing.T, task *v1alpha1.Task, step, reason, message string) {
	t.Helper()
	cluster.AwaitTask(t, task, fmt.Sprintf("%s %s: %s", step, reason, message), func(s v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && s.CurrentStep == step && condition.Reason == reason && condition.Message == message
	})
}

// branches makes a Task with the steps a, then b and c side by side, then d, and the final steps e and f. Its Pod has a node.
func branches(t *testing.T, edits ...func(*v1alpha1.Task)) (*v1alpha1.Task, *corev1.Pod) {
	t.Helper()
	task := echoTask(cluster.NewNamespace(t, "privileged"), "made", "a", "b", "c", "d", "e", "f")
	task.Spec.Steps[1].DependsOn, task.Spec.Steps[2].DependsOn = []string{"a"}, []string{"a"}
	task.Spec.Steps[3].DependsOn = []string{"b", "c"}
	task.Spec.Steps[4].Finally, task.Spec.Steps[5].Finally = true, true
	for _, edit := range edits {
		edit(task)
	}
	cluster.Make(t, task)
	pod := awaitPod(t, task)
	bind(t, pod)
	return task, pod
}

func patchSpec(t *testing.T, task *v1alpha1.Task, spec string) {
	t.Helper()
	if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(`{"spec":`+spec+`}`))); err != nil {
		t.Fatal(err)
	}
}

// TestBranches proves what a Pod with branches and final steps is told, and what its Task says, through its ends. There is no kubelet, so each write
// of the Pod's status may skip what happened in between, as after an absence of the operator.
func TestBranches(t *testing.T) {
	ok, run := ended(0), running()
	skipped := recorded(contract.Record{Reason: contract.ReasonSkipped})
	cancelled := recorded(contract.Record{StartedAt: new(time.Now()), ExitCode: 143, Reason: contract.ReasonCancelled})
	const failedB, failedC = `step "b" failed with exit code 3`, `step "c" failed with exit code 4`

	t.Run("all succeed", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t)
		setStates(t, pod, corev1.PodRunning, ok, run, run, run, run, run)
		awaitTold(t, pod, told{Order: "2"})
		awaitProgress(t, task, "b,c", "StepRunning", `steps "b", "c" are running`)
		setStates(t, pod, corev1.PodRunning, ok, ok, ok, ok, run, run)
		awaitTold(t, pod, told{Order: "4", Status: "Succeeded"})
		awaitProgress(t, task, "e", "FinalStepRunning", `final step "e" is running`)
		setStates(t, pod, corev1.PodSucceeded, ok, ok, ok, ok, ok, ok)
		status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
		if status.Progress != "6/6" || status.CurrentStep != "" {
			t.Errorf("progress %s, step %q", status.Progress, status.CurrentStep)
		}
		var places []string
		for _, step := range status.Steps {
			places = append(places, fmt.Sprintf("%s %d %s", step.Name, step.Stage, strings.Join(step.DependsOn, ",")))
		}
		if diff := cmp.Diff([]string{"a 1 ", "b 2 a", "c 2 a", "d 3 b,c", "e 4 ", "f 5 "}, places); diff != "" {
			t.Errorf("stages (-want +got):\n%s", diff)
		}
	})
	t.Run("a branch fails while its sibling runs", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) { task.Spec.BackoffLimit = 1 })
		setStates(t, pod, corev1.PodRunning, ok, recorded(contract.Record{StartedAt: new(time.Now()), ExitCode: 3}), run, run, run, run)
		awaitTold(t, pod, told{Order: "1", Halt: failedB})
		awaitProgress(t, task, "c", "StepRunning", `step "c" is running; no further step starts: `+failedB)
		setStates(t, pod, corev1.PodRunning, ok, ended(3), ok, skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: failedB, Status: "Failed", FailedStep: "b"})
		awaitProgress(t, task, "e", "FinalStepRunning", `final step "e" is running; the other steps have ended: `+failedB)
		setStates(t, pod, corev1.PodRunning, ok, ended(3), ok, skipped, ended(5), run)
		awaitTold(t, pod, told{Order: "5", Halt: failedB, Status: "Failed", FailedStep: "b"})
		if len(task.Status.Attempts) > 0 {
			t.Error("the next attempt has begun before the final steps have ended")
		}
		setStates(t, pod, corev1.PodFailed, ok, ended(3), ok, skipped, ended(5), ok)
		status := cluster.AwaitTask(t, task, "the next attempt", func(s v1alpha1.TaskStatus) bool { return len(s.Attempts) == 1 })
		if diff := cmp.Diff(failedB+`; final step "e" failed with exit code 5`, status.Attempts[0].Message); diff != "" {
			t.Errorf("the attempt (-want +got):\n%s", diff)
		}
	})
	t.Run("both siblings fail at once", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t)
		first, second := ended(4), ended(3)
		second.Terminated.FinishedAt.Time = first.Terminated.FinishedAt.Add(5 * time.Second)
		setStates(t, pod, corev1.PodRunning, ok, second, first, run, run, run) // b stands first in the list, and c failed first
		awaitTold(t, pod, told{Order: "1", Halt: failedC})
		setStates(t, pod, corev1.PodRunning, ok, second, first, skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: failedC, Status: "Failed", FailedStep: "c"})
		setStates(t, pod, corev1.PodFailed, ok, second, first, skipped, ok, ok)
		assertOutcome(t, task, outcome{v1alpha1.TaskFailed, "StepFailed: " + failedC, []string{
			"a Succeeded Completed 0", "b Failed Error 3", "c Failed Error 4", "d Skipped Skipped", "e Succeeded Completed 0", "f Succeeded Completed 0",
		}, "4"})
	})
	t.Run("cancelled, and cancelled again in a final step", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t)
		setStates(t, pod, corev1.PodRunning, ok, run, run, run, run, run)
		awaitTold(t, pod, told{Order: "2"})
		patchSpec(t, task, `{"cancel":true}`)
		const halt = "spec.cancel of the Task is true"
		awaitTold(t, pod, told{Order: "2", Halt: halt, Cancel: "Cancelled"})
		setStates(t, pod, corev1.PodRunning, ok, cancelled, cancelled, skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: halt, Cancel: "Cancelled", Status: "Cancelled"})
		awaitProgress(t, task, "e", "FinalStepRunning", `final step "e" is running; the other steps have ended: `+halt)
		patchSpec(t, task, `{"cancelFinally":true}`)
		awaitTold(t, pod, told{Order: "4", Halt: halt, Cancel: "Cancelled", HaltFinally: "spec.cancelFinally of the Task is true", Status: "Cancelled"})
		setStates(t, pod, corev1.PodFailed, ok, cancelled, cancelled, skipped, cancelled, skipped)
		assertOutcome(t, task, outcome{v1alpha1.TaskCancelled, `Cancelled: spec.cancel is true; final step "e" failed with exit code 143 (Cancelled)`, []string{
			"a Succeeded Completed 0", "b Failed Cancelled 143", "c Failed Cancelled 143", "d Skipped Skipped", "e Failed Cancelled 143", "f Skipped Skipped",
		}, "4"})
	})
	t.Run("the timeout passes", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) {
			task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: 4 * time.Second}, &metav1.Duration{Duration: time.Minute}
			task.Spec.BackoffLimit = 2
		})
		if got := *pod.Spec.ActiveDeadlineSeconds; got < 60 || got > 64 {
			t.Errorf("the Pod's deadline is %d seconds", got)
		}
		setStates(t, pod, corev1.PodRunning, ok, run, run, run, run, run)
		const halt = "the Task took longer than spec.timeout, which is 4s"
		awaitTold(t, pod, told{Order: "2", Halt: halt, Cancel: "DeadlineExceeded"})
		setStates(t, pod, corev1.PodRunning, ok, cancelled, ok, skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: halt, Cancel: "DeadlineExceeded", Status: "Failed", FailedStep: "b"})
		setStates(t, pod, corev1.PodFailed, ok, cancelled, ok, skipped, ok, ok)
		assertOutcome(t, task, outcome{v1alpha1.TaskFailed, "DeadlineExceeded: " + halt, []string{
			"a Succeeded Completed 0", "b Failed DeadlineExceeded 143", "c Succeeded Completed 0", "d Skipped Skipped", "e Succeeded Completed 0", "f Succeeded Completed 0",
		}, "4"})
	})
	t.Run("the final steps take too long after the timeout", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) {
			task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: 2 * time.Second}, &metav1.Duration{Duration: 2 * time.Second}
		})
		setStates(t, pod, corev1.PodRunning, ok, cancelled, ok, skipped, run, run)
		wait.For(t, "the Pod to be told to end", func(ctx context.Context) error {
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if got := *pod.Spec.ActiveDeadlineSeconds; got != 1 {
				return fmt.Errorf("its deadline is %d", got)
			}
			return nil
		})
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
			t.Fatal(err)
		}
		if task.Status.CompletionTime != nil {
			t.Error("the Task has ended before its Pod")
		}
	})
	t.Run("the operator was away while branches ended and final steps were due", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t)
		setStates(t, pod, corev1.PodRunning, ok, ok, withReason(ended(137), "OOMKilled"), run, run, run)
		awaitTold(t, pod, told{Order: "1", Halt: `step "c" failed with exit code 137 (OOMKilled)`})
		setStates(t, pod, corev1.PodRunning, ok, ok, withReason(ended(137), "OOMKilled"), skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: `step "c" failed with exit code 137 (OOMKilled)`, Status: "Failed", FailedStep: "c"})
		other, itsPod := branches(t)
		setStates(t, itsPod, corev1.PodSucceeded, ok, ok, ok, ok, ok, ok)
		cluster.AwaitTask(t, other, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
		setStates(t, pod, corev1.PodFailed, ok, ok, withReason(ended(137), "OOMKilled"), skipped, ok, ok)
		cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskFailed))
	})
	t.Run("OnFailure", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) {
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure}}
		})
		setStates(t, pod, corev1.PodRunning, ok, ended(3), ok, run, run, run)
		awaitTold(t, pod, told{Order: "2"}) // the kubelet restarts b
		setStates(t, pod, corev1.PodRunning, ok, waiting("CrashLoopBackOff", "back-off 10s"), ok, run, run, run)
		awaitProgress(t, task, "b", "CrashLoopBackOff", `step "b" failed, and the kubelet restarts it: back-off 10s`)
		setStates(t, pod, corev1.PodRunning, ok, ok, ok, ok, ended(3), run)
		awaitTold(t, pod, told{Order: "4", Status: "Succeeded"})
		setStates(t, pod, corev1.PodSucceeded, ok, ok, ok, ok, ok, ok)
		cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
	})
	t.Run("handoff: controller", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) {
			task.Spec.Template = &v1alpha1.PodTemplate{Metadata: metav1.ObjectMeta{Annotations: map[string]string{contract.HandoffAnnotation: contract.HandoffController}}}
		})
		setStates(t, pod, corev1.PodRunning, run, run, run, run, run, run)
		awaitProgress(t, task, "a", "StepRunning", `step "a" is running`)
		for _, c := range []struct {
			states []corev1.ContainerState
			want   told
		}{
			{[]corev1.ContainerState{ok, run, run, run, run, run}, told{Order: "2"}},
			{[]corev1.ContainerState{ok, ok, run, run, run, run}, told{Order: "2"}},
			{[]corev1.ContainerState{ok, ok, ok, run, run, run}, told{Order: "3"}},
			{[]corev1.ContainerState{ok, ok, ok, ok, run, run}, told{Order: "4", Status: "Succeeded"}},
			{[]corev1.ContainerState{ok, ok, ok, ok, ok, run}, told{Order: "5", Status: "Succeeded"}},
		} {
			setStates(t, pod, corev1.PodRunning, c.states...)
			awaitTold(t, pod, c.want)
		}
		setStates(t, pod, corev1.PodSucceeded, ok, ok, ok, ok, ok, ok)
		cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
	})
	t.Run("a step finishes the sequence, and a condition does not hold", func(t *testing.T) {
		t.Parallel()
		task, pod := branches(t, func(task *v1alpha1.Task) {
			task.Spec.Steps[0].ExitCodes = []v1alpha1.ExitCodeRule{{In: []int32{1}, Then: v1alpha1.ExitCodeSucceed}}
			task.Spec.Steps[1].When = []v1alpha1.Condition{{Step: "a", ExitCode: &v1alpha1.ExitCodeTest{In: []int32{1}}}}
			task.Spec.Steps[2].ExitCodes = []v1alpha1.ExitCodeRule{{In: []int32{78}, Then: v1alpha1.ExitCodeFinish}}
		})
		unmet := recorded(contract.Record{Reason: contract.ReasonWhenFalse, Message: "the exit code of a is not 1"})
		finished := recorded(contract.Record{Reason: contract.ReasonFinished, CommandExitCode: new(78), StartedAt: new(time.Now())})
		const halt = `step "c" finished the sequence with exit code 78`
		setStates(t, pod, corev1.PodRunning, ok, unmet, run, run, run, run)
		assertEvent(t, task, corev1.EventTypeNormal, "StepSkipped", `step "b" was skipped: the exit code of a is not 1`)
		setStates(t, pod, corev1.PodRunning, ok, unmet, finished, skipped, run, run)
		awaitTold(t, pod, told{Order: "4", Halt: halt, Status: "Succeeded"})
		setStates(t, pod, corev1.PodSucceeded, ok, unmet, finished, skipped, ok, ok)
		status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
		if got := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionComplete).Message; got != halt {
			t.Errorf("the condition Complete says %q", got)
		}
		want := []string{"a Succeeded Completed 0", "b Skipped WhenFalse", "c Succeeded Finished 78", "d Skipped Skipped", "e Succeeded Completed 0", "f Succeeded Completed 0"}
		if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
			t.Errorf("the steps (-want +got):\n%s", diff)
		}
	})
}

// TestLargeGraphs proves that the status of 100 steps, each with a message and outputs, is accepted, and that their order and progress are right.
func TestLargeGraphs(t *testing.T) {
	cases := map[string]struct {
		dependsOn func(i int) []string
		stages    string
		running   string // the current step when the first stage has ended
	}{
		"side by side": {func(int) []string { return []string{} }, "1", ""},
		"a chain": {func(i int) []string {
			if i == 0 {
				return nil
			}
			return []string{fmt.Sprintf("step-%d", i-1)}
		}, "100", "step-1"},
		"a grid": {func(i int) []string {
			names := []string{}
			for column := range 10 {
				if row := i / 10; row > 0 {
					names = append(names, fmt.Sprintf("step-%d", (row-1)*10+column))
				}
			}
			return names
		}, "10", "step-10,step-11,step-12,+7"},
		"each after all before": {func(i int) []string {
			names := []string{}
			for before := range i {
				names = append(names, fmt.Sprintf("step-%d", before))
			}
			return names
		}, "100", "step-1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var names []string
			for i := range 100 {
				names = append(names, fmt.Sprintf("step-%d", i))
			}
			task := echoTask(cluster.NewNamespace(t, "privileged"), "made", names...)
			first := 0
			for i := range task.Spec.Steps {
				task.Spec.Steps[i].DependsOn = c.dependsOn(i)
				if i == first && len(c.dependsOn(i)) == 0 {
					first++
				}
			}
			cluster.Make(t, task)
			pod := awaitPod(t, task)
			bind(t, pod)
			states := make([]corev1.ContainerState, 100)
			output := strings.Repeat("x", 1500)
			for i := range states {
				states[i] = running()
			}
			all := recorded(contract.Record{
				StartedAt: new(time.Now()), Message: strings.Repeat("m", 1500), OutputKeys: []string{"KEY", "CUT"}, Outputs: map[string]string{"KEY": output},
			})
			for i := range first {
				states[i] = all
			}
			setStates(t, pod, corev1.PodRunning, states...)
			if c.running != "" {
				cluster.AwaitTask(t, task, "the second stage", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == c.running })
			}
			for i := range states {
				states[i] = all
			}
			setStates(t, pod, corev1.PodRunning, states...)
			awaitTold(t, pod, told{Order: c.stages})
			status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
			last := status.Steps[99]
			if status.Progress != "100/100" || last.Outputs["KEY"] != output || !cmp.Equal(last.OmittedOutputs, []string{"CUT"}) {
				t.Errorf("progress %s, the last step %+v", status.Progress, last)
			}
		})
	}
}
