package controller

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// CacheOptions returns what the controllers keep in memory: Tasks, and the Pods that the webhook has mutated, without what no controller reads.
func CacheOptions() cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&v1alpha1.Task{}: {Transform: stripTask},
		&corev1.Pod{}:    {Transform: stripPod, Label: labels.SelectorFromSet(labels.Set{contract.SequentialLabel: "true"})},
	}}
}

// stripTask drops what no controller reads of a Task: most of its metadata, and the part of its spec that only the Pod is built from. It keeps the
// spec while the Pod does not exist, unless the spec is large.
func stripTask(object any) (any, error) {
	task, ok := object.(*v1alpha1.Task)
	if !ok {
		return object, nil // a tombstone
	}
	task.ManagedFields, task.Annotations, task.Labels, task.OwnerReferences = nil, nil, nil, nil
	hasPod := task.Status.PodName != "" && len(task.Status.Steps) == len(task.Spec.Steps)
	if hasPod || finished(&task.Status) || isLarger(&task.Spec, maxCachedSpec) {
		task.Spec.Steps, task.Spec.Sidecars, task.Spec.Template = nil, nil, nil
		task.Spec.StepTemplate, task.Spec.Params, task.Spec.Workspace = nil, nil, nil
	}
	return task, nil
}

// needsSpec reports whether the next status depends on what the cache dropped. It does if the steps have to be named, if a Pod has to be created, or
// if the Pod is gone: then only the spec says which steps are final.
func needsSpec(task *v1alpha1.Task, pod *corev1.Pod) bool {
	isKnown := pod != nil && task.Status.PodName != "" && len(task.Status.Steps) > 0
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

// stepNames returns the names of a Task's steps.
func stepNames(task *v1alpha1.Task) []string {
	var names []string
	for _, step := range task.Spec.Steps {
		names = append(names, step.Name)
	}
	if !podspec.IsWhole(task) {
		for _, step := range task.Status.Steps {
			names = append(names, step.Name)
		}
	}
	return names
}

// stripPod keeps what observe and the reconcilers read of a Pod.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	meta, spec, status := &pod.ObjectMeta, &pod.Spec, &pod.Status
	stripped := &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: meta.Name, Namespace: meta.Namespace, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
			CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp,
			OwnerReferences: meta.OwnerReferences, Annotations: taskflowAnnotations(pod),
		},
		Spec: corev1.PodSpec{NodeName: spec.NodeName, RestartPolicy: spec.RestartPolicy, ActiveDeadlineSeconds: spec.ActiveDeadlineSeconds},
		Status: corev1.PodStatus{
			Phase: status.Phase, StartTime: status.StartTime, Reason: status.Reason, Message: status.Message, Conditions: stripConditions(pod),
			InitContainerStatuses: stripContainers(slices.DeleteFunc(slices.Clone(status.InitContainerStatuses), hasSucceeded)),
			ContainerStatuses:     stripContainers(status.ContainerStatuses),
		},
	}
	if volume := podspec.AgentVolume(pod); volume != nil {
		stripped.Spec.Volumes = []corev1.Volume{*volume}
	}
	if isStarting(pod) { // what the Pod may wait for
		stripped.Spec.SchedulingGates = spec.SchedulingGates
		if spec.NodeName == "" {
			stripped.Spec.SchedulerName = spec.SchedulerName
		}
		stripped.Spec.InitContainers = stripSidecars(spec.InitContainers)
	}
	return stripped, nil
}

// stripSidecars keeps the names of the sidecars, and whether each has a startupProbe.
func stripSidecars(all []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, container := range all {
		if !isSidecar(container) {
			continue
		}
		stripped := corev1.Container{Name: container.Name, RestartPolicy: container.RestartPolicy}
		if container.StartupProbe != nil {
			stripped.StartupProbe = &corev1.Probe{}
		}
		kept = append(kept, stripped)
	}
	return kept
}

// stripConditions keeps the conditions that say why a Pod does not run.
func stripConditions(pod *corev1.Pod) []corev1.PodCondition {
	var kept []corev1.PodCondition
	var unstarted *corev1.PodCondition
	if isUnstarted(pod) {
		unstarted = findCondition(pod, corev1.PodReadyToStartContainers, corev1.ConditionFalse)
	}
	for _, condition := range []*corev1.PodCondition{unscheduled(pod), disruption(pod), unstarted} {
		if condition != nil {
			kept = append(kept, *condition)
		}
	}
	return kept
}

// hasSucceeded reports whether a container ended with exit code 0. No controller reads more about an init container that did.
func hasSucceeded(container corev1.ContainerStatus) bool {
	end := container.State.Terminated
	return end != nil && end.ExitCode == 0
}

// stripContainers drops the most: a kubelet reports the resources of each container, and each of its mounts.
func stripContainers(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, len(all))
	for i, container := range all {
		kept[i] = corev1.ContainerStatus{Name: container.Name, State: container.State, Ready: container.Ready, ImageID: container.ImageID, RestartCount: container.RestartCount}
		if container.State.Running != nil {
			kept[i].Started = container.Started
		}
		if container.State.Waiting != nil {
			kept[i].Image = container.Image // it may be the cause
			if end := container.LastTerminationState.Terminated; end != nil && container.State.Waiting.Reason == reasonCrashLoop {
				kept[i].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: end.ExitCode}
			}
		}
		if end := container.State.Terminated; end != nil {
			kept[i].State.Terminated = end.DeepCopy()
			kept[i].State.Terminated.ContainerID = ""
		}
	}
	return kept
}

func taskflowAnnotations(pod *corev1.Pod) map[string]string {
	if _, isMirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; isMirror {
		return nil // the webhook does not mutate the static Pods that a kubelet reports
	}
	kept := map[string]string{}
	for _, key := range []string{
		contract.OrderAnnotation, contract.HaltAnnotation, contract.HaltFinallyAnnotation, contract.CancelAnnotation, contract.OutcomeAnnotation,
		contract.StepsAnnotation, contract.OptionsAnnotation, contract.HandoffAnnotation,
		contract.TaskUIDAnnotation,
	} {
		if value, ok := pod.Annotations[key]; ok {
			kept[key] = value
		}
	}
	return kept
}

// maxCachedSpec bounds the memory that the spec of a cached Task may take: some forty ordinary steps. A tenant may have many larger ones, of which
// every replica would keep megabytes. The controllers read those when they need them: once, to create the Pod.
const maxCachedSpec = 64 << 10

// isLarger reports whether the values that v refers to take more than about bound bytes of memory. It stops there.
func isLarger(v any, bound int) bool { return leftAfter(reflect.ValueOf(v), bound) < 0 }

// leftAfter returns what is left of a number of bytes after those that a value has on the heap; any negative number if they are more.
func leftAfter(v reflect.Value, left int) int {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			left = leftAfter(v.Elem(), left-int(v.Elem().Type().Size()))
		}
	case reflect.String:
		left -= v.Len()
	case reflect.Slice:
		left -= v.Cap() * int(v.Type().Elem().Size())
		for i := 0; i < v.Len() && left >= 0; i++ {
			left = leftAfter(v.Index(i), left)
		}
	case reflect.Map:
		for entries := v.MapRange(); left >= 0 && entries.Next(); {
			left -= int(v.Type().Key().Size() + v.Type().Elem().Size())
			left = leftAfter(entries.Value(), leftAfter(entries.Key(), left))
		}
	case reflect.Struct:
		for i := 0; i < v.NumField() && left >= 0; i++ { // Fields takes five times as long
			left = leftAfter(v.Field(i), left)
		}
	}
	return left
}
