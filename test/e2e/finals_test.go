//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// finalStep returns a step that prints what final steps are told, and then runs the script.
func finalStep(name, script string, options v1alpha1.StepOptions) v1alpha1.Step {
	options.Finally = true
	return v1alpha1.Step{Container: harness.Shell(name, tells+"; "+script), StepOptions: options}
}

// TestFinalStepsAfterEachEnding proves that final steps run after each failure of a step that leaves the Pod alive, that they are told how the
// others ended, and that the Task ends as it does without them.
func TestFinalStepsAfterEachEnding(t *testing.T) {
	t.Parallel()
	run := func(name string, test endingCase) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, journal := test.task(t, contract.DeliveryInit)
			task.Spec.Steps = append(task.Spec.Steps, finalStep("clean", "true", options{}), finalStep("notify", "true", options{}))
			test.begin(t, task)
			status := cluster.AwaitTask(t, task, "the end", func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
			got, _ := endingOf(t, status)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ending (-want +got):\n%s\n%+v", diff, status)
			}
			want := []string{"step-2 Skipped Skipped", "clean Succeeded Completed 0", "notify Succeeded Completed 0"}
			if diff := cmp.Diff(want, harness.StepLines(status.Steps[1:])); diff != "" {
				t.Errorf("the other steps (-want +got):\n%s", diff)
			}
			for _, final := range []string{"clean", "notify"} {
				if diff := cmp.Diff(test.told+"\n", cluster.Log(t, task.Namespace, task.Name, final)); diff != "" {
					t.Errorf("what %s was told (-want +got):\n%s", final, diff)
				}
			}
			if spans := readJournal(t, journal); len(spans) > 0 {
				t.Errorf("the next step has run: %v", spans)
			}
		})
	}
	for _, slow := range []bool{true, false} {
		for name, test := range endings {
			if test.slow == slow && test.told != "" {
				run(name, test)
			}
		}
	}
}

// TestFailureOfFinalSteps proves that the failure, the timeout and the retries of a final step are told, that the next final step runs
// nevertheless, and that they make a Task fail that had succeeded.
func TestFailureOfFinalSteps(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		work     string
		final    string
		options  v1alpha1.StepOptions
		lines    []string
		messages []string
	}{
		"failure after success": {
			work: "true", final: "exit 9",
			lines:    []string{"work Succeeded Completed 0", "clean Failed Error 9"},
			messages: []string{`step "clean" failed with exit code 9`},
		},
		"timeout after success": {
			work: "true", final: "sleep 1000", options: options{Timeout: &metav1.Duration{Duration: time.Second}},
			lines:    []string{"work Succeeded Completed 0", "clean Failed TimedOut 124"},
			messages: []string{`took longer than its timeout of 1s`},
		},
		"retries after success": {
			work: "true", final: "exit 9", options: options{Retries: new(int32(1))},
			lines:    []string{"work Succeeded Completed 0", "clean Failed Error 9, 1 retries"},
			messages: []string{`step "clean" failed with exit code 9`},
		},
		"failure after failure": {
			work: "exit 3", final: "exit 9",
			lines:    []string{"work Failed Error 3", "clean Failed Error 9"},
			messages: []string{`step "work" failed with exit code 3`, `step "clean" failed with exit code 9`},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "finals", harness.Shell("work", test.work))
			task.Spec.Steps = append(task.Spec.Steps, finalStep("clean", test.final, test.options), finalStep("notify", "true", options{}))
			cluster.Make(t, task)
			status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
			if diff := cmp.Diff(append(test.lines, "notify Succeeded Completed 0"), harness.StepLines(status.Steps)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			for _, message := range test.messages {
				wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonStepFailed, message)
			}
		})
	}
}

// TestCancelFinally proves that spec.cancel lets final steps run to their end, and that spec.cancelFinally ends them.
func TestCancelFinally(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "cancelled", harness.Shell("work", "sleep 1000"))
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(2))}}
	task.Spec.Steps = append(task.Spec.Steps, finalStep("first", "true", options{}), finalStep("long", "sleep 1000", options{}), finalStep("last", "true", options{}))
	cluster.Make(t, task)
	awaitFirstStep(t, task)
	cancelTask(t, task)
	status := cluster.AwaitTask(t, task, "the second final step to run", func(status v1alpha1.TaskStatus) bool {
		return status.Steps[2].State == v1alpha1.StepRunning
	})
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonFinalStepRunning, `"long"`)
	if diff := cmp.Diff([]string{"Running", "long"}, []string{string(status.Phase), status.CurrentStep}); diff != "" {
		t.Errorf("phase and current step (-want +got):\n%s", diff)
	}
	before := task.DeepCopy()
	task.Spec.CancelFinally = true
	if err := cluster.Patch(t.Context(), task, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	status = cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskCancelled))
	want := []string{"work Failed Cancelled 143", "first Succeeded Completed 0", "long Failed Cancelled 143", "last Skipped Skipped"}
	if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	for _, step := range []string{"first", "long"} {
		if diff := cmp.Diff("Cancelled []\n", cluster.Log(t, task.Namespace, task.Name, step)); diff != "" {
			t.Errorf("what %s was told (-want +got):\n%s", step, diff)
		}
	}
}

