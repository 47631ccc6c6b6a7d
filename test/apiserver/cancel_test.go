//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestCancel proves that cancel ends a Task in every state, and that the Pod stays.
func TestCancel(t *testing.T) {
	cancel := func(t *testing.T, task *v1alpha1.Task) {
		t.Helper()
		if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true,"suspend":false}}`))); err != nil {
			t.Fatal(err)
		}
	}
	const halted = "spec.cancel of the Task is true"
	assertHalted := func(t *testing.T, pod *corev1.Pod) {
		t.Helper()
		wait.For(t, "the halt", func(ctx context.Context) error {
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if got := pod.Annotations[contract.HaltAnnotation]; got != halted || pod.DeletionTimestamp != nil {
				return fmt.Errorf("halt is %q, and the Pod is deleted: %v", got, pod.DeletionTimestamp)
			}
			return nil
		})
	}
	t.Run("while it is suspended", func(t *testing.T) {
		t.Parallel()
		task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.Suspend = true })
		cluster.AwaitTask(t, task, "the Task to be suspended", harness.InPhase(v1alpha1.TaskSuspended))
		cancel(t, task)
		assertOutcome(t, task, outcome{
			Phase: v1alpha1.TaskCancelled, Failed: "Cancelled: spec.cancel is true", Steps: []string{"a Skipped Skipped", "b Skipped Skipped"},
		})
		wantNoPod(t, task)
	})
	t.Run("from the start", func(t *testing.T) {
		t.Parallel()
		task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.Cancel = true })
		assertOutcome(t, task, outcome{
			Phase: v1alpha1.TaskCancelled, Failed: "Cancelled: spec.cancel is true", Steps: []string{"a Skipped Skipped", "b Skipped Skipped"},
		})
		wantNoPod(t, task)
	})
	t.Run("while no node takes the Pod", func(t *testing.T) {
		t.Parallel()
		task := makeTask(t)
		pod := awaitPod(t, task)
		writeStatus(t, pod, func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"}}
		})
		assertEvent(t, task, corev1.EventTypeWarning, "Unschedulable", "the Pod is unschedulable: 0/3 nodes are available")
		cancel(t, task)
		const message = `spec.cancel is true; the Pod "made" was deleted, because no node had taken it`
		assertOutcome(t, task, outcome{Phase: v1alpha1.TaskCancelled, Failed: "Cancelled: " + message, Steps: []string{"a Skipped Skipped", "b Skipped Skipped"}})
		wantNoPod(t, task)
	})
	t.Run("while its image can't be pulled", func(t *testing.T) {
		t.Parallel()
		task := makeTask(t)
		pod := awaitPod(t, task)
		setStates(t, pod, corev1.PodPending, waiting("ImagePullBackOff", "back-off"), waiting("ImagePullBackOff", "back-off"))
		cancel(t, task)
		assertOutcome(t, task, outcome{v1alpha1.TaskCancelled, "Cancelled: spec.cancel is true", []string{"a Skipped Skipped", "b Skipped Skipped"}, "1"})
		assertHalted(t, pod)
	})
	for name, policy := range map[string]corev1.RestartPolicy{"while a step runs": corev1.RestartPolicyNever, "while a step runs, OnFailure": corev1.RestartPolicyOnFailure} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := makeTask(t, func(task *v1alpha1.Task) {
				task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{RestartPolicy: policy}}
			})
			pod := awaitPod(t, task)
			setStates(t, pod, corev1.PodRunning, running(), running())
			cluster.AwaitTask(t, task, "step a", harness.InPhase(v1alpha1.TaskRunning))
			cancel(t, task)
			assertHalted(t, pod)
			cluster.AwaitTask(t, task, "the Task to say so", func(s v1alpha1.TaskStatus) bool {
				condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
				return condition != nil && condition.Reason == v1alpha1.ReasonCancelled && s.CompletionTime == nil
			})
			skipped := recorded(contract.Record{Reason: contract.ReasonSkipped})
			setStates(t, pod, corev1.PodRunning, running(), skipped)
			setStates(t, pod, corev1.PodRunning, recorded(contract.Record{StartedAt: new(time.Now()), ExitCode: 143, Reason: contract.ReasonCancelled}), skipped)
			assertOutcome(t, task, outcome{
				v1alpha1.TaskCancelled, "Cancelled: spec.cancel is true", []string{"a Failed Cancelled 143", "b Skipped Skipped"}, "1",
			})
		})
	}
	t.Run("after its steps have ended", func(t *testing.T) {
		t.Parallel()
		task := makeTask(t)
		pod := awaitPod(t, task)
		setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0))
		before := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
		cancel(t, task)
		other := makeTask(t, func(task *v1alpha1.Task) { task.Spec.Cancel = true }) // once this Task has ended, the operator has seen the other one, too
		cluster.AwaitTask(t, other, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, task.Status); diff != "" {
			t.Errorf("the status has changed (-before +after):\n%s", diff)
		}
	})
}

// TestCancelBetweenAttempts proves that a cancelled Task gets no other Pod while it waits for its next attempt.
func TestCancelBetweenAttempts(t *testing.T) {
	t.Parallel()
	task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.BackoffLimit = 5 })
	setStates(t, awaitPod(t, task), corev1.PodFailed, ended(3), ended(0))
	cluster.AwaitTask(t, task, "the first failure", func(s v1alpha1.TaskStatus) bool { return len(s.Attempts) == 1 })
	if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))); err != nil {
		t.Fatal(err)
	}
	status := cluster.AwaitTask(t, task, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
	if status.Phase != v1alpha1.TaskCancelled || len(status.Attempts) != 1 {
		t.Errorf("the status at the end is %+v", status)
	}
}
