package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

const (
	// workers of each controller. None of them waits for anything but the API server.
	workers = 8
	// firstRetry and lastRetry bound the exponential back-off after an error.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// SetupWithManager registers both controllers.
func SetupWithManager(m manager.Manager, commands CommandResolver, startGrace time.Duration) error {
	recorder := NewRecorder(m.GetClient())
	if err := m.Add(afterControllers{recorder, m.GetCache()}); err != nil {
		return err
	}
	order := NewOrderReconciler(m.GetClient(), recorder)
	if err := order.SetupWithManager(m); err != nil {
		return err
	}
	task := &TaskReconciler{
		Client:     m.GetClient(),
		Live:       m.GetAPIReader(),
		Events:     recorder,
		Now:        time.Now,
		StartGrace: startGrace,
		lookups:    newLookups(commands, m.GetAPIReader(), time.Now),
	}
	return task.SetupWithManager(m)
}

func options() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		// A replica that isn't the leader reads all the same: it goes on at once when it becomes that.
		EnableWarmup: new(true),
		RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
	}
}

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
