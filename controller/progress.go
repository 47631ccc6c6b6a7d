package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// The condition Progressing of a Task whose Pod is not at its end.

func (n *next) cancelling() {
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonCancelled, "spec.cancel is true: the running containers are being terminated")
}

func (n *next) gated() {
	var names []string
	for _, gate := range n.pod.Spec.SchedulingGates {
		names = append(names, gate.Name)
	}
	n.progressing(metav1.ConditionFalse, corev1.PodReasonSchedulingGated, "the Pod is not scheduled before its scheduling gates are removed: "+strings.Join(names, ", "))
}

func (n *next) unschedulable() {
	condition := unscheduled(n.pod)
	n.progressing(metav1.ConditionFalse, condition.Reason, "the Pod is unschedulable: "+condition.Message)
}

func (n *next) stepRunning() {
	message := fmt.Sprintf("step %q is running", n.current.Name)
	if containers := stuck(n.pod); len(containers) > 0 {
		message += "; " + cause(n.pod, containers[0])
	}
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonStepRunning, message)
}

func (n *next) waitForHelpers() {
	n.starting(v1alpha1.ReasonStepWaiting, fmt.Sprintf("step %q waits until the helper containers are ready", n.current.Name))
}

func (n *next) betweenSteps() {
	n.starting(v1alpha1.ReasonStepWaiting, fmt.Sprintf("step %q is next", n.current.Name))
}

func (n *next) podStarting() {
	n.starting(v1alpha1.ReasonPodCreated, fmt.Sprintf("the Pod %q is starting", n.PodName))
}

// blocking returns the containers that can't start and that the current step waits for. It leaves out those of later steps: the kubelet goes on
// trying, and an earlier step may push their images.
func blocking(pod *corev1.Pod, current string) []corev1.ContainerStatus {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	later := steps[slices.Index(steps, current)+1:]
	return slices.DeleteFunc(stuck(pod), func(container corev1.ContainerStatus) bool {
		return slices.Contains(later, container.Name) && !lacksAgent(pod, container)
	})
}

// containerStuck: a container can't start, and the current step waits for it. Most causes pass, or a user fixes them, so there is a grace period.
func (n *next) containerStuck() {
	container := blocking(n.pod, n.current.Name)[0]
	reason, message := container.State.Waiting.Reason, cause(n.pod, container)
	if reason == "ErrImagePull" {
		reason = v1alpha1.ReasonImagePullBackOff // the two alternate
	}
	if old := n.progress(); old.Reason == reason && container.State.Waiting.Reason == v1alpha1.ReasonImagePullBackOff {
		message = old.Message // of ErrImagePull, which names the cause
	}
	n.progressing(metav1.ConditionFalse, reason, message)
	switch left := n.startGrace - n.now.Sub(n.progress().LastTransitionTime.Time); {
	case reason == reasonCrashLoop: // it has started, and will again
	case reason == "InvalidImageName" || left <= 0:
		n.halts(message)
		for i := range n.Steps {
			if step := &n.Steps[i]; step.Name == container.Name && !lacksAgent(n.pod, container) {
				step.State, step.Reason, step.Message = v1alpha1.StepFailed, cleanReason(reason, v1alpha1.ReasonPodFailed), clean(message, maxStepMessage)
			}
		}
		n.startFailed(reason, message, left <= 0)
	default:
		n.again = left
	}
}

// startFailed ends the attempt because its Pod can't start.
func (n *next) startFailed(reason, message string, isGraceOver bool) {
	outcome := ""
	if isGraceOver {
		outcome = fmt.Sprintf("; this lasted %s (--start-grace-period)", n.startGrace)
	}
	if n.isLastAttempt() {
		outcome += "; the Task has failed: fix the cause, then create the Task again"
	}
	if !strings.HasSuffix(message, outcome) {
		message = clean(message, maxNote-len(outcome)) + outcome
	}
	n.podFailed(reason, message, n.now)
}

// unscheduled returns the scheduler's condition of a Pod that has no node, or nil.
func unscheduled(pod *corev1.Pod) *corev1.PodCondition {
	return findCondition(pod, corev1.PodScheduled, corev1.ConditionFalse)
}

// stuck returns the containers that the kubelet can't start.
func stuck(pod *corev1.Pod) []corev1.ContainerStatus {
	all := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	return slices.DeleteFunc(all, func(container corev1.ContainerStatus) bool { return !cantStart(container) })
}

func cantStart(container corev1.ContainerStatus) bool {
	waiting := container.State.Waiting
	return waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing" && waiting.Reason != "ContainerCreating"
}

// lacksAgent reports whether a container can't start because the agent's image can't be pulled, which is not the fault of its step. The kubelet's
// message tells it: it names one of the two images.
func lacksAgent(pod *corev1.Pod, container corev1.ContainerStatus) bool {
	names := func(image string) bool { return strings.Contains(container.State.Waiting.Message, image) }
	agent := podspec.AgentVolume(pod)
	return agent != nil && names(agent.Image.Reference) && !names(container.Image)
}

// cause returns why a container can't start, in the kubelet's words.
func cause(pod *corev1.Pod, container corev1.ContainerStatus) string {
	if lacksAgent(pod, container) {
		return "the image of taskflow's agent can't be mounted: " + container.State.Waiting.Message
	}
	if container.State.Waiting.Reason == reasonCrashLoop {
		return crash(pod, container)
	}
	return fmt.Sprintf("container %q can't start: %s", container.Name, withRemedy(pod, container.State.Waiting.Message))
}

// reasonCrashLoop is the reason of a container that ran, ended, and waits until the kubelet restarts it.
const reasonCrashLoop = "CrashLoopBackOff"

// crash returns how a container ended that the kubelet restarts.
func crash(pod *corev1.Pod, container corev1.ContainerStatus) string {
	kind, ended := "container", "failed"
	if slices.Contains(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]), container.Name) {
		kind = "step"
	}
	if end := container.LastTerminationState.Terminated; end != nil {
		if end.ExitCode == 0 { // a sidecar
			ended = "ended"
		}
		ended += fmt.Sprintf(" with exit code %d", end.ExitCode)
	}
	return fmt.Sprintf("%s %q %s, and the kubelet restarts it: %s", kind, container.Name, ended, container.State.Waiting.Message)
}
