package controller

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// world is a Task, its Pods and a TaskReconciler.
type world struct {
	t          *testing.T
	live       client.WithWatch
	reconciler *TaskReconciler
	// patchPod, if set, answers the patches of Pods.
	patchPod func() error
	// cached, if set, changes what the cache says about a Pod; false hides it.
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

// reconcile reconciles the Task once.
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

// exampleTask returns a Task with the steps of sequential, which belongs to it with the edit owned.
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

// hasPod records the Pod in the status.
func hasPod(task *v1alpha1.Task) {
	task.Status.PodName, task.Status.Attempt, task.Status.Phase = "example", 1, v1alpha1.TaskRunning
	task.Status.StartTime = &metav1.Time{Time: created}
}
