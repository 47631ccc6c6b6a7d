package controller

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// finished says whether a Task has ended, well or not. Nothing changes any more then.
func finished(status *v1alpha1.TaskStatus) bool {
	return meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionComplete) ||
		meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionFailed)
}

// next is a Task's status as it is to be written. The functions below bring it to a state; each may be called for
// a status that has been in that state for long, and then changes nothing.
type next struct {
	v1alpha1.TaskStatus
	// pod is the Task's Pod that the status was made from, or nil.
	pod *corev1.Pod
	// halt is to be written to the Pod's HaltAnnotation, unless it is empty.
	halt string
	// remove says that the Pod is to be deleted rather than halted.
	remove bool
	// expire says that the Pod is to be ended because spec.timeout is over.
	expire bool
	// again is when to look again although nothing has changed; 0 is never.
	again time.Duration

	task *v1alpha1.Task
	// startGrace is how long a container may fail to be started.
	startGrace time.Duration
	// reports are what events say about the start of the Pod; nil if they have not been read.
	reports []startReport
}

// nextStatus begins with what the status says now.
func nextStatus(task *v1alpha1.Task, startGrace time.Duration) *next {
	n := &next{TaskStatus: *task.Status.DeepCopy(), task: task, startGrace: startGrace}
	n.ObservedGeneration = task.Generation
	return n
}

func (n *next) condition(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&n.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: cleanReason(reason, v1alpha1.ReasonPodFailed), Message: clean(message, maxMessage), ObservedGeneration: n.task.Generation,
	})
}

// suspended: there is no Pod, and none is wanted.
func (n *next) suspended() {
	n.Phase, n.Steps, n.Progress = v1alpha1.TaskSuspended, nil, ""
	n.StartTime = nil // it starts anew when it is resumed, as a Job does
	n.condition(v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "spec.suspend is true: set it to false to run the Task")
	n.progressing(metav1.ConditionFalse, v1alpha1.ReasonSuspended, "spec.suspend is true")
}

// waiting: there is no Pod yet, for a reason that may pass.
func (n *next) waiting(reason, message string) {
	n.Phase = v1alpha1.TaskPending
	n.listSteps()
	n.resumed()
	n.progressing(metav1.ConditionFalse, reason, message)
}

// resolving: a registry has yet to tell the command of an image.
func (n *next) resolving() {
	asked := questionsOf(n.task)
	message := fmt.Sprintf("step %q: resolving the command of image %q; set command to need no registry", asked.steps[0], asked.requests[0].Image)
	n.waiting(v1alpha1.ReasonEntrypointUnresolved, message)
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonEntrypointUnresolved, message)
}

// listSteps names the steps, as long as there is no Pod that tells of them.
func (n *next) listSteps() {
	if n.PodName != "" {
		return
	}
	n.Steps = nil // somebody may have edited them
	for _, name := range stepNames(n.task) {
		n.Steps = append(n.Steps, v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting})
	}
	n.Progress = fmt.Sprintf("0/%d", len(n.Steps))
}

// progressing sets the condition Progressing. Its transition is that of its reason, so that it tells how long the Task has been
// waiting for the same thing.
func (n *next) progressing(status metav1.ConditionStatus, reason, message string) {
	if old := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing); old != nil && old.Reason != cleanReason(reason, v1alpha1.ReasonPodFailed) {
		old.Status = metav1.ConditionUnknown
	}
	n.condition(v1alpha1.ConditionProgressing, status, reason, message)
}

func (n *next) resumed() {
	if meta.IsStatusConditionTrue(n.Conditions, v1alpha1.ConditionSuspended) {
		n.condition(v1alpha1.ConditionSuspended, metav1.ConditionFalse, v1alpha1.ReasonResumed, "spec.suspend is false")
	}
}

// failed: the Task has ended and not all steps have ended well.
func (n *next) failed(reason, message string, at time.Time) {
	reason = cleanReason(reason, v1alpha1.ReasonPodFailed)
	n.Phase = v1alpha1.TaskFailed
	n.listSteps()
	n.condition(v1alpha1.ConditionFailed, metav1.ConditionTrue, reason, message)
	n.halts(message)
	n.ended(reason, message, at)
	for i := range n.Steps {
		step := &n.Steps[i]
		switch step.State {
		case v1alpha1.StepWaiting:
			step.State, step.Reason, step.Message = v1alpha1.StepSkipped, contract.ReasonSkipped, ""
		case v1alpha1.StepRunning: // nobody will tell how it ended
			step.State, step.Reason = v1alpha1.StepFailed, reason
		}
	}
}