// TestFinallyTimeout proves that final steps have finallyTimeout after the Task's timeout, and no longer.
func TestFinallyTimeout(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "late", harness.Shell("work", "sleep 1000"))
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1))}}
	const finallyLimit = 15 * time.Second
	task.Spec.Timeout = &metav1.Duration{Duration: beginLimit}
	task.Spec.FinallyTimeout = &metav1.Duration{Duration: finallyLimit}
	task.Spec.Steps = append(task.Spec.Steps, finalStep("long", "sleep 1000", options{}))
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskFailed))
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonDeadlineExceeded,
		"; its final steps took longer than spec.finallyTimeout, which is 15s")
	if took := status.CompletionTime.Sub(status.StartTime.Time); took < beginLimit+finallyLimit || took > beginLimit+2*finallyLimit {
		t.Errorf("the Task took %s", took)
	}
	if got := status.Steps[1].State; got != v1alpha1.StepFailed {
		t.Errorf("the final step is %+v", status.Steps[1])
	}
}

// TestFinallyTimeoutBelowGrace proves that a Task says why its final steps did not run, if a step takes all of finallyTimeout to end.
func TestFinallyTimeoutBelowGrace(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "stubborn", harness.Shell("work", "trap '' TERM; while true; do sleep 1; done"))
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(15))}}
	task.Spec.Timeout = &metav1.Duration{Duration: beginLimit}
	task.Spec.FinallyTimeout = &metav1.Duration{Duration: 12 * time.Second}
	task.Spec.Steps = append(task.Spec.Steps, finalStep("clean", "true", options{}))
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskFailed))
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonDeadlineExceeded,
		`; the final steps did not run, because step "work" had not ended when spec.finallyTimeout (12s) was over: raise it above the Pod's grace period`)
	if got := status.Steps[1]; got.State != v1alpha1.StepSkipped {
		t.Errorf("the final step is %+v", got)
	}
}

// TestFinalStepsWithoutTheOperator proves that final steps run without the operator if all steps succeed. After a failure they wait for the operator.
// In both cases steps side by side end without it.
func TestFinalStepsWithoutTheOperator(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	tasks, dirs := map[string]*v1alpha1.Task{}, map[string]string{}
	for name, work := range map[string]string{"succeeds": "exit 0", "fails": "exit 3"} {
		task := harness.NewTask(namespace, name)
		dirs[name], task.Spec.Template = sharedDir(t)
		mark := func(name string) string { return "; touch /journal/" + name }
		last := finalStep("last", tells+" >/journal/last", options{})
		last.VolumeMounts = step("", "", options{}).VolumeMounts
		task.Spec.Steps = []v1alpha1.Step{
			step("a", held+meets("a", "b")+mark("ended-a"), options{}),
			step("b", held+meets("b", "a")+"; sleep 2"+mark("ended-b")+"; "+work, options{DependsOn: alone}),
			step("c", "true"+mark("ended-c"), options{DependsOn: []string{"a"}}),
			last,
		}
		cluster.Make(t, task)
		awaitFirstStep(t, task)
		tasks[name] = task
	}
	start := stopOperator(t)
	for _, dir := range dirs {
		letGo(t, dir)
	}
	awaitFile(t, filepath.Join(dirs["succeeds"], "last"))
	for _, mark := range []string{"ended-a", "ended-b", "ended-c"} {
		awaitFile(t, filepath.Join(dirs["fails"], mark))
	}
	if _, err := os.Stat(filepath.Join(dirs["fails"], "last")); err == nil {
		t.Error("a final step ran after a failure, although the operator was away")
	}
	start()
	for name, want := range map[string]struct{ phase, told, b string }{
		"succeeds": {"Succeeded", "Succeeded []\n", "b Succeeded Completed 0"},
		"fails":    {"Failed", "Failed [b]\n", "b Failed Error 3"},
	} {
		status := cluster.AwaitTask(t, tasks[name], "the end of "+name, func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
		got, err := os.ReadFile(filepath.Join(dirs[name], "last"))
		if diff := cmp.Diff(want.told, string(got)); diff != "" || err != nil {
			t.Errorf("%s: what the final step was told (-want +got):\n%s%v", name, diff, err)
		}
		lines := []string{want.phase, "a Succeeded Completed 0", want.b, "c Succeeded Completed 0", "last Succeeded Completed 0"}
		if diff := cmp.Diff(lines, append([]string{string(status.Phase)}, harness.StepLines(status.Steps)...)); diff != "" {
			t.Errorf("%s: phase and steps (-want +got):\n%s", name, diff)
		}
	}
}

// awaitFile waits for a file that a step makes.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	wait.For(t, "the file "+filepath.Base(path), func(context.Context) error {
		_, err := os.Stat(path)
		return err
	})
}
