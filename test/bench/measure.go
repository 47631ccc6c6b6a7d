package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// patience bounds the time of one sequence.
const patience = 5 * time.Minute

// bench runs sequences in a separate namespace.
type bench struct {
	cluster   client.WithWatch
	clientset *kubernetes.Clientset // for logs
	namespace string
	count     int
}

// run creates the object, and returns the time until its Pod succeeded. It calls inspect with that Pod. Then it deletes the object and
// waits until the Pod is gone, so that each run has the node to itself.
func (b *bench) run(ctx context.Context, build func(metav1.ObjectMeta) client.Object, inspect func(*corev1.Pod) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	object := build(metav1.ObjectMeta{Name: b.nextName(), Namespace: b.namespace})
	b.count++

	watch, err := b.cluster.Watch(ctx, &corev1.PodList{}, client.InNamespace(b.namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", object.GetName())})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	start := time.Now()
	if err := b.cluster.Create(ctx, object); err != nil {
		return 0, err
	}
	var took time.Duration
	for took == 0 {
		event, ok := <-watch.ResultChan()
		if !ok {
			return 0, fmt.Errorf("%s didn't end: %w", object.GetName(), ctx.Err())
		}
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		switch pod.Status.Phase {
		case corev1.PodFailed:
			return 0, fmt.Errorf("the Pod %s failed: %+v", pod.Name, pod.Status)
		case corev1.PodSucceeded:
			took = time.Since(start)
			if err := inspect(pod); err != nil {
				return 0, err
			}
		}
	}
	if err := b.cluster.Delete(ctx, object); err != nil {
		return 0, err
	}
	for {
		event, ok := <-watch.ResultChan()
		if !ok {
			return 0, fmt.Errorf("%s isn't deleted: %w", object.GetName(), ctx.Err())
		}
		if event.Type == "DELETED" {
			return took, nil
		}
	}
}

// nextName returns the name of the next object that run creates, and of its Pod.
func (b *bench) nextName() string {
	return fmt.Sprintf("run-%d", b.count+1)
}

// sequence measures one run of a shape.
func (b *bench) sequence(ctx context.Context, s shape, w work) (time.Duration, error) {
	took, err := b.run(ctx,
		func(meta metav1.ObjectMeta) client.Object { return s.build(meta, w) },
		func(*corev1.Pod) error { return nil })
	if err != nil {
		return 0, fmt.Errorf("%s, %d x %s: %w", s.name, w.steps, w.command, err)
	}
	return took, nil
}
