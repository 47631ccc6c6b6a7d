package controller

import (
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

// CacheOptions are what the controllers keep in memory: Tasks, and of Pods those that the webhook has been at, without what no
// controller reads.
func CacheOptions() cache.Options {
	return cache.Options{
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.Task{}: {Transform: stripTask},
			&corev1.Pod{}: {
				Label:     labels.SelectorFromSet(labels.Set{contract.SequentialLabel: "true"}),
				Transform: stripPod,
			},
		},
	}
}

// stripTask drops what no controller reads of a Task: its metadata for others, and of its spec what only makes a Pod, if there is a Pod, if the
// Task has ended, or if it is large.
func stripTask(object any) (any, error) {
	task, ok := object.(*v1alpha1.Task)
	if !ok {
		return object, nil // a tombstone
	}
	task.ManagedFields, task.Annotations, task.Labels, task.OwnerReferences = nil, nil, nil, nil
	hasPod := task.Status.PodName != "" && len(task.Status.Steps) == len(task.Spec.Steps)
	if hasPod || finished(&task.Status) || isLarger(&task.Spec, maxCachedSpec) {
		task.Spec.Steps, task.Spec.Sidecars, task.Spec.Template = nil, nil, nil
	}
	return task, nil
}

// stepNames are those of a Task's steps.
func stepNames(task *v1alpha1.Task) []string {
	var names []string
	if !podspec.IsWhole(task) {
		for _, step := range task.Status.Steps {
			names = append(names, step.Name)
		}
		return names
	}
	for _, step := range task.Spec.Steps {
		names = append(names, step.Name)
	}
	return names
}

// stripPod keeps of a Pod what observe and the reconcilers read.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	stripped := &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name:              pod.Name,
			Namespace:         pod.Namespace,
			UID:               pod.UID,
			ResourceVersion:   pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp,
			DeletionTimestamp: pod.DeletionTimestamp,
			OwnerReferences:   pod.OwnerReferences,
			Annotations:       taskflowAnnotations(pod),
		},
		Spec: corev1.PodSpec{
			NodeName:              pod.Spec.NodeName,
			RestartPolicy:         pod.Spec.RestartPolicy,
			ActiveDeadlineSeconds: pod.Spec.ActiveDeadlineSeconds,
		},
		Status: corev1.PodStatus{
			Phase:                 pod.Status.Phase,
			StartTime:             pod.Status.StartTime,
			Reason:                pod.Status.Reason,
			Message:               pod.Status.Message,
			Conditions:            stripConditions(pod),
			InitContainerStatuses: stripContainers(slices.DeleteFunc(slices.Clone(pod.Status.InitContainerStatuses), hasSucceeded)),
			ContainerStatuses:     stripContainers(pod.Status.ContainerStatuses),
		},
	}
	if volume := podspec.AgentVolume(pod); volume != nil {
		stripped.Spec.Volumes = []corev1.Volume{*volume}
	}
	if isStarting(pod) { // what it may wait for
		stripped.Spec.SchedulingGates = pod.Spec.SchedulingGates
		if pod.Spec.NodeName == "" {
			stripped.Spec.SchedulerName = pod.Spec.SchedulerName
		}
		stripped.Spec.InitContainers = stripSidecars(pod.Spec.InitContainers)
	}
	return stripped, nil
}

// stripSidecars keeps the names of native sidecars, and whether each has a startupProbe.
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

// stripConditions keeps those that say why a Pod doesn't run.
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

// hasSucceeded is for an init container that nobody asks about any more.
func hasSucceeded(container corev1.ContainerStatus) bool {
	end := container.State.Terminated
	return end != nil && end.ExitCode == 0
}

// stripContainers drops most of all: a kubelet tells of each container its resources, and each of its mounts.
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
			end := *end
			end.ContainerID = ""
			kept[i].State.Terminated = &end
		}
	}
	return kept
}

func taskflowAnnotations(pod *corev1.Pod) map[string]string {
	if _, isMirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; isMirror {
		return nil // the webhook doesn't mutate the static Pods that a kubelet reports
	}
	kept := map[string]string{}
	for _, key := range []string{
		contract.OrderAnnotation, contract.HaltAnnotation, contract.StepsAnnotation, contract.OptionsAnnotation, contract.HandoffAnnotation,
		contract.TaskUIDAnnotation,
	} {
		if value, ok := pod.Annotations[key]; ok {
			kept[key] = value
		}
	}
	return kept
}

// maxCachedSpec is how large the spec of a Task may be in memory to be cached: some forty ordinary steps. Of larger ones, of which a tenant
// may have many, every replica would keep megabytes that the controllers need once, when they create the Pod: they read those then.
const maxCachedSpec = 64 << 10

// isLarger reports whether the values that v refers to take more bytes of memory than a bound, about. It looks at no more than that.
func isLarger(v any, bound int) bool {
	return heap(reflect.ValueOf(v), &bound)
}

// heap takes off left what a value has on the heap, and reports whether it is used up.
func heap(v reflect.Value, left *int) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return false
		}
		return take(int(v.Elem().Type().Size()), left) || heap(v.Elem(), left)
	case reflect.String:
		return take(v.Len(), left)
	case reflect.Slice:
		if take(v.Cap()*int(v.Type().Elem().Size()), left) {
			return true
		}
		for i := range v.Len() {
			if heap(v.Index(i), left) {
				return true
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			size := int(v.Type().Key().Size() + v.Type().Elem().Size())
			if take(size, left) || heap(entries.Key(), left) || heap(entries.Value(), left) {
				return true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() { //nolint:modernize // Fields takes five times as long
			if heap(v.Field(i), left) {
				return true
			}
		}
	}
	return false
}

func take(size int, left *int) bool {
	*left -= size
	return *left < 0
}