// cancelled: the Task has ended since spec.cancel is true.
func (n *next) cancelled(at time.Time) {
	n.failed(v1alpha1.ReasonCancelled, "spec.cancel is true", at)
	n.Phase = v1alpha1.TaskCancelled
}

// podFailed: the Task's Pod has failed. Another one follows, if the Task has more.
func (n *next) podFailed(reason, message string, at time.Time) {
	// The kubelet's deadline is the Task's: no attempt has more time. It may say so after it has told how the containers ended.
	isLast := n.task.Spec.Timeout != nil && (reason == v1alpha1.ReasonDeadlineExceeded || n.isTimedOut(at))
	if isLast {
		reason = v1alpha1.ReasonDeadlineExceeded
		n.stopped(reason)
		message = n.timedOut() // it depends on which steps have begun
	}
	if isLast || n.isLastAttempt() {
		n.failed(reason, message, at)
		return
	}
	n.halts(message)
	n.Attempts = append(n.Attempts, v1alpha1.AttemptStatus{
		PodName: n.PodName, CompletionTime: metav1.Time{Time: at.Truncate(time.Second)},
		Reason: cleanReason(reason, v1alpha1.ReasonPodFailed), Message: clean(message, maxMessage),
	})
	n.Attempt = int32(len(n.Attempts) + 1) //nolint:gosec // at most 101
	n.Phase, n.PodName, n.PodUID, n.Order, n.CurrentStep, n.Steps = v1alpha1.TaskPending, "", "", 0, "", nil
	n.listSteps()
	n.progressing(metav1.ConditionFalse, v1alpha1.ReasonRetrying, fmt.Sprintf("the Pod %q has failed, and another one follows at %s: %s",
		n.Attempts[len(n.Attempts)-1].PodName, n.nextAttempt().UTC().Format(time.TimeOnly), message))
}

// isLastAttempt reports whether no other Pod follows the present one.
func (n *next) isLastAttempt() bool { return int(n.task.Spec.BackoffLimit) <= len(n.Attempts) }

// nextAttempt is when the next Pod is due, after those that have failed: as the Job controller has it.
func (n *next) nextAttempt() time.Time {
	const first, longest = 10 * time.Second, 6 * time.Minute
	failures := len(n.Attempts)
	if failures == 0 {
		return time.Time{}
	}
	pause := first << min(failures-1, 10)
	return n.Attempts[failures-1].CompletionTime.Add(min(pause, longest))
}

// complete: all steps have ended well.
func (n *next) complete(at time.Time) {
	message := "all steps have ended well"
	if i := slices.IndexFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return step.State == v1alpha1.StepFailed }); i >= 0 {
		message = fmt.Sprintf("all steps have ended; %s, which is no error (onError: Continue)", failure(n.Steps[i]))
	}
	n.Phase = v1alpha1.TaskSucceeded
	n.condition(v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonStepsSucceeded, message)
	n.ended(v1alpha1.ReasonStepsSucceeded, message, at)
}

func (n *next) ended(reason, message string, at time.Time) {
	n.resumed()
	n.progressing(metav1.ConditionFalse, reason, message)
	if n.StartTime != nil && at.Before(n.StartTime.Time) { // by the clock of a node
		at = n.StartTime.Time
	}
	n.CompletionTime = &metav1.Time{Time: at.Truncate(time.Second)}
	if n.StartTime != nil {
		n.Duration = duration.HumanDuration(max(0, n.CompletionTime.Sub(n.StartTime.Time)))
	}
}

