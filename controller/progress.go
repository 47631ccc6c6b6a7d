package controller

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// progress: the Pod is there and not at its end; current is the step whose turn it is.
func (n *next) progress(pod *corev1.Pod, current v1alpha1.StepStatus, now time.Time) {
	n.resumed()
	n.Phase = v1alpha1.TaskPending
	// A Pod is Pending until all of its containers have started. A step that runs meanwhile doesn't wait for the image of a later one.
	if pod.Status.Phase == corev1.PodRunning || slices.ContainsFunc(n.Steps, hasBegun) {
		n.Phase = v1alpha1.TaskRunning
	}
	runs := current.State == v1alpha1.StepRunning
	containers := stuck(pod)
	blocking := blocking(pod, current.Name)
	waiting := startWait{status: metav1.ConditionTrue, reason: v1alpha1.ReasonStepWaiting}
	switch condition := unscheduled(pod); {
	case n.task.Spec.Cancel:
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonCancelled, "spec.cancel is true: what runs is being ended")
	case condition != nil && condition.Reason == corev1.PodReasonSchedulingGated:
		n.progressing(metav1.ConditionFalse, condition.Reason, "the Pod is not scheduled before its scheduling gates are removed: "+gates(pod))
	case condition != nil:
		n.progressing(metav1.ConditionFalse, condition.Reason, "the Pod is unschedulable: "+condition.Message)
	case len(blocking) > 0 && !runs:
		n.waitForStart(pod, blocking[0], now)
	case runs:
		message := fmt.Sprintf("step %q runs", current.Name)
		if len(containers) > 0 {
			message += "; " + cause(pod, containers[0])
		}
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonStepRunning, message)
	case n.Phase == v1alpha1.TaskRunning && released(pod) == 0:
		waiting.message = fmt.Sprintf("step %q waits until the containers that are no steps are ready", current.Name)
		n.starting(pod, waiting, now)
	case n.Phase == v1alpha1.TaskRunning:
		waiting.message = fmt.Sprintf("step %q is next", current.Name)
		n.starting(pod, waiting, now)
	default:
		waiting.reason, waiting.message = v1alpha1.ReasonPodCreated, fmt.Sprintf("the Pod %q is being started", pod.Name)
		n.starting(pod, waiting, now)
	}
}

// gates returns the names of the Pod's scheduling gates.
func gates(pod *corev1.Pod) string {
	var names []string
	for _, gate := range pod.Spec.SchedulingGates {
		names = append(names, gate.Name)
	}
	return strings.Join(names, ", ")
}

// blocking returns the containers that can't start and that the current step waits for: the kubelet goes on trying those of later steps, whose
// images may not have been pushed yet.
func blocking(pod *corev1.Pod, current string) []corev1.ContainerStatus {
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	later := steps[slices.Index(steps, current)+1:]
	return slices.DeleteFunc(stuck(pod), func(container corev1.ContainerStatus) bool {
		return slices.Contains(later, container.Name) && !lacksAgent(pod, container)
	})
}

// hasBegun reports whether the step runs or has run.
func hasBegun(step v1alpha1.StepStatus) bool {
	return step.State == v1alpha1.StepRunning || hasEnded(step)
}

// waitForStart: a container can't be started, and nothing else goes on. Most causes pass, or are mended by somebody: so there is
// a period of grace.
func (n *next) waitForStart(pod *corev1.Pod, container corev1.ContainerStatus, now time.Time) {
	reason, message := container.State.Waiting.Reason, cause(pod, container)
	if reason == "ErrImagePull" {
		reason = v1alpha1.ReasonImagePullBackOff // the two take turns
	}
	old := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing)
	if old != nil && old.Reason == reason && container.State.Waiting.Reason == v1alpha1.ReasonImagePullBackOff {
		message = old.Message // that of the pull itself says more
	}
	n.progressing(metav1.ConditionFalse, reason, message)
	since := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing).LastTransitionTime.Time
	switch left := n.startGrace - now.Sub(since); {
	case reason == reasonCrashLoop: // it has been started, and will be again
	case reason == "InvalidImageName" || left <= 0:
		n.halts(message)
		for i := range n.Steps {
			if step := &n.Steps[i]; step.Name == container.Name && !lacksAgent(pod, container) {
				step.State, step.Reason, step.Message = v1alpha1.StepFailed, cleanReason(reason, v1alpha1.ReasonPodFailed), clean(message, maxStepMessage)
			}
		}
		n.startFailed(reason, message, left <= 0, now)
	default:
		n.again = left
	}
}

// startFailed makes the Pod fail because it can't start, and says that nobody waits for it any longer.
func (n *next) startFailed(reason, message string, graceIsOver bool, now time.Time) {
	outcome := ""
	if graceIsOver {
		outcome = fmt.Sprintf("; this lasted %s (--start-grace-period)", n.startGrace)
	}
	if n.isLastAttempt() {
		outcome += "; the Task has failed: fix the cause, then create the Task again"
	}
	if !strings.HasSuffix(message, outcome) {
		message = clean(message, maxNote-len(outcome)) + outcome
	}
	n.podFailed(reason, message, now)
}

// unscheduled is the scheduler's condition of a Pod that no node takes, or nil.
func unscheduled(pod *corev1.Pod) *corev1.PodCondition {
	return findCondition(pod, corev1.PodScheduled, corev1.ConditionFalse)
}

// stuck are the containers that the kubelet can't start.
func stuck(pod *corev1.Pod) []corev1.ContainerStatus {
	var containers []corev1.ContainerStatus
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if cantStart(container) {
			containers = append(containers, container)
		}
	}
	return containers
}

func cantStart(container corev1.ContainerStatus) bool {
	waiting := container.State.Waiting
	return waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing" && waiting.Reason != "ContainerCreating"
}

// lacksAgent says whether a container can't be started since the agent's image can't be pulled, which is then no fault of its step. All
// that tells it is which of the two images the kubelet's message names.
func lacksAgent(pod *corev1.Pod, container corev1.ContainerStatus) bool {
	names := func(image string) bool { return strings.Contains(container.State.Waiting.Message, image) }
	agent := podspec.AgentVolume(pod)
	return agent != nil && names(agent.Image.Reference) && !names(container.Image)
}

// cause says in the kubelet's words why a container can't be started.
func cause(pod *corev1.Pod, container corev1.ContainerStatus) string {
	if lacksAgent(pod, container) {
		return "the image of taskflow's agent can't be mounted: " + container.State.Waiting.Message
	}
	if container.State.Waiting.Reason == reasonCrashLoop {
		return crash(pod, container)
	}
	return fmt.Sprintf("container %q can't start: %s", container.Name, withRemedy(pod, container.State.Waiting.Message))
}

// reasonCrashLoop is the reason of a container that ran, ended, and waits until the kubelet starts it again.
const reasonCrashLoop = "CrashLoopBackOff"

// crash says how a container ended that the kubelet starts again.
func crash(pod *corev1.Pod, container corev1.ContainerStatus) string {
	kind, ended := "container", "failed"
	if slices.Contains(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]), container.Name) {
		kind = "step"
	}
	if end := container.LastTerminationState.Terminated; end != nil {
		if end.ExitCode == 0 { // a sidecar that ended is started again, too
			ended = "ended"
		}
		ended += fmt.Sprintf(" with exit code %d", end.ExitCode)
	}
	return fmt.Sprintf("%s %q %s, and the kubelet starts it again: %s", kind, container.Name, ended, container.State.Waiting.Message)
}
