package controller

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// registries answer for images whose name begins with "quick", never answer for "silent", and refuse others.
type registries struct{}

func (registries) Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error) {
	switch {
	case strings.HasPrefix(request.Image, "quick"):
		return entrypoint.Command{Entrypoint: []string{"/" + request.Image}}, nil
	case strings.HasPrefix(request.Image, "silent"):
		<-ctx.Done()
		return entrypoint.Command{}, ctx.Err()
	}
	if strings.HasPrefix(request.Image, "missing") {
		return entrypoint.Command{}, &entrypoint.Error{Image: request.Image, Reason: entrypoint.ReasonNotFound}
	}
	return entrypoint.Command{}, &entrypoint.Error{Image: request.Image, Cause: "has a cause", Remedy: "fix it"}
}

// newTestLookups returns lookups, and a channel with the names of the requeued Tasks.
func newTestLookups(now func() time.Time) (*lookups, chan string) {
	l := newLookups(registries{}, accounts{}, now)
	l.timeout = time.Hour
	requeued := make(chan string, 1000)
	l.requeue = func(request reconcile.Request) { requeued <- request.String() }
	return l, requeued
}

func lookupTask(namespace, name string, images ...string) *v1alpha1.Task {
	var containers []corev1.Container
	for i, image := range images {
		containers = append(containers, corev1.Container{Name: fmt.Sprint("step", i), Image: image})
	}
	task := newTask(containers...)
	task.Namespace, task.Name, task.UID = namespace, name, types.UID(namespace+"/"+name)
	return task
}

