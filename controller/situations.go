package controller

import (
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// The next status of a Task follows from a decision table. The reconciler reads the facts, and decide does the rest without I/O: it classifies
// the facts as a situation, finds the one row that matches, and applies the row's effect to a copy of the status.

// facts are all that the next status of a Task depends on.
type facts struct {
	task *v1alpha1.Task
	now  time.Time
	// startGrace bounds how long a container may fail to start.
	startGrace time.Duration

	// pod is the Task's own Pod of the current attempt, or nil. If isNew is set, the reconciler has just created it.
	pod   *corev1.Pod
	isNew bool
	// settleTime is how much longer the kubelet may take to report the final container states of the Pod.
	settleTime time.Duration
	// reports are from the events of a Pod that has been starting for long; nil if they were not read.
	reports []startReport

	// foreign is a Pod that has the name of the Task's Pod and does not belong to the Task, or nil.
	foreign *corev1.Pod
	// failedPod is the Pod of the last failed attempt as long as its containers may run, or nil.
	failedPod *corev1.Pod
	// commands are those of the steps that leave theirs to the image. If unresolved is set, they are unknown.
	commands   map[string]podspec.Command
	unresolved *unresolved
}

// situation is a classification of facts, with one value for each column of the table. In a row, a column is a set of such values, and the
// empty set matches all of them.
type situation struct {
	spec  specColumn
	time  timeColumn
	pod   podColumn
	steps stepsColumn
}

type (
	specColumn  uint32
	timeColumn  uint32
	podColumn   uint32
	stepsColumn uint32
)

// What the spec asks for.
const (
	asksRun     specColumn = 1 << iota
	asksSuspend            // without an effect on a Pod that exists
	asksCancel

	asksNoEnd = asksRun | asksSuspend
)

// Whether spec.timeout has passed.
const (
	inTime      timeColumn = 1 << iota
	inFinalTime            // it has, and spec.finallyTimeout, during which the final steps of a Pod may run, has not
	timedOut

	hasTime = inTime | inFinalTime
)

// The Pod of the current attempt.
const (
	podPaused        podColumn = 1 << iota // not created: the pause after a failed attempt lasts
	podBehindFailed                        // not created: containers of the failed attempt's Pod may still run
	podImpossible                          // not created: the spec can't be run
	podResolving                           // not created: an image's command is being resolved
	podResolvingLong                       // as podResolving, for long enough to say so
	podUnresolved                          // not created: an image's command could not be resolved, and the next look-up may
	podUnresolvable                        // not created: an image's command can't be resolved
	podDue                                 // not created, and can be
	podGone                                // created, and no longer there
	podOfFormerTask                        // the name belongs to a Pod of a deleted Task of the same name
	podForeign                             // the name belongs to another Pod
	podSettling                            // terminal, but the kubelet may still report final container states
	podKilled                              // all containers have ended, some were killed, and the kubelet has not reported why
	podTerminating                         // being deleted
	podTerminal                            // phase Succeeded or Failed
	podUnbound                             // no node has taken it
	podIdle                                // no step runs, and none can or is to
	podActive

	podMissing = podPaused | podBehindFailed | podImpossible | podResolving | podResolvingLong | podUnresolved | podUnresolvable | podDue
	podAlive   = podUnbound | podIdle | podActive
	podSettled = podAlive | podTerminating | podTerminal
)

// The steps in the Pod.
const (
	stepsChanged       stepsColumn = 1 << iota // the Pod's annotation has other steps than the Task
	stepsSucceeded                             // all are done, or one finished the sequence; failures were allowed (onError: Continue)
	stepsFailed                                // a failure has ended the sequence, and nothing runs beside it or after it
	stepsHalted                                // the sequence is over, because it was halted
	stepsInterrupted                           // the sequence is over, because the Pod is being ended from outside
	stepsGated                                 // the Pod has scheduling gates
	stepsUnschedulable                         // the scheduler finds no node
	stepsStuck                                 // a container that the current step needs can't start
	stepsRunning                               // steps run
	stepsEnding                                // no further step starts, and containers have not ended yet
	stepsFinal                                 // the others have ended, and a final step runs or is about to run
	stepsFinalStuck                            // the container of the final step that is next can't start
	stepsHeldByHelpers                         // the first step waits for helpers
	stepsBetween                               // the current step is about to run
	stepsStarting                              // the Pod is starting

	stepsWaiting    = stepsGated | stepsUnschedulable | stepsStuck | stepsHeldByHelpers | stepsBetween | stepsStarting
	stepsUnderWay   = stepsWaiting | stepsRunning | stepsInterrupted | stepsEnding
	stepsFinally    = stepsFinal | stepsFinalStuck
	stepsUnfinished = stepsUnderWay | stepsFinally | stepsHalted
	stepsNotDone    = stepsUnfinished | stepsFailed
)

// row is a line of the decision table. Rows exclude each other, so their order has no meaning.
type row struct {
	name string
	when situation
	then func(*next)
}

// goesOn is the situation of a Pod that has time left and is not at its end.
func goesOn(steps stepsColumn) situation {
	return situation{spec: asksNoEnd, time: inTime, pod: podAlive, steps: steps}
}

var rows = []row{
	{"cancelled without a Pod", situation{spec: asksCancel, pod: podMissing | podGone}, (*next).cancelled},
	{"suspended", situation{spec: asksSuspend, pod: podMissing}, (*next).suspended},
	{"timed out without a Pod", situation{spec: asksRun, time: inFinalTime | timedOut, pod: podMissing}, (*next).failTimedOut},
	{"pause before a retry", situation{spec: asksRun, time: inTime, pod: podPaused}, func(n *next) { n.again = n.nextAttempt().Sub(n.now) }},
	{"failed Pod has not ended", situation{spec: asksRun, time: inTime, pod: podBehindFailed}, (*next).waitForFailedPod},
	{"spec can't be run", situation{spec: asksRun, time: inTime, pod: podImpossible}, func(n *next) {
		n.failed(v1alpha1.ReasonSpecInvalid, podspec.ValidateTask(n.task).Error(), n.now)
	}},
	{"resolving a command", situation{spec: asksRun, time: inTime, pod: podResolving}, (*next).keep},
	{"resolving a command takes long", situation{spec: asksRun, time: inTime, pod: podResolvingLong}, (*next).resolving},
	{"command not resolved yet", situation{spec: asksRun, time: inTime, pod: podUnresolved}, (*next).retryLookup},
	{"command can't be resolved", situation{spec: asksRun, time: inTime, pod: podUnresolvable}, func(n *next) {
		n.failed(v1alpha1.ReasonEntrypointUnresolved, n.unresolved.err.Error(), n.now)
	}},
	{"Pod is due", situation{spec: asksRun, time: inTime, pod: podDue}, func(n *next) { n.create = true }},
	{"Pod is gone", situation{spec: asksNoEnd, pod: podGone}, (*next).podDeleted},
	{"name taken by a former Task's Pod", situation{pod: podOfFormerTask}, func(n *next) {
		n.waiting(v1alpha1.ReasonPodNameConflict, fmt.Sprintf("the Pod %q of an earlier Task of this name is still being deleted", n.foreign.Name))
		n.err = errors.New("the Pod of an earlier Task of the same name still exists")
	}},
	{"name taken by another Pod", situation{pod: podForeign}, func(n *next) {
		n.failed(v1alpha1.ReasonPodNameConflict,
			fmt.Sprintf("Pod %q exists and does not belong to this Task; delete or rename it, then create the Task again", n.foreign.Name), n.now)
	}},

	{"final container states are due", situation{pod: podSettling}, (*next).keep},
	{"reason of a kill is due", situation{pod: podKilled}, (*next).keep},
	{"steps annotation was changed", situation{pod: podSettled, steps: stepsChanged}, func(n *next) {
		n.failed(v1alpha1.ReasonPodFailed, fmt.Sprintf("the annotation %s of the Pod %q was changed", contract.StepsAnnotation, n.PodName), n.now)
	}},
	{"all steps succeeded", situation{pod: podSettled, steps: stepsSucceeded}, (*next).complete},

	{"cancelled while unscheduled", situation{spec: asksCancel, pod: podUnbound, steps: stepsNotDone}, (*next).cancelled},
	{"cancelled, and the Pod is deleted", situation{spec: asksCancel, pod: podTerminating, steps: stepsNotDone}, (*next).cancelled},
	{"cancelled, and nothing runs", situation{spec: asksCancel, pod: podIdle | podTerminal, steps: stepsNotDone}, (*next).cancelled},
	{"cancelled while the Pod runs", situation{spec: asksCancel, pod: podActive, steps: stepsNotDone &^ stepsFinally}, func(n *next) {
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonCancelled, "spec.cancel is true: the running containers are being terminated")
	}},
	{"cancelled, and a final step runs or is next", situation{spec: asksCancel, pod: podActive, steps: stepsFinal}, (*next).finalStep},
	{"cancelled, and a final step can't start", situation{spec: asksCancel, pod: podActive, steps: stepsFinalStuck}, (*next).containerStuck},

	{"Pod is being deleted", situation{spec: asksNoEnd, pod: podTerminating, steps: stepsNotDone}, (*next).podDeleted},
	{"step failed", situation{spec: asksNoEnd, pod: podAlive | podTerminal, steps: stepsFailed}, (*next).stepFailed},
	{"Pod ended before its steps", situation{spec: asksNoEnd, pod: podTerminal, steps: stepsUnfinished}, (*next).podEnded},
	{"sequence was halted", situation{spec: asksNoEnd, pod: podAlive, steps: stepsHalted}, (*next).haltedEnd},
	{"timed out while unscheduled", situation{asksNoEnd, timedOut, podUnbound, stepsUnderWay | stepsFinally}, (*next).failTimedOut},
	{"timed out while the Pod runs", situation{asksNoEnd, timedOut, podIdle | podActive, stepsUnderWay | stepsFinally}, (*next).timingOut},
	{"timed out, and final steps follow", situation{asksNoEnd, inFinalTime, podAlive, stepsUnderWay}, (*next).stopForFinals},
	{"final step runs or is next", situation{asksNoEnd, hasTime, podAlive, stepsFinal}, (*next).finalStep},
	{"final step can't start", situation{asksNoEnd, hasTime, podAlive, stepsFinalStuck}, (*next).containerStuck},

	{"interrupted, and the Pod goes on", goesOn(stepsInterrupted), func(*next) {}},
	{"held by scheduling gates", goesOn(stepsGated), (*next).gated},
	{"unschedulable", goesOn(stepsUnschedulable), func(n *next) {
		n.progressing(metav1.ConditionFalse, unscheduled(n.pod).Reason, "the Pod is unschedulable: "+unscheduled(n.pod).Message)
	}},
	{"container can't start", goesOn(stepsStuck), (*next).containerStuck},
	{"step runs", goesOn(stepsRunning), (*next).stepRunning},
	{"halted, and containers have not ended", goesOn(stepsEnding), func(*next) {}},
	{"first step waits for helpers", goesOn(stepsHeldByHelpers), func(n *next) {
		n.starting(works(v1alpha1.ReasonStepWaiting, "step %q waits until the helper containers are ready", n.current.Name))
	}},
	{"next step is about to run", goesOn(stepsBetween), func(n *next) {
		n.starting(works(v1alpha1.ReasonStepWaiting, "step %q is next", n.current.Name))
	}},
	{"Pod is starting", goesOn(stepsStarting), func(n *next) {
		n.starting(works(v1alpha1.ReasonPodCreated, "the Pod %q is starting", n.PodName))
	}},
}

