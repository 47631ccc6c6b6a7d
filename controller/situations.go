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
	inTime timeColumn = 1 << iota
	timedOut
)

// The Pod of the current attempt.
const (
	podPaused        podColumn = 1 << iota // not created: the pause after a failed attempt lasts
	podBehindFailed                        // not created: containers of the failed attempt's Pod may still run
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
	podIdle                                // no step runs, and none can
	podActive

	podMissing = podPaused | podBehindFailed | podResolving | podResolvingLong | podUnresolved | podUnresolvable | podDue
	podAlive   = podUnbound | podIdle | podActive
	podSettled = podAlive | podTerminating | podTerminal
)

// The steps in the Pod.
const (
	stepsChanged       stepsColumn = 1 << iota // the Pod's annotation has other steps than the Task
	stepsSucceeded                             // all are done; failures were allowed (onError: Continue)
	stepsFailed                                // a failure ends the sequence
	stepsInterrupted                           // the sequence is over, because the Pod is being ended from outside
	stepsGated                                 // the Pod has scheduling gates
	stepsUnschedulable                         // the scheduler finds no node
	stepsStuck                                 // a container that the current step needs can't start
	stepsRunning                               // the current step runs
	stepsHeldByHelpers                         // the first step waits for helpers
	stepsBetween                               // the current step is about to run
	stepsStarting                              // the Pod is starting

	stepsWaiting    = stepsGated | stepsUnschedulable | stepsStuck | stepsHeldByHelpers | stepsBetween | stepsStarting
	stepsUnfinished = stepsWaiting | stepsRunning | stepsInterrupted
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
	{"timed out without a Pod", situation{spec: asksRun, time: timedOut, pod: podMissing}, (*next).failTimedOut},
	{"pause before a retry", situation{spec: asksRun, time: inTime, pod: podPaused}, func(n *next) { n.again = n.nextAttempt().Sub(n.now) }},
	{"failed Pod has not ended", situation{spec: asksRun, time: inTime, pod: podBehindFailed}, (*next).waitForFailedPod},
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
	{"cancelled while the Pod runs", situation{spec: asksCancel, pod: podActive, steps: stepsNotDone}, func(n *next) {
		n.progressing(metav1.ConditionTrue, v1alpha1.ReasonCancelled, "spec.cancel is true: the running containers are being terminated")
	}},

	{"Pod is being deleted", situation{spec: asksNoEnd, pod: podTerminating, steps: stepsNotDone}, (*next).podDeleted},
	{"step failed", situation{spec: asksNoEnd, pod: podAlive | podTerminal, steps: stepsFailed}, (*next).stepFailed},
	{"Pod ended before its steps", situation{spec: asksNoEnd, pod: podTerminal, steps: stepsUnfinished}, (*next).podEnded},
	{"timed out while unscheduled", situation{asksNoEnd, timedOut, podUnbound, stepsUnfinished}, (*next).failTimedOut},
	{"timed out while the Pod runs", situation{asksNoEnd, timedOut, podIdle | podActive, stepsUnfinished}, (*next).timingOut},

	{"interrupted, and the Pod goes on", goesOn(stepsInterrupted), func(*next) {}},
	{"held by scheduling gates", goesOn(stepsGated), (*next).gated},
	{"unschedulable", goesOn(stepsUnschedulable), func(n *next) {
		n.progressing(metav1.ConditionFalse, unscheduled(n.pod).Reason, "the Pod is unschedulable: "+unscheduled(n.pod).Message)
	}},
	{"container can't start", goesOn(stepsStuck), (*next).containerStuck},
	{"step runs", goesOn(stepsRunning), (*next).stepRunning},
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
	if n.pod != nil && n.isEnd() && isUnbound(n.pod) && n.pod.DeletionTimestamp == nil {
		n.removePod()
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
	if n.isTimedOut(n.now) {
		s.time = timedOut
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
	case isOver(n.pod):
		return podIdle
	}
	return podActive
}

// stepsState classifies the steps. The first case that holds counts.
func (n *next) stepsState() stepsColumn {
	count, terminating := len(n.seen.steps), isTerminating(n.pod)
	unscheduled := unscheduled(n.pod)
	switch {
	case count == 0 || count != len(stepNames(n.task)):
		return stepsChanged
	case n.seen.done == count && (!terminating || n.seen.steps[count-1].Reason != contract.ReasonStopped):
		return stepsSucceeded
	case n.seen.failed >= 0 && !terminating:
		return stepsFailed
	case n.current.State == v1alpha1.StepRunning && unscheduled == nil:
		return stepsRunning
	case n.seen.failed >= 0, n.seen.done == count:
		return stepsInterrupted
	case unscheduled != nil && unscheduled.Reason == corev1.PodReasonSchedulingGated:
		return stepsGated
	case unscheduled != nil:
		return stepsUnschedulable
	case len(blocking(n.pod, n.current.Name)) > 0:
		return stepsStuck
	case n.Phase == v1alpha1.TaskRunning && released(n.pod) == 0:
		return stepsHeldByHelpers
	case n.Phase == v1alpha1.TaskRunning:
		return stepsBetween
	}
	return stepsStarting
}
