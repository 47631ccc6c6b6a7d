package controller

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestEndIsToldFirst proves that the status reports an end only after the Pod has been halted, for each failure beside a running Pod. The
// controller does not look at the Pod again.
func TestEndIsToldFirst(t *testing.T) {
	cases := map[string]struct {
		task func(*v1alpha1.Task)
		pod  *corev1.Pod
		want string // the halt
	}{
		"a step failed": {
			hasPod, sequential(owned, onNode, containers(failedWith("a", 3), running("b"), running("c"))),
			`step "a" failed with exit code 3`,
		},
		"a step failed, and another attempt follows": {
			func(task *v1alpha1.Task) { hasPod(task); task.Spec.BackoffLimit = 1 },
			sequential(owned, onNode, containers(failedWith("a", 3), running("b"), running("c"))),
			`step "a" failed with exit code 3`,
		},
		"the steps were changed": {
			hasPod, sequential(owned, onNode, annotated(contract.StepsAnnotation, "a,b"), containers(running("a"), running("b"), running("c"))),
			`the annotation taskflow.practice.com/steps of the Pod "example" was changed`,
		},
		"a container can't start": {
			hasPod, sequential(owned, onNode, phase(corev1.PodPending), containers(waiting("a", "InvalidImageName", "why"), running("b"), running("c"))),
			`container "a" cannot start: why`,
		},
		"cancelled, and its steps have ended": {
			func(task *v1alpha1.Task) { hasPod(task); cancel(task) },
			sequential(owned, onNode, containers(failedWith("a", 3), succeeded("b"), succeeded("c"), running("proxy"))),
			"spec.cancel of the Task is true",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(c.task), c.pod)
			refused := errors.New("etcdserver: request timed out")
			w.patchPod = func() error { return refused }
			if _, err := w.reconcile(); !errors.Is(err, refused) {
				t.Errorf("Reconcile returns %v, so there is no retry", err)
			}
			if status := w.task().Status; finished(&status) || len(status.Attempts) > 0 {
				t.Errorf("the status says an end that the Pod doesn't know of: %+v", status)
			}
			w.patchPod = nil
			if _, err := w.reconcile(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(c.want, w.pod("example").Annotations[contract.HaltAnnotation]); diff != "" {
				t.Errorf("the halt (-want +got):\n%s", diff)
			}
			if status := w.task().Status; !finished(&status) && len(status.Attempts) == 0 {
				t.Errorf("the Pod knows of the end, and the status doesn't: %+v", status)
			}
		})
	}
}

// TestHaltIsKept proves that a Pod that was halted meanwhile keeps that halt and counts as told, and that a Pod that changed otherwise is halted.
func TestHaltIsKept(t *testing.T) {
	failed := []edit{owned, onNode, containers(failedWith("a", 3), running("b"), running("c"))}
	cases := map[string]struct {
		live edit // what the cache doesn't know of
		want string
	}{
		"halted meanwhile":          {halt("the order controller's"), "the order controller's"},
		"halted meanwhile by an id": {halt("0"), "0"},
		"the order has moved":       {order("2"), `step "a" failed with exit code 3`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(hasPod), sequential(append(failed, c.live)...))
			w.cached = func(pod *corev1.Pod) bool {
				pod.Annotations = sequential().Annotations
				return true
			}
			if _, err := w.reconcile(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, w.pod("example").Annotations[contract.HaltAnnotation]); diff != "" {
				t.Errorf("the halt (-want +got):\n%s", diff)
			}
			if status := w.task().Status; !finished(&status) {
				t.Errorf("the status is %+v", status)
			}
		})
	}
}

