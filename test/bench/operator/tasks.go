package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

const (
	steps = 3
	// creators create Tasks at the same time.
	creators = 8
	// patience bounds the time for any number of Tasks.
	patience = 40 * time.Minute
	// longestPause bounds the time without progress.
	longestPause = 2 * time.Minute
	// heldAnnotation of a Pod keeps it at its first step (kubelet.yaml).
	heldAnnotation = "bench/held"
	waveLabel      = "bench/wave"
)

// waveLabels are the labels of the Tasks that run to their end, and of all such Pods.
var waveLabels = map[string]string{waveLabel: "true"}

// newTask returns a Task like the one in the README. It names its node, because there is no scheduler.
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

// newPod returns a Pod like a Task's, without the webhook's changes: its containers all start at once.
func newPod(name string, number int) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: taskNamespace, Labels: waveLabels}}
	pod.Spec.NodeName = nodeName(number)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	for i := range steps {
		pod.Spec.Containers = append(pod.Spec.Containers, stepContainer(i))
	}
	init := stepContainer(0)
	init.Name = "init"
	pod.Spec.InitContainers = []corev1.Container{init}
	return pod
}

// hold raises the number of live Tasks, and returns when all are at their first step.
func (c *cluster) hold(ctx context.Context, from, to int) error {
	_, err := c.follow(ctx, to-from, &v1alpha1.TaskList{}, taskIs(v1alpha1.TaskRunning), func(i int) client.Object {
		task := newTask(fmt.Sprintf("live-%d", from+i), i)
		task.Spec.Template.Metadata.Annotations = map[string]string{heldAnnotation: "true"}
		return task
	})
	if err != nil {
		return err
	}
	return eventsSettle(ctx, c.calls)
}

// warmUpCount is the number of Tasks or Pods that run before a measurement.
const warmUpCount = 20

// runner runs a number of Tasks, or of Pods, to their end: runTasks, runPods.
type runner func(ctx context.Context, count int) (took time.Duration, err error)

// warmUp runs a few Tasks or Pods to their end, and deletes them.
func (c *cluster) warmUp(ctx context.Context, run runner) error {
	if _, err := run(ctx, warmUpCount); err != nil {
		return err
	}
	if err := eventsSettle(ctx, c.calls); err != nil {
		return err
	}
	return c.deleteEnded(ctx)
}

// runTasks runs Tasks to their end, and returns how long that took, from the creation of the first to the end of the last.
func (c *cluster) runTasks(ctx context.Context, count int) (took time.Duration, err error) {
	return c.follow(ctx, count, &v1alpha1.TaskList{}, taskIs(v1alpha1.TaskSucceeded), func(i int) client.Object {
		task := newTask(fmt.Sprintf("wave-%d", i), i)
		task.Labels = waveLabels
		task.Spec.Template.Metadata.Labels = waveLabels
		return task
	})
}

// runPods does the same with Pods that don't use taskflow.
func (c *cluster) runPods(ctx context.Context, count int) (took time.Duration, err error) {
	return c.follow(ctx, count, &corev1.PodList{}, podHasSucceeded, func(i int) client.Object { return newPod(fmt.Sprintf("pod-%d", i), i) })
}

// reached reports whether an object is in the expected state. It returns an error if the object can't get there any more.
type reached func(client.Object) (bool, error)

// taskIs returns a reached for a phase.
func taskIs(phase v1alpha1.TaskPhase) reached {
	return func(object client.Object) (bool, error) {
		task, ok := object.(*v1alpha1.Task)
		if !ok || task.Status.Phase == v1alpha1.TaskFailed {
			return false, fmt.Errorf("the Task %s failed: %+v", object.GetName(), object)
		}
		return task.Status.Phase == phase, nil
	}
}

func podHasSucceeded(object client.Object) (bool, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok || pod.Status.Phase == corev1.PodFailed {
		return false, fmt.Errorf("the Pod %s failed: %+v", object.GetName(), object)
	}
	return pod.Status.Phase == corev1.PodSucceeded, nil
}

// follow creates objects, and waits until all have reached the expected state. list is an empty list of their kind.
func (c *cluster) follow(ctx context.Context, count int, list client.ObjectList, reached reached, build func(int) client.Object) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if count == 0 {
		return 0, nil
	}
	if err := c.List(ctx, list, client.Limit(1)); err != nil {
		return 0, err
	}
	watch, err := c.Watch(ctx, list, &client.ListOptions{
		Namespace: taskNamespace, Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()},
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
	missing, there := map[string]client.Object{}, 0
	stalled := time.NewTimer(longestPause)
	defer stalled.Stop()
	for there < count {
		select {
		case err := <-failed:
			return 0, err
		case <-stalled.C:
			return 0, fmt.Errorf("%d of %d have reached the expected state, and no other for %s: %s", there, count, longestPause, c.describe(ctx, missing))
		case event, ok := <-watch.ResultChan():
			if !ok {
				return 0, fmt.Errorf("%d of %d have reached the expected state when the watch ended: %w", there, count, cmp.Or(ctx.Err(), io.EOF))
			}
			object, ok := event.Object.(client.Object)
			if !ok {
				return 0, fmt.Errorf("watching: %v", event.Object)
			}
			is, err := reached(object)
			if err != nil {
				return 0, err
			}
			_, waits := missing[object.GetName()]
			switch {
			case event.Type == apiwatch.Added || waits && !is:
				missing[object.GetName()] = object
			case waits:
				delete(missing, object.GetName())
				there++
				stalled.Reset(longestPause)
			}
		}
	}
	return time.Since(began), nil
}

// describe describes one of the objects, and its Pod.
func (c *cluster) describe(ctx context.Context, objects map[string]client.Object) string {
	for name, object := range objects {
		var pod corev1.Pod
		err := c.Get(ctx, client.ObjectKeyFromObject(object), &pod)
		return fmt.Sprintf("%s is %+v, and its Pod %+v %+v (%v)", name, object, pod.Annotations, pod.Status, err)
	}
	return "no other object was seen"
}

// eventsSettle waits until the operator has written its last events, which it does after all else.
func eventsSettle(ctx context.Context, called counter) error {
	last := -1.0
	return wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		calls, err := called(ctx)
		now := calls["POST events"] + calls["PATCH events"]
		settled := now == last
		last = now
		return settled, err
	})
}

// deleteEnded deletes the objects of runTasks or runPods. There is no garbage collector to delete the Pods of Tasks. Such a Pod may still
// run, because a Task ends with its last step, a moment before its Pod. The next Task of the same name would wait for a Pod that is left.
func (c *cluster) deleteEnded(ctx context.Context) error {
	for _, object := range []client.Object{&v1alpha1.Task{}, &corev1.Pod{}} {
		if err := c.DeleteAllOf(ctx, object, client.InNamespace(taskNamespace), client.HasLabels{waveLabel}, client.GracePeriodSeconds(0)); err != nil {
			return err
		}
	}
	return nil
}
