//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestTimeoutWithoutRunning proves that spec.timeout counts while a Task's Pod is refused, has no node, or runs. The Task fails soon after
// the timeout, and its Pod is deleted or told to end.
func TestTimeoutWithoutRunning(t *testing.T) {
	const timeout = 4 * time.Second
	message := "DeadlineExceeded: the Task took longer than spec.timeout, which is 4s"
	timedTask := func(t *testing.T, namespace string, timeout time.Duration) *v1alpha1.Task {
		t.Helper()
		task := echoTask(namespace, "made", "a", "b")
		task.Spec.Timeout, task.Spec.BackoffLimit = &metav1.Duration{Duration: timeout}, 3
		cluster.Make(t, task)
		return task
	}
	skipped := []string{"a Skipped Skipped", "b Skipped Skipped"}
	t.Run("a quota refuses the Pod", func(t *testing.T) {
		t.Parallel()
		namespace := cluster.NewNamespace(t, "privileged")
		quota := &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: namespace},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
		}
		cluster.Make(t, quota)
		quota.Status.Hard = quota.Spec.Hard // this cluster has no quota controller
		quota.Status.Used = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
		if err := cluster.Status().Update(t.Context(), quota); err != nil {
			t.Fatal(err)
		}
		const timeout = 16 * time.Second // the back-off retries after 15 and 31 seconds
		task := timedTask(t, namespace, timeout)
		refused := cluster.AwaitTask(t, task, "the refusal", func(s v1alpha1.TaskStatus) bool {
			condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
			return condition != nil && condition.Reason == v1alpha1.ReasonPodRefused
		})
		message := "DeadlineExceeded: the Task took longer than spec.timeout, which is 16s; it waited for: " +
			meta.FindStatusCondition(refused.Conditions, v1alpha1.ConditionProgressing).Message
		assertOutcome(t, task, outcome{Phase: v1alpha1.TaskFailed, Failed: message, Steps: skipped})
		wantNoPod(t, task)
		if took := task.Status.CompletionTime.Sub(task.Status.StartTime.Time); took < timeout || took > timeout+10*time.Second {
			t.Errorf("it failed after %s, and its timeout is %s", took, timeout)
		}
	})
	t.Run("no node takes the Pod", func(t *testing.T) {
		t.Parallel()
		task := timedTask(t, cluster.NewNamespace(t, "privileged"), timeout)
		awaitPod(t, task)
		assertOutcome(t, task, outcome{
			Phase: v1alpha1.TaskFailed, Failed: message + `; the Pod "made" was deleted, because no node had taken it`, Steps: skipped,
		})
		wantNoPod(t, task)
	})
	t.Run("a step runs", func(t *testing.T) {
		t.Parallel()
		task := timedTask(t, cluster.NewNamespace(t, "privileged"), timeout)
		pod := awaitPod(t, task)
		bind(t, pod)
		setStates(t, pod, corev1.PodRunning, running(), running())
		wait.For(t, "the Pod to be told to end", func(ctx context.Context) error {
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if got := ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0); got != 1 {
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
		setStates(t, pod, corev1.PodFailed, ended(143), ended(143))
		writeStatus(t, pod, func(pod *corev1.Pod) { pod.Status.Reason = "DeadlineExceeded" })
		status := cluster.AwaitTask(t, task, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
		failed := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
		if failed == nil || failed.Reason+": "+failed.Message != message || len(status.Attempts) > 0 {
			t.Errorf("the status at the end is %+v", status)
		}
	})
	t.Run("it is suspended", func(t *testing.T) {
		t.Parallel()
		task := echoTask(cluster.NewNamespace(t, "privileged"), "made", "a")
		task.Spec.Timeout, task.Spec.Suspend = &metav1.Duration{Duration: time.Second}, true
		cluster.Make(t, task)
		cluster.AwaitTask(t, task, "the suspension", harness.InPhase(v1alpha1.TaskSuspended))
		wait.For(t, "its timeout to pass", func(ctx context.Context) error {
			if time.Since(task.CreationTimestamp.Time) < 3*time.Second {
				return errors.New("not yet")
			}
			return cluster.Get(ctx, client.ObjectKeyFromObject(task), task)
		})
		if task.Status.StartTime != nil || task.Status.Phase != v1alpha1.TaskSuspended {
			t.Errorf("the status is %+v", task.Status)
		}
	})
}
