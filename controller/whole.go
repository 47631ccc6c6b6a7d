package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// needsSpec reports whether the next status of a Task from the cache depends on what the cache has not kept: unless its Pod is known, its steps
// have to be named, or a Pod has to be created.
func needsSpec(task *v1alpha1.Task, pod *corev1.Pod) bool {
	isKnown := task.Status.PodName != "" && len(task.Status.Steps) > 0
	staysSuspended := pod == nil && task.Spec.Suspend && !task.Spec.Cancel && task.Status.PodName == ""
	return !podspec.IsWhole(task) && !isKnown && !staysSuspended
}

// readWhole replaces a Task from the cache with the whole one.
func (r *TaskReconciler) readWhole(ctx context.Context, task *v1alpha1.Task) error {
	var whole v1alpha1.Task
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(task), &whole); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the whole Task: %w", err)
	}
	if whole.UID != task.UID || whole.ResourceVersion != task.ResourceVersion {
		return fmt.Errorf("reading the whole Task: %w", errStale) // the cache follows
	}
	*task = whole
	return nil
}