// mirror brings the status to what the Task's Pod says.
func (n *next) mirror(pod *corev1.Pod, now time.Time) {
	n.pod = pod
	if isStopped(pod) && !n.task.Spec.Cancel {
		return
	}
	seen := observe(pod)
	n.PodName, n.PodUID = pod.Name, pod.UID
	n.Attempt = int32(len(n.Attempts) + 1) //nolint:gosec // at most 101
	n.start(pod.CreationTimestamp.Time)
	n.Order = int32(min(seen.order, len(seen.steps))) //nolint:gosec // at most 100
	count := len(stepNames(n.task))
	n.Progress = fmt.Sprintf("%d/%d", seen.done, count)
	n.Steps = seen.steps
	n.CurrentStep = ""
	current := slices.IndexFunc(seen.steps, func(step v1alpha1.StepStatus) bool { return step.State == v1alpha1.StepRunning })
	running := current >= 0
	if !running {
		current = seen.failed
	}
	if current < 0 && seen.done < len(seen.steps) {
		current = seen.done
	}
	if current >= 0 {
		n.CurrentStep = seen.steps[current].Name
	}
	if n.task.Spec.Cancel {
		n.halt = "spec.cancel of the Task is true"
	}

	switch {
	case len(seen.steps) != count:
		n.failed(v1alpha1.ReasonPodFailed, fmt.Sprintf("somebody has changed the annotation %s of the Pod %q", contract.StepsAnnotation, pod.Name), now)
	case seen.done == len(seen.steps) && (!isTerminating(pod) || seen.steps[seen.done-1].Reason != contract.ReasonStopped):
		n.complete(latest(seen.steps, now))
	case n.task.Spec.Cancel && (pod.DeletionTimestamp != nil || isOver(pod)):
		n.cancelled(now)
	case pod.DeletionTimestamp != nil:
		n.podDeleted(pod, now) // the timestamp lies ahead: it is when the grace period ends
	case seen.failed >= 0 && !isTerminating(pod) && !n.task.Spec.Cancel:
		step := seen.steps[seen.failed]
		n.podFailed(v1alpha1.ReasonStepFailed, failure(step), latest(seen.steps[seen.failed:seen.failed+1], now))
	case isTerminal(pod.Status.Phase):
		reason, message, at := podFailure(pod, now)
		n.stopped(reason)
		n.podFailed(reason, message, at)
	case n.isTimedOut(now) && !n.task.Spec.Cancel:
		n.endTimedOut(pod, now)
	case current < 0: // the last step was stopped, and the end of the Pod follows
	default:
		n.progress(pod, seen.steps[current], now)
	}
	n.checkDeadline(now)
	if n.isEnd() && isUnbound(pod) && pod.DeletionTimestamp == nil {
		n.removes(pod)
	}
}

// isOver says whether nothing of the Pod runs, and nothing will: its steps have ended, or can't start.
func isOver(pod *corev1.Pod) bool {
	if isTerminal(pod.Status.Phase) || isUnbound(pod) {
		return true
	}
	initStuck := slices.ContainsFunc(pod.Status.InitContainerStatuses, cantStart)
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	over := 0
	for _, container := range pod.Status.ContainerStatuses {
		never := container.State.Running == nil && (initStuck || cantStart(container))
		if slices.Contains(steps, container.Name) && (container.State.Terminated != nil || never) {
			over++
		}
	}
	return over == len(steps)
}

// podDeleted: somebody has deleted the Pod. It is nil where it is gone already.
func (n *next) podDeleted(pod *corev1.Pod, at time.Time) {
	reason, message := v1alpha1.ReasonPodDeleted, fmt.Sprintf("the Pod %q was deleted before all steps had ended", n.PodName)
	if pod != nil {
		if condition := disruption(pod); condition != nil {
			reason, message = condition.Reason, fmt.Sprintf("the Pod %q was deleted: %s", n.PodName, condition.Message)
		}
	}
	n.stopped(reason)
	n.podFailed(reason, message, at)
}

// stopped says why the steps ended that were told to end along with their Pod, since they are not at fault: the one that
// ran, which is the last that isn't waiting, and those that waited for their turn.
func (n *next) stopped(reason string) {
	reason = cleanReason(reason, v1alpha1.ReasonPodFailed)
	const lost = "ContainerStatusUnknown" // the kubelet doesn't know how it ended, or whether it ever ran
	first := slices.IndexFunc(n.Steps, func(step v1alpha1.StepStatus) bool { return step.State != v1alpha1.StepSucceeded })
	for i := len(n.Steps) - 1; i >= 0; i-- {
		step := &n.Steps[i]
		switch {
		case step.Reason == contract.ReasonTerminated, step.Reason == lost && i > first:
			step.State, step.Reason, step.Message, step.ExitCode = v1alpha1.StepSkipped, contract.ReasonSkipped, "", nil
		case step.Reason == contract.ReasonStopped, step.Reason == lost: // whatever its exit code: it was not done
			if step.State == v1alpha1.StepSucceeded {
				n.Progress, n.CurrentStep = fmt.Sprintf("%d/%d", i, len(n.Steps)), step.Name
			}
			step.State, step.Reason = v1alpha1.StepFailed, reason
			return
		case step.State == v1alpha1.StepFailed:
			if hasKillExitCode(*step) {
				step.Reason = reason
			}
			return
		}
	}
}