func await(t *testing.T, requeued <-chan string, want string) {
	t.Helper()
	select {
	case got := <-requeued:
		if got != want {
			t.Fatalf("%s is requeued, want %s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s is not requeued", want)
	}
}

// TestSilentRegistries proves that Tasks whose registries never answer delay no Task in another namespace, that asking never waits, and that
// nothing is left when the Tasks are gone.
func TestSilentRegistries(t *testing.T) {
	before := runtime.NumGoroutine()
	l, requeued := newTestLookups(time.Now)
	var flood []*v1alpha1.Task
	for i := range 100 {
		task := lookupTask("flood", fmt.Sprint("silent", i), "silent", "silent2")
		flood = append(flood, task)
		if commands, unresolved := l.of(t.Context(), task); unresolved == nil || unresolved.err != nil {
			t.Fatalf("a Task with a silent registry has the commands %v, %+v", commands, unresolved)
		}
	}
	other := lookupTask("other", "quick", "quick", "quick2", "quick")
	if _, unresolved := l.of(t.Context(), other); unresolved == nil || unresolved.pending <= 0 {
		t.Fatalf("first: %+v, want it to be pending", unresolved)
	}
	await(t, requeued, "other/quick")
	got, unresolved := l.of(t.Context(), other)
	if unresolved != nil {
		t.Fatalf("after the requeue: %+v", unresolved)
	}
	quick := podspec.Command{Command: []string{"/quick"}}
	want := map[string]podspec.Command{"step0": quick, "step1": {Command: []string{"/quick2"}}, "step2": quick}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	for _, task := range flood {
		l.forget(types.NamespacedName{Namespace: task.Namespace, Name: task.Name})
	}
	wait.For(t, "the end of the look-ups", func(context.Context) error {
		if now := runtime.NumGoroutine(); now > before {
			return fmt.Errorf("there are %d goroutines, and were %d", now, before)
		}
		return nil
	})
	if len(l.known) > 0 {
		t.Errorf("%d look-ups are left", len(l.known))
	}
}

// TestLookupRetries proves that a failed look-up is retried after a growing pause, with its error as the answer meanwhile, and that a new version
// of the Task does not wait.
func TestLookupRetries(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l, requeued := newTestLookups(func() time.Time { return now })
	task := lookupTask("default", "task", "bad", "quick")
	var pauses []time.Duration
	for range 9 {
		if _, unresolved := l.of(t.Context(), task); unresolved == nil || unresolved.pending == 0 {
			t.Fatalf("no look-up is in flight: %+v", unresolved)
		}
		await(t, requeued, "default/task")
		_, unresolved := l.of(t.Context(), task)
		if unresolved == nil || unresolved.err == nil || unresolved.err.Error() != `step "step0": image "bad" has a cause; fix it` {
			t.Fatalf("the error is %+v", unresolved)
		}
		pauses = append(pauses, unresolved.again)
		now = now.Add(unresolved.again)
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, pauses); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	now = now.Add(-time.Second)
	task.Generation++
	task.Spec.Steps[0].Image = "quick"
	if _, unresolved := l.of(t.Context(), task); unresolved == nil || unresolved.pending == 0 {
		t.Fatalf("the new version: %+v", unresolved)
	}
	await(t, requeued, "default/task")
	if _, unresolved := l.of(t.Context(), task); unresolved != nil {
		t.Errorf("the new version: %+v", unresolved)
	}
}

// TestRetryAfter proves that a registry's Retry-After overrides the pause.
func TestRetryAfter(t *testing.T) {
	busy := fmt.Errorf("step: %w", &entrypoint.Error{RetryAfter: 5 * time.Minute})
	if got := retryAfter(busy, 1); got != 5*time.Minute {
		t.Errorf("retryAfter: %s", got)
	}
	if got := retryAfter(errors.New("another"), 1_000_000); got != lastRetry {
		t.Errorf("retryAfter of many failures: %s", got)
	}
}

// TestRefusedSince proves that the time counts from the first refusal in a row. A registry that can't be reached is no refusal.
func TestRefusedSince(t *testing.T) {
	began := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	now := began
	l, requeued := newTestLookups(func() time.Time { return now })
	task := lookupTask("default", "task", "missing")
	key := types.NamespacedName{Namespace: "default", Name: "task"}
	for i, step := range []struct {
		image string
		want  time.Duration
	}{{"missing", 1}, {"missing", 10 * time.Second}, {"bad", 0}, {"missing", 1}, {"missing", 10 * time.Second}} {
		if known := l.known[key]; known != nil {
			known.retry = now
		}
		task.Spec.Steps[0].Image = step.image
		_, _ = l.of(t.Context(), task)
		await(t, requeued, "default/task")
		_, unresolved := l.of(t.Context(), task)
		if unresolved == nil || unresolved.refused != step.want {
			t.Errorf("answer %d: %+v, want it to be refused for %s", i, unresolved, step.want)
		}
		now = now.Add(10 * time.Second)
	}
}

// TestImageOfALaterStep proves that the start grace period for an image begins with the turn of its step, regardless of how long the kubelet has
// tried before: an earlier step may push the image.
func TestImageOfALaterStep(t *testing.T) {
	const grace = time.Minute
	pull := waiting("c", "ImagePullBackOff", "not found")
	task := exampleTask(nil)
	now := lookedAt
	for _, step := range []struct {
		name  string
		pod   *corev1.Pod
		later time.Duration
		want  v1alpha1.TaskPhase
	}{
		{"before the first step", sequential(owned, onNode, containers(waiting("a", "ContainerCreating", ""), waiting("b", "ContainerCreating", ""), pull)), 0, v1alpha1.TaskRunning},
		{"while the first step waits for others", sequential(owned, onNode, order("0"), containers(running("a"), running("b"), pull)), 10 * grace, v1alpha1.TaskRunning},
		{"while the first step runs", sequential(owned, onNode, containers(running("a"), running("b"), pull)), 10 * grace, v1alpha1.TaskRunning},
		{"between the steps before it", sequential(owned, onNode, containers(succeeded("a"), waiting("b", "ContainerCreating", ""), pull)), 10 * grace, v1alpha1.TaskRunning},
		{"when its turn comes", sequential(owned, onNode, order("3"), containers(succeeded("a"), succeeded("b"), pull)), 10 * grace, v1alpha1.TaskRunning},
		{"in its time of grace", sequential(owned, onNode, order("3"), containers(succeeded("a"), succeeded("b"), pull)), grace - time.Second, v1alpha1.TaskRunning},
		{"after it", sequential(owned, onNode, order("3"), containers(succeeded("a"), succeeded("b"), pull)), time.Second, v1alpha1.TaskFailed},
	} {
		now = now.Add(step.later)
		status := statusOf(task, grace)
		look(status, step.pod, now)
		if step.later == 10*grace && status.Phase != v1alpha1.TaskFailed { // the next condition begins now
			if progress := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing); progress != nil {
				progress.LastTransitionTime.Time = now
			}
		}
		task.Status = status.TaskStatus
		if status.Phase != step.want {
			t.Errorf("%s: the Task is %s, want %s: %+v", step.name, status.Phase, step.want, status.Conditions)
		}
	}
}