// matches reports whether a row with these sets of values is about the situation.
func (sets situation) matches(s situation) bool {
	return has(sets.spec, s.spec) && has(sets.time, s.time) && has(sets.pod, s.pod) && has(sets.steps, s.steps)
}

func has[T ~uint32](set, value T) bool { return set == 0 || set&value != 0 }

// decide returns the next status, and what is to be done to the Pod before it is written.
func decide(f facts) *next {
	n := nextStatus(f)
	if f.pod == nil && f.foreign == nil && !f.task.Spec.Suspend && !f.task.Spec.Cancel {
		n.start(f.now)
	}
	s := n.situation()
	rows[slices.IndexFunc(rows, func(r row) bool { return r.when.matches(s) })].then(n)
	n.checkDeadline()
	switch {
	case n.pod == nil || !n.isEnd() || n.pod.DeletionTimestamp != nil:
	case isUnbound(n.pod):
		n.removePod()
	case !isPlain(n.seen.plan):
		n.endPod()
	}
	return n
}

// situation classifies the facts.
func (n *next) situation() situation {
	s := situation{spec: asksRun, time: inTime, steps: stepsStarting}
	switch {
	case n.task.Spec.Cancel:
		s.spec = asksCancel
	case n.task.Spec.Suspend:
		s.spec = asksSuspend
	}
	if left, isLimited := n.timeLeft(n.now); isLimited && left <= 0 {
		s.time = timedOut
		if n.pod != nil && !isUnbound(n.pod) && left+n.finalTime() > 0 {
			s.time = inFinalTime
		}
	}
	if n.pod == nil {
		s.pod = n.missingPod()
		return s
	}
	s.pod, s.steps = n.podState(), n.stepsState()
	return s
}

