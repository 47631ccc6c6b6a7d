//go:build e2e

package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TestRunsWhileALaterImageIsMissing proves that a Task is Running while a step runs, although its Pod is Pending because a later image can't be
// pulled, and that the step has its start meanwhile.
func TestRunsWhileALaterImageIsMissing(t *testing.T) {
	t.Parallel()
	last := corev1.Container{Name: "last", Image: "docker.io/taskflow/nowhere:1", Command: []string{"x"}}
	task := newTask(newNamespace(t, "baseline"), "later", shell("first", "true"), shell("second", "sleep 300"), last)
	create(t, task)
	status := awaitTask(t, task, "the second step to run", func(s v1alpha1.TaskStatus) bool {
		return len(s.Steps) == 3 && s.Steps[1].State == v1alpha1.StepRunning
	})
	if diff := cmp.Diff(v1alpha1.TaskRunning, status.Phase); diff != "" {
		t.Errorf("the phase (-want +got):\n%s", diff)
	}
	first, second := status.Steps[0], status.Steps[1]
	if first.Duration == "" || second.StartedAt == nil || first.FinishedAt == nil || second.StartedAt.Before(first.FinishedAt) {
		t.Errorf("the steps are %+v", status.Steps)
	}
	var pod corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &pod); err != nil {
		t.Fatal(err)
	}
	if pod.Status.Phase != corev1.PodPending {
		t.Errorf("the Pod is %s, which proves nothing", pod.Status.Phase)
	}
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonStepRunning, `step "second" runs`)
}
