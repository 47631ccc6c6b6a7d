//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestBackoffLimit proves that another Pod follows a failed one after a pause, as often as backoffLimit allows. The earlier Pods stay, and
// the status lists them.
func TestBackoffLimit(t *testing.T) {
	t.Parallel()
	task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.BackoffLimit = 1 })
	first := awaitPod(t, task)
	setStates(t, first, corev1.PodRunning, ended(3), running())
	retrying := cluster.AwaitTask(t, task, "the first failure", func(s v1alpha1.TaskStatus) bool { return len(s.Attempts) == 1 })
	const message = `step "a" failed with exit code 3`
	failedAt := retrying.Attempts[0].CompletionTime
	want := []v1alpha1.AttemptStatus{{PodName: "made", CompletionTime: failedAt, Reason: v1alpha1.ReasonStepFailed, Message: message}}
	if diff := cmp.Diff(want, retrying.Attempts); diff != "" {
		t.Errorf("the attempts (-want +got):\n%s", diff)
	}
	progressing := meta.FindStatusCondition(retrying.Conditions, v1alpha1.ConditionProgressing)
	due := failedAt.Add(10 * time.Second)
	wantCondition := fmt.Sprintf(`Retrying: the Pod "made" failed, and the next one is created at %s: %s`, due.UTC().Format(time.TimeOnly), message)
	if diff := cmp.Diff(wantCondition, progressing.Reason+": "+progressing.Message); diff != "" {
		t.Errorf("the condition Progressing (-want +got):\n%s", diff)
	}
	if retrying.Phase != v1alpha1.TaskPending || retrying.Attempt != 2 || retrying.PodName != "" || retrying.Progress != "0/2" || retrying.CompletionTime != nil {
		t.Errorf("the status between two attempts is %+v", retrying)
	}
	assertEvent(t, task, corev1.EventTypeWarning, v1alpha1.ReasonRetrying, progressing.Message)

	const ending = `the next Pod is created when the failed Pod "made" has ended`
	cluster.AwaitTask(t, task, "the first Pod to be waited for", func(s v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
		return condition.Reason == v1alpha1.ReasonPodTerminating && condition.Message == ending && condition.Status == metav1.ConditionTrue
	})
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(first), first); err != nil {
		t.Fatal(err)
	}
	setStates(t, first, corev1.PodFailed, ended(3), recorded(contract.Record{Reason: contract.ReasonSkipped}))

	var second corev1.Pod
	wait.For(t, "the second Pod", func(ctx context.Context) error {
		return cluster.Get(ctx, client.ObjectKey{Namespace: task.Namespace, Name: "made-retry-1"}, &second)
	})
	if second.CreationTimestamp.Time.Before(due) {
		t.Errorf("the second Pod is of %s, and was due at %s", second.CreationTimestamp, due)
	}
	if diff := cmp.Diff(map[string]string{contract.StepsAnnotation: "a,b", contract.OrderAnnotation: "1", contract.TaskUIDAnnotation: string(task.UID)}, second.Annotations); diff != "" {
		t.Errorf("the annotations of the second Pod (-want +got):\n%s", diff)
	}
	assertEvent(t, task, corev1.EventTypeNormal, v1alpha1.ReasonPodCreated, `created the Pod "made-retry-1"`)
	setStates(t, &second, corev1.PodRunning, ended(0), running())
	awaitOrder(t, &second, "2")
	setStates(t, &second, corev1.PodRunning, ended(0), ended(4))
	status := cluster.AwaitTask(t, task, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
	failed := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
	if status.Phase != v1alpha1.TaskFailed || failed.Message != `step "b" failed with exit code 4` || status.Attempt != 2 || status.PodName != "made-retry-1" {
		t.Errorf("the status at the end is %+v", status)
	}
	if diff := cmp.Diff(want, status.Attempts); diff != "" {
		t.Errorf("the attempts at the end (-want +got):\n%s", diff)
	}
	if first.CreationTimestamp.Before(status.StartTime) || first.CreationTimestamp.Sub(status.StartTime.Time) > 5*time.Second {
		t.Errorf("the Task started at %s, and its first Pod was created at %s", status.StartTime, first.CreationTimestamp)
	}
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(first), first); err != nil {
		t.Errorf("the first Pod is gone: %v", err)
	}
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: task.Namespace, Name: "made-retry-2"}, &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("there is a third Pod: %v", err)
	}
}

// TestTTL proves that a Task is deleted when ttlSecondsAfterFinished has passed since its end, and not before.
func TestTTL(t *testing.T) {
	for name, ttl := range map[string]int32{"at once": 0, "two seconds": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.TTLSecondsAfterFinished = &ttl })
			keep := makeTask(t)
			for _, task := range []*v1alpha1.Task{task, keep} {
				setStates(t, awaitPod(t, task), corev1.PodSucceeded, ended(0), ended(0))
			}
			var completed time.Time
			wait.For(t, "the Task to go", func(ctx context.Context) error {
				err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task)
				if apierrors.IsNotFound(err) {
					return nil
				}
				if err != nil {
					return err
				}
				if task.Status.CompletionTime != nil {
					completed = task.Status.CompletionTime.Time
				}
				return errors.New("it is there")
			})
			if lived := time.Since(completed); ttl > 0 && (completed.IsZero() || lived < time.Duration(ttl)*time.Second) {
				t.Errorf("it ended at %s and lived for %s after it, and was to live for %d s", completed, lived, ttl)
			}
			cluster.AwaitTask(t, keep, "the Task without one", harness.InPhase(v1alpha1.TaskSucceeded))
		})
	}
}