// missingPod classifies the facts of an attempt that has no Pod. The first case that holds counts.
func (n *next) missingPod() podColumn {
	why := n.unresolved
	switch {
	case n.foreign != nil && isOfFormerTask(n.foreign, n.task):
		return podOfFormerTask
	case n.foreign != nil:
		return podForeign
	case n.task.Status.PodName != "":
		return podGone
	case n.nextAttempt().After(n.now):
		return podPaused
	case n.failedPod != nil:
		return podBehindFailed
	case podspec.IsWhole(n.task) && podspec.ValidateTask(n.task) != nil:
		return podImpossible
	case why == nil:
		return podDue
	case why.pending > 0 && (why.err != nil || why.pending < noteLookup || n.progress().Reason == v1alpha1.ReasonEntrypointUnresolved):
		return podResolving
	case why.pending > 0:
		return podResolvingLong
	case isPermanent(why.err), why.refused > 0 && why.refused >= n.startGrace:
		return podUnresolvable
	}
	return podUnresolved
}

// podState classifies the Pod. The first case that holds counts.
func (n *next) podState() podColumn {
	switch {
	case n.settleTime > 0:
		return podSettling
	case n.pod.DeletionTimestamp != nil:
		return podTerminating
	case isTerminal(n.pod.Status.Phase):
		return podTerminal
	case !n.task.Spec.Cancel && isKilled(n.pod): // a cancelled Task has its reason
		return podKilled
	case isUnbound(n.pod):
		return podUnbound
	case isOver(n.pod) && (isPlain(n.seen.plan) || n.seen.isOver):
		return podIdle
	}
	return podActive
}

