package controller

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// world is a Task, its Pods and a TaskReconciler that looks after them.
type world struct {
	t          *testing.T
	live       client.WithWatch
	reconciler *TaskReconciler
	// patchPod, if set, answers the patches of Pods.
	patchPod func() error
	// cached, if set, changes what the cache says of a Pod; false hides it.
	cached func(*corev1.Pod) bool
}

func newWorld(t *testing.T, task *v1alpha1.Task, pods ...*corev1.Pod) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	objects := []client.Object{task}
	for _, pod := range pods {
		objects = append(objects, pod)
	}
	w := &world{t: t, live: fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(task).WithObjects(objects...).Build()}
	cached := interceptor.NewClient(w.live, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if err := c.Get(ctx, key, object, options...); err != nil {
				return err
			}
			if pod, is := object.(*corev1.Pod); is && w.cached != nil && !w.cached(pod) {
				return apierrors.NewNotFound(corev1.Resource("pods"), key.Name)
			}
			return nil
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if w.patchPod != nil {
				if err := w.patchPod(); err != nil {
					return err
				}
			}
			err := c.Patch(ctx, object, patch, options...)
			if err != nil && strings.Contains(err.Error(), "test failed") { // as the API server says it
				return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
			}
			return err
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			if pod, is := object.(*corev1.Pod); is { // as the webhook leaves it
				metav1.SetMetaDataLabel(&pod.ObjectMeta, contract.SequentialLabel, "true")
				metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.OrderAnnotation, "1")
			}
			return c.Create(ctx, object, options...)
		},
	})
	w.reconciler = &TaskReconciler{
		Client: cached, Live: w.live, Events: events.NewFakeRecorder(100), StartGrace: 5 * time.Minute,
		Now: func() time.Time { return lookedAt },
	}
	w.reconciler.lookups = newLookups(permanentFailure{}, w.live, w.reconciler.Now)
	return w
}

// reconcile lets the controller look at the Task once.
func (w *world) reconcile() (ctrl.Result, error) {
	w.t.Helper()
	return w.reconciler.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "default", Name: "example"}})
}

func (w *world) task() *v1alpha1.Task {
	w.t.Helper()
	var task v1alpha1.Task
	if err := w.live.Get(w.t.Context(), client.ObjectKey{Namespace: "default", Name: "example"}, &task); err != nil {
		w.t.Fatal(err)
	}
	return &task
}

// pod returns nil if there is none.
func (w *world) pod(name string) *corev1.Pod {
	w.t.Helper()
	var pod corev1.Pod
	err := w.live.Get(w.t.Context(), client.ObjectKey{Namespace: "default", Name: name}, &pod)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return &pod
}

// exampleTask has the steps of sequential, which is its Pod if owned is among the edits.
func exampleTask(edit func(*v1alpha1.Task)) *v1alpha1.Task {
	task := newTask(corev1.Container{Name: "a", Command: []string{"x"}}, corev1.Container{Name: "b", Command: []string{"x"}}, corev1.Container{Name: "c", Command: []string{"x"}})
	task.Name, task.Namespace, task.UID = "example", "default", "task"
	if edit != nil {
		edit(task)
	}
	return task
}

func owned(pod *corev1.Pod) {
	markOwner(pod, exampleTask(nil))
	metav1.SetMetaDataLabel(&pod.ObjectMeta, contract.SequentialLabel, "true")
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(exampleTask(nil), v1alpha1.TaskKind)}
}

func named(name string) edit { return func(pod *corev1.Pod) { pod.Name = name } }

func onNode(pod *corev1.Pod) { pod.Spec.NodeName = "node" }

func unboundPod(pod *corev1.Pod) { pod.Status = corev1.PodStatus{Phase: corev1.PodPending} }

func cancel(task *v1alpha1.Task) { task.Spec.Cancel = true }

// hasPod is a Task whose status knows of its Pod.
func hasPod(task *v1alpha1.Task) {
	task.Status.PodName, task.Status.Attempt, task.Status.Phase = "example", 1, v1alpha1.TaskRunning
	task.Status.StartTime = &metav1.Time{Time: created}
}

