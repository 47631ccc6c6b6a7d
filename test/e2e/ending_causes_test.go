//go:build e2e

package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// slot is an extended resource of which the node has one.
const slot = corev1.ResourceName("e2e.taskflow.practice.com/slot")

func addSlot(t *testing.T) {
	t.Helper()
	var nodes corev1.NodeList
	if err := cluster.List(t.Context(), &nodes); err != nil {
		t.Fatal(err)
	}
	node := &nodes.Items[0]
	before := node.DeepCopy()
	node.Status.Capacity[slot] = resource.MustParse("1")
	if err := cluster.Status().Patch(t.Context(), node, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the node to offer the resource", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		if _, ok := node.Status.Allocatable[slot]; !ok {
			return errors.New("it doesn't")
		}
		return nil
	})
}

// preempt creates a Pod that needs the slot of the Task's Pod and has a higher priority.
func preempt(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}, Value: 1000}
	cluster.Make(t, class)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), class); err != nil {
			t.Errorf("deleting the priority class: %v", err)
		}
	})
	container := harness.Shell("first", "true")
	container.Resources.Limits = corev1.ResourceList{slot: resource.MustParse("1")}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "goes-first", Namespace: task.Namespace},
		Spec:       corev1.PodSpec{PriorityClassName: class.Name, RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{container}},
	}
	// Admission reads the class from a cache that may be behind.
	wait.For(t, "the priority class to be known", func(ctx context.Context) error { return cluster.Create(ctx, pod) })
}

func withMemory(container corev1.Container, limit string) corev1.Container {
	container.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(limit)}
	return container
}

func cancelTask(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	before := task.DeepCopy()
	task.Spec.Cancel = true
	if err := cluster.Patch(t.Context(), task, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// killAgent kills process 1 of the Task's first step from the node, as the kernel does when a container is out of memory.
func killAgent(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	killProcess(t, client.ObjectKeyFromObject(task), firstAgent)
}

// watchSettling measures the time from the first Pod status with a step's container that ended with an error to the Task's status that
// reports it. The result is false if there was no such container.
func watchSettling(t *testing.T, task *v1alpha1.Task) func() (time.Duration, bool) {
	t.Helper()
	pods, err := cluster.Watch(t.Context(), &corev1.PodList{}, client.InNamespace(task.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := cluster.Watch(t.Context(), &v1alpha1.TaskList{}, client.InNamespace(task.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		took time.Duration
		ok   bool
	}
	results := make(chan result, 1)
	go func() {
		defer pods.Stop()
		defer tasks.Stop()
		defer close(results)
		var ended time.Time
		for {
			var event watch.Event
			var open bool
			select {
			case event, open = <-pods.ResultChan():
			case event, open = <-tasks.ResultChan():
			case <-t.Context().Done():
			}
			if !open {
				return
			}
			switch object := event.Object.(type) {
			case *corev1.Pod:
				for _, container := range object.Status.ContainerStatuses {
					if end := container.State.Terminated; end != nil && end.ExitCode != 0 && ended.IsZero() {
						ended = time.Now()
					}
				}
			case *v1alpha1.Task:
				if object.Status.CompletionTime != nil {
					results <- result{time.Since(ended), !ended.IsZero()}
					return
				}
			}
		}
	}()
	return func() (time.Duration, bool) {
		t.Helper()
		r, ok := <-results
		if !ok {
			t.Error("a watch has ended before the Task")
		}
		return r.took, r.ok
	}
}
