package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/contract"
)

const (
	steps = 3
	// creators create Tasks at the same time.
	creators = 8
	// patience is how long any number of Tasks may take.
	patience = 40 * time.Minute
	// heldAnnotation of a Pod keeps it at its first step (kubelet.yaml).
	heldAnnotation = "bench/held"
	waveLabel      = "bench/wave"
)

// newTask is a Task as the README has it. The node is named, since there is no scheduler.
func newTask(name string, number int) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: taskNamespace}}
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{NodeName: nodeName(number)}}
	for i := range steps {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: stepContainer(i)})
	}
	return task
}

func stepContainer(i int) corev1.Container {
	name := fmt.Sprintf("step%d", i+1)
	return corev1.Container{Name: name, Image: "busybox:1.28", Command: []string{"sh", "-c"}, Args: []string{"echo " + name}}
}

// hold brings the number of live Tasks from one number to another, and returns when all are at their first step.
func (c *cluster) hold(ctx context.Context, from, to int) error {
	_, err := c.follow(ctx, to-from, v1alpha1.TaskRunning, func(i int) *v1alpha1.Task {
		task := newTask(fmt.Sprintf("live-%d", from+i), i)
		task.Spec.Template.Metadata.Annotations = map[string]string{heldAnnotation: "true"}
		return task
	})
	if err != nil {
		return err
	}
	return c.eventsSettle(ctx)
}

// warmUp runs a few Tasks to their end.
func (c *cluster) warmUp(ctx context.Context) error {
	if _, err := c.runTasks(ctx, 20); err != nil {
		return err
	}
	if err := c.eventsSettle(ctx); err != nil {
		return err
	}
	return c.deleteTasks(ctx)
}

// runTasks runs Tasks to their end, and returns how long that took, from the creation of the first to the end of the last.
func (c *cluster) runTasks(ctx context.Context, count int) (took time.Duration, err error) {
	return c.follow(ctx, count, v1alpha1.TaskSucceeded, func(i int) *v1alpha1.Task {
		task := newTask(fmt.Sprintf("wave-%d", i), i)
		task.Labels = map[string]string{waveLabel: "true"}
		return task
	})
}

// follow creates Tasks and waits until all are in a phase.
func (c *cluster) follow(ctx context.Context, count int, phase v1alpha1.TaskPhase, build func(int) *v1alpha1.Task) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if count == 0 {
		return 0, nil
	}
	var none v1alpha1.TaskList
	if err := c.List(ctx, &none, client.Limit(1)); err != nil {
		return 0, err
	}
	watch, err := c.Watch(ctx, &v1alpha1.TaskList{}, &client.ListOptions{
		Namespace: taskNamespace, Raw: &metav1.ListOptions{ResourceVersion: none.ResourceVersion},
	})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()

	began := time.Now()
	var group sync.WaitGroup
	failed := make(chan error, creators)
	for worker := range creators {
		group.Go(func() {
			for i := worker; i < count; i += creators {
				if err := c.Create(ctx, build(i)); err != nil {
					failed <- err
					cancel()
					return
				}
			}
		})
	}
	defer group.Wait()
	reached := map[string]bool{}
	for len(reached) < count {
		select {
		case err := <-failed:
			return 0, err
		case event, ok := <-watch.ResultChan():
			if !ok {
				return 0, fmt.Errorf("%d of %d Tasks are %s: %w", len(reached), count, phase, ctx.Err())
			}
			task, ok := event.Object.(*v1alpha1.Task)
			if !ok {
				return 0, fmt.Errorf("watching Tasks: %v", event.Object)
			}
			switch task.Status.Phase {
			case phase:
				reached[task.Name] = true
			case v1alpha1.TaskFailed:
				return 0, fmt.Errorf("the Task %s has failed: %+v", task.Name, task.Status)
			}
		}
	}
	return time.Since(began), nil
}

// eventsSettle waits until the operator has written its last events: they come behind.
func (c *cluster) eventsSettle(ctx context.Context) error {
	last := -1.0
	return wait.PollUntilContextTimeout(ctx, 2*time.Second, patience, true, func(ctx context.Context) (bool, error) {
		calls, err := c.calls(ctx)
		now := calls["POST events"] + calls["PATCH events"]
		settled := now == last
		last = now
		return settled, err
	})
}

// deleteTasks removes those that runTasks has made, with their Pods, of which nobody else would.
func (c *cluster) deleteTasks(ctx context.Context) error {
	if err := c.DeleteAllOf(ctx, &v1alpha1.Task{}, client.InNamespace(taskNamespace), client.HasLabels{waveLabel}); err != nil {
		return err
	}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(taskNamespace), client.HasLabels{contract.TaskLabel}); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodSucceeded {
			continue
		}
		if err := c.Delete(ctx, &pod, client.GracePeriodSeconds(0)); err != nil {
			return err
		}
	}
	return nil
}