// podFailure says why a Pod has ended before its steps: evicted, too slow, an init container that failed.
func podFailure(pod *corev1.Pod, now time.Time) (reason, message string, at time.Time) {
	if pod.Status.Reason != "" {
		return pod.Status.Reason, strings.TrimRight("the Pod failed: "+pod.Status.Message, ": "), now
	}
	if condition := disruption(pod); condition != nil {
		return condition.Reason, "the Pod failed: " + condition.Message, now
	}
	for _, init := range pod.Status.InitContainerStatuses {
		if end := init.State.Terminated; end != nil && end.ExitCode != 0 {
			return v1alpha1.ReasonPodFailed, fmt.Sprintf("the init container %q failed with exit code %d (%s)", init.Name, end.ExitCode, end.Reason), earlier(end.FinishedAt.Time, now)
		}
	}
	return v1alpha1.ReasonPodFailed, "the Pod ended before all steps had run", now
}

// disruption is the condition of a Pod that Kubernetes itself ends, or nil.
func disruption(pod *corev1.Pod) *corev1.PodCondition {
	return findCondition(pod, corev1.DisruptionTarget, corev1.ConditionTrue)
}

// findCondition is the Pod's condition of a type, where it has this status, or nil.
func findCondition(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus) *corev1.PodCondition {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind && c.Status == status })
	if i < 0 {
		return nil
	}
	return &pod.Status.Conditions[i]
}

// isStopped says whether nothing of the Pod runs any more, some of it was killed, and the kubelet has not said yet what became of the
// Pod: it may tell how the containers have ended a moment before it tells that it evicted the Pod (mergePodStatus in pkg/kubelet/status).
func isStopped(pod *corev1.Pod) bool {
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || pod.DeletionTimestamp != nil ||
		isTerminal(pod.Status.Phase) {
		return false
	}
	killed := false
	for _, container := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if container.State.Terminated == nil {
			return false
		}
		end, _ := observeEnd(v1alpha1.StepStatus{}, *container.State.Terminated, time.Time{})
		killed = killed || hasKillExitCode(end) || isToldToStop(end)
	}
	return killed
}

// isUnsettled says whether a Pod is over, and the kubelet may still have another word about it. On a busy node it may tell that a Pod has
// failed and, of its containers, what it knew before it stopped them; their ends follow in a moment. (The status is made before, and the
// phase held back until all has stopped: syncBatch and mergePodStatus in pkg/kubelet/status.) For containers that never started, and
// for those of a node that is lost, nothing follows.
func isUnsettled(pod *corev1.Pod) bool {
	return isTerminal(pod.Status.Phase) &&
		slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.State.Terminated == nil })
}

// hasKillExitCode is true for what the kubelet ends a container with, though a command may end so by itself.
func hasKillExitCode(step v1alpha1.StepStatus) bool {
	return step.Reason == "Error" && step.ExitCode != nil && (*step.ExitCode == exitSIGTERM || *step.ExitCode == exitSIGKILL)
}

// isToldToStop is true for a step whose agent says that it was told to stop, or may have been, whether or not its command ran.
func isToldToStop(step v1alpha1.StepStatus) bool {
	return step.Reason == contract.ReasonStopped || step.Reason == contract.ReasonTerminated || step.Reason == contract.ReasonSignaled
}

// The exit codes of a container that the kubelet has stopped.
const (
	exitSIGTERM = contract.ExitSignal + int32(syscall.SIGTERM)
	exitSIGKILL = contract.ExitSignal + int32(syscall.SIGKILL)
	// exitNotStarted is of a container that the runtime couldn't start.
	exitNotStarted int32 = 128
)

// latest is when the last of the steps ended.
func latest(steps []v1alpha1.StepStatus, now time.Time) time.Time {
	var at time.Time
	for _, step := range steps {
		if step.FinishedAt != nil && step.FinishedAt.After(at) {
			at = step.FinishedAt.Time
		}
	}
	if at.IsZero() {
		return now
	}
	return earlier(at, now)
}