// stepsState classifies the steps. The first case that holds counts.
func (n *next) stepsState() stepsColumn {
	seen, count, terminating := n.seen, len(n.seen.steps), isTerminating(n.pod)
	unscheduled := unscheduled(n.pod)
	isGraph, isAlive := !isPlain(seen.plan), n.pod.DeletionTimestamp == nil && !isTerminal(n.pod.Status.Phase)
	switch {
	case count == 0 || count != len(stepNames(n.task)):
		return stepsChanged
	case seen.hasSucceeded && (!terminating || !n.wasStopped()):
		return stepsSucceeded
	case seen.failed >= 0 && !terminating && seen.isJudged:
		return stepsFailed
	case seen.finalIsDue && isAlive && len(blocking(n.pod, seen)) > 0:
		return stepsFinalStuck
	case seen.finalIsDue && isAlive:
		return stepsFinal
	case len(n.running) > 0 && unscheduled == nil && !n.isHeldUp():
		return stepsRunning
	case seen.failed >= 0 && terminating, seen.hasSucceeded:
		return stepsInterrupted
	case unscheduled != nil && unscheduled.Reason == corev1.PodReasonSchedulingGated:
		return stepsGated
	case unscheduled != nil:
		return stepsUnschedulable
	case isGraph && seen.halt != "" && seen.isOver:
		return stepsHalted
	case isGraph && seen.halt != "":
		return stepsEnding
	case len(blocking(n.pod, seen)) > 0:
		return stepsStuck
	case n.Phase == v1alpha1.TaskRunning && released(n.pod) == 0:
		return stepsHeldByHelpers
	case n.Phase == v1alpha1.TaskRunning:
		return stepsBetween
	}
	return stepsStarting
}

// wasStopped reports whether a step that no other step follows was told to stop.
func (n *next) wasStopped() bool {
	plan, last := n.seen.plan, []int{len(n.seen.steps) - 1}
	if plan.Work() == len(plan.Steps) {
		last = plan.Sinks()
	}
	return slices.ContainsFunc(last, func(i int) bool { return n.seen.steps[i].Reason == contract.ReasonStopped })
}

// isHeldUp reports whether the container of a step whose turn has come can't start, although steps beside it run.
func (n *next) isHeldUp() bool {
	return !isPlain(n.seen.plan) && n.seen.halt == "" && slices.ContainsFunc(blocking(n.pod, n.seen), func(container corev1.ContainerStatus) bool {
		isStep := func(step v1alpha1.StepStatus) bool { return step.Name == container.Name }
		return slices.ContainsFunc(n.seen.steps, isStep) && container.State.Waiting.Reason != reasonCrashLoop && !lacksAgent(n.pod, container)
	})
}
