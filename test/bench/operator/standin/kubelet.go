package standin

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

const (
	// pause is the time between the writes of a kubelet before all containers run, and before its last write.
	pause = 100 * time.Millisecond
	// stepLength is how long a step takes. A kubelet looks at its containers once a second.
	stepLength = time.Second

	digest      = "0000000000000000000000000000000000000000000000000000000000000000"
	agentImage  = "docker.io/taskflow/agent@sha256:" + digest
	stepImage   = "docker.io/library/busybox@sha256:" + digest
	containerID = "containerd://" + digest
)

// runPod plays the kubelet of a stored Pod. It writes the status as ../kubelet.yaml does: nine times for three steps that run to their end.
func (s *Server) runPod(pod *corev1.Pod, until v1alpha1.TaskPhase) error {
	writes := []kubeletWrite{
		{pause, func(status *corev1.PodStatus) { take(status, pod.Spec) }},
		{pause, func(status *corev1.PodStatus) { conditions(status, corev1.PodReadyToStartContainers) }},
		{pause, initialise},
		{pause, initialised},
		{pause, startAll},
	}
	if until != v1alpha1.TaskRunning {
		for i := range pod.Spec.Containers {
			writes = append(writes, kubeletWrite{stepLength, func(status *corev1.PodStatus) { endStep(&status.ContainerStatuses[i]) }})
		}
		writes = append(writes, kubeletWrite{pause, func(status *corev1.PodStatus) { status.Phase = corev1.PodSucceeded }})
	}
	for _, write := range writes {
		time.Sleep(write.after)
		if err := s.writeStatus(pod.Name, write.change); err != nil {
			return err
		}
	}
	return nil
}

type kubeletWrite struct {
	after  time.Duration
	change func(*corev1.PodStatus)
}

func (s *Server) writeStatus(name string, change func(*corev1.PodStatus)) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pod := *s.pods[name]
	pod.Status = *pod.Status.DeepCopy()
	change(&pod.Status)
	if last := len(pod.Status.ContainerStatuses) - 1; pod.Status.ContainerStatuses[last].State.Terminated != nil && pod.Status.Phase == corev1.PodRunning {
		s.tasks[taskOf(&pod)].stepsOver = time.Now()
	}
	return s.store(watch.Modified, &pod)
}

// take sets the status of a Pod that the kubelet has accepted: its containers wait.
func take(status *corev1.PodStatus, spec corev1.PodSpec) {
	status.Phase, status.StartTime, status.HostIP = corev1.PodPending, now(), "10.0.0.1"
	conditions(status)
	waiting := func(container corev1.Container) corev1.ContainerStatus {
		return corev1.ContainerStatus{
			Name: container.Name, Image: container.Image, Started: new(false),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}},
		}
	}
	for _, container := range spec.InitContainers {
		status.InitContainerStatuses = append(status.InitContainerStatuses, waiting(container))
	}
	for _, container := range spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, waiting(container))
	}
}

// conditions sets all conditions that a kubelet reports: PodScheduled and the named ones to True, the others to False.
func conditions(status *corev1.PodStatus, areTrue ...corev1.PodConditionType) {
	is := map[corev1.PodConditionType]bool{corev1.PodScheduled: true}
	for _, condition := range areTrue {
		is[condition] = true
	}
	status.Conditions = nil
	for _, condition := range []corev1.PodConditionType{
		corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady,
	} {
		value := corev1.ConditionFalse
		if is[condition] {
			value = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: condition, Status: value, LastTransitionTime: *now()})
	}
}

// initialise starts the init container, which delivers the agent.
func initialise(status *corev1.PodStatus) {
	for i := range status.InitContainerStatuses {
		status.InitContainerStatuses[i].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: *now()}}
	}
}

func initialised(status *corev1.PodStatus) {
	for i := range status.InitContainerStatuses {
		container := &status.InitContainerStatuses[i]
		container.Ready, container.ImageID, container.ContainerID = true, agentImage, containerID
		container.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: container.State.Running.StartedAt, FinishedAt: *now(), ContainerID: containerID,
		}}
	}
}

// startAll starts all containers. Each agent waits, except the first step's.
func startAll(status *corev1.PodStatus) {
	status.Phase, status.PodIP = corev1.PodRunning, "10.1.0.1"
	conditions(status, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady)
	for i := range status.ContainerStatuses {
		container := &status.ContainerStatuses[i]
		container.Ready, container.Started, container.ImageID, container.ContainerID = true, new(true), stepImage, containerID
		container.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: *now()}}
	}
}

// endStep ends the container of a step, with the record of its agent.
func endStep(container *corev1.ContainerStatus) {
	began, ended := container.State.Running.StartedAt, now()
	container.Ready, container.Started = false, new(false)
	container.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: "Completed", StartedAt: began, FinishedAt: *ended, ContainerID: containerID,
		Message: contract.Record{FinishedAt: ended.UTC().Truncate(time.Microsecond), StartedAt: new(began.UTC().Truncate(time.Microsecond))}.Marshal(),
	}}
}

func now() *metav1.Time {
	now := metav1.Now()
	return &now
}