// TestEndIsToldFirst proves that the status says an end only after the Pod has been halted, for every way to fail beside a Pod that runs
// on: nobody looks at the Pod of an attempt that has ended.
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
		"somebody has changed the steps": {
			hasPod, sequential(owned, onNode, annotated(contract.StepsAnnotation, "a,b"), containers(running("a"), running("b"), running("c"))),
			`the annotation taskflow.practice.com/steps of the Pod "example" was changed`,
		},
		"a container can't start": {
			hasPod, sequential(owned, onNode, phase(corev1.PodPending), containers(waiting("a", "InvalidImageName", "why"), running("b"), running("c"))),
			`container "a" can't start: why`,
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
				t.Errorf("Reconcile returns %v, so nobody tries again", err)
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

// TestHaltIsKept proves that a Pod that somebody has halted meanwhile keeps that halt, and counts as told; and that one whose annotations
// are gone is halted all the same.
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

// TestEndWithoutPodLooksLive proves that a Task doesn't end, and isn't suspended, without its Pod if only the cache has none.
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

// TestUnboundPodIsRemoved proves that a Pod which no node has taken is deleted at the end of its attempt, and one that a node has just taken
// is not: it is halted.
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
			t.Errorf("Reconcile returns %v, %v, so nobody looks again", result, err)
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

// TestNextAttemptWaits proves that the Pod of the next attempt isn't created while the failed one may still run something, and that the
// Task says what it waits for.
func TestNextAttemptWaits(t *testing.T) {
	retrying := func(task *v1alpha1.Task) {
		task.Spec.BackoffLimit = 1
		task.Status.StartTime, task.Status.Attempt, task.Status.Phase = &metav1.Time{Time: created}, 2, v1alpha1.TaskPending
		task.Status.Attempts = []v1alpha1.AttemptStatus{{PodName: "example", CompletionTime: metav1.Time{Time: ended}, Reason: "StepFailed"}}
	}
	failed := []edit{owned, onNode, halt("why"), containers(failedWith("a", 3), skipped("b"), skipped("c"))}
	deletedAt := func(at time.Time) edit {
		return func(pod *corev1.Pod) {
			pod.DeletionTimestamp, pod.Finalizers = &metav1.Time{Time: at}, []string{"example.com/keep"}
		}
	}
	proxied := containers(failedWith("a", 3), skipped("b"), skipped("c"), running("proxy"))
	const waits = `PodTerminating: the next Pod is created when the failed Pod "example" has ended`
	cases := map[string]struct {
		pod   *corev1.Pod
		want  string // the condition Progressing; empty: the next Pod is there
		ended bool   // the old Pod is
		again time.Duration
	}{
		"its sidecars are being stopped": {pod: sequential(failed...), want: "True " + waits},
		"it is being deleted":            {pod: sequential(append(failed, deletedAt(lookedAt.Add(30*time.Second)))...), want: "True " + waits, again: 30 * time.Second},
		"its node is lost": {
			pod: sequential(append(failed, deletedAt(lookedAt.Add(-time.Minute)))...),
			want: "False " + waits + `: its grace period ended at 2026-03-01T12:02:00Z, and its node "node" has not confirmed the end; ` +
				"if the node is lost, delete the Node, or delete the Pod with --force",
		},
		"what is no step runs on":     {pod: sequential(append(failed, proxied)...), want: "True " + waits, ended: true},
		"it has ended":                {pod: sequential(append(failed, phase(corev1.PodFailed))...), again: startPatience},
		"it is gone":                  {pod: sequential(owned, named("another")), again: startPatience},
		"it is another's by now":      {pod: sequential(onNode), again: startPatience},
		"it was gone, says the cache": {pod: sequential(failed...), want: "True " + waits},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(retrying), c.pod)
			if name == "it was gone, says the cache" {
				w.cached = func(*corev1.Pod) bool { return false }
			}
			result, err := w.reconcile()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if progressing := meta.FindStatusCondition(w.task().Status.Conditions, v1alpha1.ConditionProgressing); c.want != "" && progressing != nil {
				got = string(progressing.Status) + " " + progressing.Reason + ": " + progressing.Message
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the condition Progressing (-want +got):\n%s", diff)
			}
			if there := w.pod("example-retry-1") != nil; there != (c.want == "") {
				t.Errorf("the next Pod is there: %t", there)
			}
			if old := w.pod("example"); old != nil && (old.Spec.ActiveDeadlineSeconds != nil) != c.ended {
				t.Errorf("the deadline of the failed Pod is %v", old.Spec.ActiveDeadlineSeconds)
			}
			if result.RequeueAfter != c.again {
				t.Errorf("it is looked at again after %s, want %s", result.RequeueAfter, c.again)
			}
		})
	}
}
