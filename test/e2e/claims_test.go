//go:build e2e

package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// leaves returns a script that puts a record in the place of the first step's record, which its agent then can't replace.
func leaves(record string) string {
	return `mkdir /taskflow/run/1/.record; echo '{"taskflow":{"finishedAt":"2026-01-01T00:00:00Z",` + record + `}}' >/taskflow/run/1/record; `
}

// TestForgedEnd proves that a step can't complete its Job without the later steps: regardless of the step's record, the controller decides
// about the end of the sequence.
func TestForgedEnd(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{
		"skipped": `"exitCode":0,"reason":"Skipped","message":"forged"`,
		"failed":  `"exitCode":3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := cluster.NewNamespace(t, "baseline")
			job := newJob(namespace, contract.SequentialLabel, "true",
				harness.Shell("a", leaves(record)+"sleep 2"), harness.Shell("b", "echo b has run"), harness.Shell("c", "echo c has run"))
			cluster.Make(t, job)
			awaitJob(t, job, "the Job to complete", func() error { return jobIs(job, batchv1.JobComplete) })
			pod := podsOf(t, job)[0]
			for _, step := range []string{"b", "c"} {
				if diff := cmp.Diff(step+" has run\n", cluster.Log(t, namespace, pod.Name, step)); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestForgedSuccess proves that a step which releases the next one and then fails doesn't hide what ran: the status has that step with its
// times.
func TestForgedSuccess(t *testing.T) {
	t.Parallel()
	task, _ := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	task.Spec.Steps[0] = recordingStep(0, leaves(`"exitCode":0`)+"while ! test -e /journal/second; do sleep 0.1; done; sleep 2; exit 3")
	task.Spec.Steps[1] = recordingStep(1, "echo >/journal/second")
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
	states := []v1alpha1.StepState{status.Steps[0].State, status.Steps[1].State}
	if diff := cmp.Diff([]v1alpha1.StepState{v1alpha1.StepFailed, v1alpha1.StepSucceeded}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	second := status.Steps[1]
	if second.StartedAt == nil || second.FinishedAt == nil || second.ExitCode == nil {
		t.Errorf("the status of the second step is %+v", second)
	}
}
