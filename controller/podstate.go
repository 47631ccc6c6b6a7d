package controller

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// What a Pod's status says beyond its steps: what can't start, and what has ended.

// isOver reports whether no step of the Pod runs, and none will: all have ended, or can't start.
func isOver(pod *corev1.Pod) bool {
	if isTerminal(pod.Status.Phase) || isUnbound(pod) {
		return true
	}
	isInitStuck := slices.ContainsFunc(pod.Status.InitContainerStatuses, cantStart)
	steps := podspec.StepNames(pod)
	over := 0
	for _, container := range pod.Status.ContainerStatuses {
		if slices.Contains(steps, container.Name) && hasNoTurnLeft(container, isInitStuck) {
			over++
		}
	}
	return over == len(steps)
}

// hasNoTurnLeft reports whether a container has ended, or can't start.
func hasNoTurnLeft(container corev1.ContainerStatus, isInitStuck bool) bool {
	return container.State.Terminated != nil || container.State.Running == nil && (isInitStuck || cantStart(container))
}

// haveEnded reports whether the containers of all these steps have ended, or can't start. One that is still being started has not: its agent may
// not know of a halt yet.
func haveEnded(pod *corev1.Pod, steps []sequence.Step) bool {
	isInitStuck := slices.ContainsFunc(pod.Status.InitContainerStatuses, cantStart)
	for _, step := range steps {
		if !slices.ContainsFunc(pod.Status.ContainerStatuses, func(container corev1.ContainerStatus) bool {
			return container.Name == step.Name && hasNoTurnLeft(container, isInitStuck)
		}) {
			return false
		}
	}
	return true
}

// planOf returns the plan of the Pod's steps, and their options. Options that can't be read count as none: every failure ends the sequence.
func planOf(pod *corev1.Pod) (sequence.Plan, contract.Options) {
	options, _ := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	return podspec.Plan(podspec.StepNames(pod), options), options
}

// isPlain reports whether each step of a plan follows the one before it, and none is final.
func isPlain(plan sequence.Plan) bool { return plan.IsChain() && plan.Work() == len(plan.Steps) }

// isUnbound reports whether no node has taken the Pod, so that none of its containers has run.
func isUnbound(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.Status.Phase == corev1.PodPending &&
		len(pod.Status.InitContainerStatuses)+len(pod.Status.ContainerStatuses) == 0
}

// isKilled reports whether all containers of the Pod have ended, some were killed, and the kubelet has not reported why: it may report final
// container states a moment before it reports the eviction of the Pod (mergePodStatus in pkg/kubelet/status).
func isKilled(pod *corev1.Pod) bool {
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pod.DeletionTimestamp != nil || isTerminal(pod.Status.Phase) {
		return false
	}
	killed := false
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if container.State.Terminated == nil {
			return false
		}
		end, _ := observeEnd(v1alpha1.StepStatus{}, *container.State.Terminated, time.Time{}, contract.StepOptions{})
		killed = killed || hasKillExitCode(end) || slices.Contains(signaled, end.Reason)
	}
	return killed
}

// isUnsettled reports whether a Pod is terminal, and the kubelet may still report final container states. On a busy node it may report the
// phase Failed with container states from before it stopped the containers. (It makes the status first, and holds the phase back until all
// containers have stopped: syncBatch and mergePodStatus in pkg/kubelet/status.) Containers that never started, and those on a lost node, stay
// as they are.
func isUnsettled(pod *corev1.Pod) bool {
	return isTerminal(pod.Status.Phase) &&
		slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil })
}

// hasKillExitCode reports whether a container ended as one that the kubelet stops, although a command may end so by itself.
func hasKillExitCode(step v1alpha1.StepStatus) bool {
	return step.Reason == "Error" && step.ExitCode != nil && (*step.ExitCode == exitSIGTERM || *step.ExitCode == exitSIGKILL)
}

// signaled are the reasons with which an agent says that its container was told to stop, or may have been.
var signaled = []string{contract.ReasonStopped, contract.ReasonTerminated, contract.ReasonSignaled}

// The exit codes of a container that the kubelet has stopped.
const (
	exitSIGTERM = contract.ExitSignal + int32(syscall.SIGTERM)
	exitSIGKILL = contract.ExitSignal + int32(syscall.SIGKILL)
	// exitNotStarted is the exit code of a container that the runtime could not start.
	exitNotStarted int32 = 128
)

// disruption returns the condition of a Pod that Kubernetes itself ends, or nil.
func disruption(pod *corev1.Pod) *corev1.PodCondition {
	return findCondition(pod, corev1.DisruptionTarget, corev1.ConditionTrue)
}

// findCondition returns the Pod's condition of a type if it has this status, or nil.
func findCondition(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus) *corev1.PodCondition {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind && c.Status == status })
	if i < 0 {
		return nil
	}
	return &pod.Status.Conditions[i]
}

// blocking returns the containers that can't start and that the sequence waits for. It leaves out those of steps whose turn has not come: the
// kubelet goes on trying, and an earlier step may push their images. A final step waits for no container but its own.
func blocking(pod *corev1.Pod, seen observation) []corev1.ContainerStatus {
	return slices.DeleteFunc(stuck(pod), func(container corev1.ContainerStatus) bool {
		i := slices.IndexFunc(seen.steps, func(step v1alpha1.StepStatus) bool { return step.Name == container.Name })
		if seen.finalIsDue {
			return i < 0 || !seen.turns[i] || !seen.plan.Steps[i].IsFinal
		}
		return i >= 0 && !seen.turns[i] && !lacksAgent(pod, container)
	})
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
		return "the image of taskflow's agent cannot be mounted: " + container.State.Waiting.Message
	}
	if container.State.Waiting.Reason == reasonCrashLoop {
		return crash(pod, container)
	}
	return cannotStart(container.Name) + withRemedy(pod, container.State.Waiting.Message)
}

// reasonCrashLoop is the reason of a container that ran, ended, and waits until the kubelet restarts it.
const reasonCrashLoop = "CrashLoopBackOff"

// crash returns how a container ended that the kubelet restarts.
func crash(pod *corev1.Pod, container corev1.ContainerStatus) string {
	kind, ended := "container", "failed"
	if slices.Contains(podspec.StepNames(pod), container.Name) {
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
