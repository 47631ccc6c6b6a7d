//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/node"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// held is the beginning of a script that waits until the test makes the file "go" in the directory of sharedDir.
const held = "until test -e /journal/go; do sleep 0.1; done; "

func letGo(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBranchFails proves that the failure of a step lets the steps beside it run to their end, that no further step starts, and that the Task fails
// when all has ended. The final step is told the name of the failed step.
func TestBranchFails(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fails     v1alpha1.Step
		beside    string // what the other step does in the end
		meanwhile func(*testing.T, *v1alpha1.Task)
		failed    string // the line of the failed step
		other     string // the line of the step beside it
	}{
		"exit code": {
			fails: step("fails", meets("fails", "beside")+"; exit 3", options{}), beside: "true",
			failed: "fails Failed Error 3", other: "beside Succeeded Completed 0",
		},
		"both": {
			fails: step("fails", meets("fails", "beside")+"; exit 3", options{}), beside: "exit 4",
			failed: "fails Failed Error 3", other: "beside Failed Error 4",
		},
		"killed with its agent": {
			fails:     step("fails", meets("fails", "beside")+"; sleep 4321", options{}),
			beside:    "until test -s /etc/podinfo/halt; do sleep 0.1; done", // the killed agent left no record
			meanwhile: func(t *testing.T, task *v1alpha1.Task) { killAgentOf(t, task, "sleep\x004321") },
			failed:    "fails Failed Error 137", other: "beside Succeeded Completed 0",
		},
		"out of memory": {
			fails:  v1alpha1.Step{Container: withMemory(step("fails", meets("fails", "beside")+"; tail /dev/zero", options{}).Container, "24Mi")},
			beside: "true",
			failed: "fails Failed OOMKilled 137", other: "beside Succeeded Completed 0",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(cluster.NewNamespace(t, "privileged"), "branches")
			var dir string
			dir, task.Spec.Template = sharedDir(t)
			task.Spec.Steps = []v1alpha1.Step{
				test.fails,
				step("beside", meets("beside", "fails")+"; "+held+test.beside, options{DependsOn: alone}),
				step("next", "touch /journal/next", options{}),
				finalStep("last", "true", options{}),
			}
			cluster.Make(t, task)
			if test.meanwhile != nil {
				test.meanwhile(t, task)
			}
			status := cluster.AwaitTask(t, task, "the failure, while another step runs", func(status v1alpha1.TaskStatus) bool {
				return len(status.Steps) > 0 && status.Steps[0].State == v1alpha1.StepFailed
			})
			if diff := cmp.Diff([]string{"Running", "Running"}, []string{string(status.Phase), string(status.Steps[1].State)}); diff != "" {
				t.Errorf("the Task and the other step after the failure (-want +got):\n%s\n%+v", diff, status)
			}
			letGo(t, dir)
			status = cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskFailed))
			want := []string{test.failed, test.other, "next Skipped Skipped", "last Succeeded Completed 0"}
			if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonStepFailed, `step "fails" failed`)
			if diff := cmp.Diff("Failed [fails]\n", cluster.Log(t, task.Namespace, task.Name, "last")); diff != "" {
				t.Errorf("what the final step was told (-want +got):\n%s", diff)
			}
			if _, err := os.Stat(filepath.Join(dir, "next")); err == nil {
				t.Error("a step began after the failure")
			}
		})
	}
}

// killAgentOf kills the agent of the command that has this process among its own.
func killAgentOf(t *testing.T, task *v1alpha1.Task, part string) {
	t.Helper()
	var pid int
	wait.For(t, "the command", func(ctx context.Context) (err error) {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
			return err
		}
		pid, err = node.FindProcess(pod.UID, part)
		return err
	})
	for {
		name, parent := processOf(t, pid)
		if strings.HasPrefix(name, contract.AgentTitle) {
			break
		}
		pid = parent
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// processOf returns the name and the parent of a process (proc_pid_status(5)).
func processOf(t *testing.T, pid int) (name string, parent int) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t"); key {
		case "Name":
			name = value
		case "PPid":
			if parent, err = strconv.Atoi(value); err != nil || parent <= 1 {
				t.Fatalf("process %d has the parent %q", pid, value)
			}
		}
	}
	return name, parent
}