// TestEndWithoutPodLooksLive proves that a Task does not end, and is not suspended, if its Pod is missing only in the cache.
func TestEndWithoutPodLooksLive(t *testing.T) {
	for name, edit := range map[string]func(*v1alpha1.Task){
		"cancel":                     cancel,
		"suspend":                    func(task *v1alpha1.Task) { task.Spec.Suspend = true },
		"its command is unknown now": func(task *v1alpha1.Task) { task.Spec.Steps[0].Command = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(edit), sequential(owned, onNode, containers(running("a"), running("b"), running("c"))))
			requeued := make(chan struct{}, 1)
			w.reconciler.lookups.requeue = func(reconcile.Request) { requeued <- struct{}{} }
			w.cached = func(*corev1.Pod) bool { return false }
			if _, err := w.reconcile(); err != nil {
				t.Fatal(err)
			}
			if w.task().Status.PodName == "" { // the look-up has begun
				<-requeued
				if _, err := w.reconcile(); err != nil {
					t.Fatal(err)
				}
			}
			status := w.task().Status
			if finished(&status) || status.Phase != v1alpha1.TaskRunning || status.PodName != "example" {
				t.Errorf("the Pod runs, and the status is %+v", status)
			}
			wantHalt := map[bool]string{true: "spec.cancel of the Task is true"}[name == "cancel"]
			if got := w.pod("example").Annotations[contract.HaltAnnotation]; got != wantHalt {
				t.Errorf("the halt is %q, want %q", got, wantHalt)
			}
		})
	}
}

// TestUnboundPodIsRemoved proves that a Pod which no node has taken is deleted at the end of its attempt, and that a Pod which a node has just
// taken is halted instead.
func TestUnboundPodIsRemoved(t *testing.T) {
	task := exampleTask(func(task *v1alpha1.Task) { hasPod(task); cancel(task) })
	t.Run("no node", func(t *testing.T) {
		w := newWorld(t, task.DeepCopy(), sequential(owned, unboundPod))
		if _, err := w.reconcile(); err != nil {
			t.Fatal(err)
		}
		if pod := w.pod("example"); pod != nil {
			t.Errorf("the Pod is there, and starts when a node takes it: %v", pod.Annotations)
		}
		want := `spec.cancel is true; the Pod "example" was deleted, because no node had taken it`
		failed := meta.FindStatusCondition(w.task().Status.Conditions, v1alpha1.ConditionFailed)
		if failed == nil || failed.Message != want {
			t.Errorf("the condition Failed is %+v, want %q", failed, want)
		}
	})
	t.Run("no node, and halted before", func(t *testing.T) {
		w := newWorld(t, task.DeepCopy(), sequential(owned, unboundPod, halt("mine")))
		if _, err := w.reconcile(); err != nil {
			t.Fatal(err)
		}
		if pod := w.pod("example"); pod != nil {
			t.Errorf("the Pod is there, and starts when a node takes it: %v", pod.Annotations)
		}
	})
	t.Run("a node has just taken it", func(t *testing.T) {
		w := newWorld(t, task.DeepCopy(), sequential(owned, onNode))
		w.cached = func(pod *corev1.Pod) bool {
			pod.ResourceVersion, pod.Spec.NodeName = "1", ""
			unboundPod(pod)
			return true
		}
		result, err := w.reconcile()
		if err != nil || result.RequeueAfter == 0 {
			t.Errorf("Reconcile returns %v, %v, so there is no retry", result, err)
		}
		if status := w.task().Status; finished(&status) {
			t.Errorf("the Pod runs, and the status is %+v", status)
		}
		w.cached = nil
		if _, err := w.reconcile(); err != nil {
			t.Fatal(err)
		}
		if got := w.pod("example").Annotations[contract.HaltAnnotation]; got == "" {
			t.Error("the Pod isn't halted")
		}
	})
	t.Run("the status was lost", func(t *testing.T) {
		w := newWorld(t, task.DeepCopy())
		if _, err := w.reconcile(); err != nil {
			t.Fatal(err)
		}
		if status := w.task().Status; status.Phase != v1alpha1.TaskCancelled {
			t.Errorf("the phase is %s, want Cancelled", status.Phase)
		}
	})
}
