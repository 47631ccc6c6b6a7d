//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestNodeComponentsAreRestarted proves that a restart of the kubelet and of the container runtime disturbs no running step, and that each
// step runs once, in order.
func TestNodeComponentsAreRestarted(t *testing.T) {
	for _, component := range []string{"kubelet", "containerd"} {
		t.Run(component, func(t *testing.T) {
			task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 3)
			task.Spec.Steps[0] = recordingStep(0, "sleep 4")
			cluster.Make(t, task)
			cluster.AwaitTask(t, task, "the first step to run", func(status v1alpha1.TaskStatus) bool {
				return len(status.Steps) == 3 && status.Steps[0].State == v1alpha1.StepRunning
			})
			restart(t, component)
			cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
			if wrong := disorder(readJournal(t, journal), 3); len(wrong) > 0 {
				t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
			}
		})
	}
}

// restart kills a component of the test cluster, and starts it again as a developer does.
func restart(t *testing.T, component string) {
	t.Helper()
	run := func(command string) string {
		t.Helper()
		output, err := exec.CommandContext(t.Context(), "go", "run", "-C", "../cluster", ".", command).CombinedOutput()
		if err != nil && command != "status" {
			t.Fatalf("%s of the cluster: %v: %s", command, err, output)
		}
		return string(output)
	}
	var pid int
	for line := range strings.Lines(run("status")) {
		var name, state, word string
		if _, err := fmt.Sscan(line, &name, &state, &word, &pid); err == nil && name == component {
			break
		}
		pid = 0
	}
	if pid == 0 {
		t.Fatalf("%s has no process", component)
	}
	kill(t, pid)
	run("up")
}