// TestBranchIsEvicted proves that the eviction of a Pod ends all of its steps, and that no further and no final step runs.
func TestBranchIsEvicted(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "privileged"), "evicted")
	var dir string
	dir, task.Spec.Template = sharedDir(t)
	task.Spec.Steps = []v1alpha1.Step{
		step("fills", meets("fills", "beside")+"; head -c 20000000 /dev/zero >/tmp/too-much; sleep 1000", options{}),
		step("beside", meets("beside", "fills")+"; trap 'exit 0' TERM; while :; do sleep 0.1; done", options{DependsOn: alone}),
		step("next", "touch /journal/next", options{DependsOn: []string{"beside"}}),
		step("last", "touch /journal/last", options{Finally: true}),
	}
	task.Spec.Steps[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("8Mi")}
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskFailed))
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, "Evicted", "8Mi")
	for _, name := range []string{"next", "last"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("the step %s has run", name)
		}
	}
	if got := status.Steps[0].State; got != v1alpha1.StepFailed {
		t.Errorf("the steps are %+v", status.Steps)
	}
}

// TestBranchesRestart proves that with restartPolicy OnFailure the kubelet restarts a failed step while the step beside it runs, and that the step
// that follows both waits for them. Each command that succeeded ran once.
func TestBranchesRestart(t *testing.T) {
	t.Parallel()
	for kind, run := range forms {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var spec v1alpha1.TaskSpec
			var dir string
			dir, spec.Template = sharedDir(t)
			spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			spec.Steps = []v1alpha1.Step{
				step("again", "echo again >>/journal/runs; test $(grep -c again /journal/runs) = 2", options{}),
				step("beside", "echo beside >>/journal/runs", options{DependsOn: alone}),
				step("join", "echo join >>/journal/runs", options{DependsOn: []string{"again", "beside"}}),
			}
			object := run(cluster.NewNamespace(t, "privileged"), spec)
			if job, ok := object.(*batchv1.Job); ok {
				job.Spec.BackoffLimit = new(int32(2)) // it counts restarts
			}
			if !runsToSuccess(t, object) {
				t.Errorf("it failed: %+v", object)
			}
			runs, err := os.ReadFile(filepath.Join(dir, "runs"))
			if err != nil {
				t.Fatal(err)
			}
			text := string(runs)
			counts := fmt.Sprint(strings.Count(text, "again"), strings.Count(text, "beside"), strings.Count(text, "join"))
			if diff := cmp.Diff("2 1 1", counts); diff != "" || !strings.HasSuffix(text, "join\n") {
				t.Errorf("the runs are %q (-want +got):\n%s", text, diff)
			}
		})
	}
}

func runsToSuccess(t *testing.T, object client.Object) bool {
	t.Helper()
	cluster.Make(t, object)
	return awaitEnd(t, object)
}

// TestBranchesWithHandoffController proves that steps side by side, conditions, inputs and final steps work if only the controller releases steps.
func TestBranchesWithHandoffController(t *testing.T) {
	t.Parallel()
	for kind, run := range forms {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var spec v1alpha1.TaskSpec
			_, spec.Template = sharedDir(t)
			metav1.SetMetaDataAnnotation(&spec.Template.Metadata, contract.HandoffAnnotation, contract.HandoffController)
			spec.Steps = []v1alpha1.Step{
				step("left", meets("left", "right")+"; echo SIDE=left >$TASKFLOW_OUTPUT", options{}),
				step("right", meets("right", "left")+"; exit 5", options{DependsOn: alone, OnError: v1alpha1.OnErrorContinue}),
				step("join", `echo "joined $SIDE"`, options{
					DependsOn: []string{"left", "right"},
					When:      []v1alpha1.Condition{{Step: "right", ExitCode: &v1alpha1.ExitCodeTest{In: []int32{5}}}},
					Inputs:    []v1alpha1.Input{{Step: "left", Output: "SIDE"}},
				}),
				finalStep("last", "true", options{}),
			}
			object := run(cluster.NewNamespace(t, "privileged"), spec)
			if !runsToSuccess(t, object) {
				t.Errorf("it failed: %+v", object)
			}
			pod := awaitPodOf(t, object, "the Pod to end", hasEnded)
			logs := cluster.Log(t, pod.Namespace, pod.Name, "join") + cluster.Log(t, pod.Namespace, pod.Name, "last")
			if diff := cmp.Diff("joined left\nSucceeded []\n", logs); diff != "" {
				t.Errorf("logs (-want +got):\n%s", diff)
			}
		})
	}
}
