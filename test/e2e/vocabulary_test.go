//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// vocabularyCase is steps, and what comes of them in each form.
type vocabularyCase struct {
	steps []v1alpha1.Step
	fails bool
	// logs are those of the steps that matter.
	logs map[string]string
	// lines are the steps in the status of the Task.
	lines []string
	// codes are the exit codes of the containers, by their names, in the Pod and in the Pod of the Job.
	codes string
	// message is a part of what the Task says in the end.
	message string
}

// TestVocabulary proves that what a step can have means the same in a Task, on a labelled Pod and on the template of a Job.
func TestVocabulary(t *testing.T) {
	t.Parallel()
	for name, test := range vocabulary {
		for kind, run := range forms {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				spec := v1alpha1.TaskSpec{Steps: test.steps}
				_, spec.Template = sharedDir(t)
				object := run(cluster.NewNamespace(t, "privileged"), spec)
				cluster.Make(t, object)
				succeeded := awaitEnd(t, object)
				pod := awaitPodOf(t, object, "the Pod to end", hasEnded)
				if diff := cmp.Diff(!test.fails, succeeded); diff != "" {
					t.Errorf("success (-want +got):\n%s", diff)
				}
				for step, want := range test.logs {
					if diff := cmp.Diff(want, cluster.Log(t, pod.Namespace, pod.Name, step)); diff != "" {
						t.Errorf("log of %s (-want +got):\n%s", step, diff)
					}
				}
				if task, ok := object.(*v1alpha1.Task); ok {
					if diff := cmp.Diff(test.lines, harness.StepLines(task.Status.Steps)); diff != "" {
						t.Errorf("steps (-want +got):\n%s", diff)
					}
					wantInEnd(t, task.Status, test.message)
				} else if diff := cmp.Diff(test.codes, exitCodes(pod)); diff != "" {
					t.Errorf("exit codes (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// wantInEnd checks a part of what a Task says in the end.
func wantInEnd(t *testing.T, status v1alpha1.TaskStatus, text string) {
	t.Helper()
	condition := v1alpha1.ConditionComplete
	if meta.FindStatusCondition(status.Conditions, condition) == nil {
		condition = v1alpha1.ConditionFailed
	}
	end := meta.FindStatusCondition(status.Conditions, condition)
	if end == nil {
		t.Fatalf("the Task has not ended: %+v", status)
	}
	wantCondition(t, status, condition, end.Status, end.Reason, text)
}

// Scripts of steps.
const (
	// tells prints how the steps before a final step ended.
	tells = `echo "$TASKFLOW_STATUS [$TASKFLOW_FAILED_STEP]"`
	// counts sets $runs to how often the command of its step has run.
	counts = `echo x >>/journal/runs; runs=$(wc -l </journal/runs); `
)

// meets returns a script that ends well only while a step with the other one runs.
func meets(own, other string) string {
	return fmt.Sprintf(`touch /journal/%s; until test -e /journal/%s; do sleep 0.1; done`, own, other)
}
