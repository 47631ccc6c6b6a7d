package controller

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// stepReader reads the steps of a Pod one by one, because what a container says counts only once the turn of its step has come.
type stepReader struct {
	pod      *corev1.Pod
	plan     sequence.Plan
	options  contract.Options
	statuses map[string]*corev1.ContainerStatus
	// told is the outcome in the Pod's annotation.
	told contract.Outcome
	// isPlain reports whether each step follows the one before it, and none is final.
	isPlain bool
	// order is the order in the annotation, and workOrder as far as it released steps that are not final: after a halt, the order goes on for
	// the final steps alone.
	order, workOrder int
	// firstFinal is the stage of the first final step.
	firstFinal int
	// halt is the reason for a halt, and follows reports whether agents hand over ahead of the annotation. If only the controller releases steps,
	// a halt means that it released no further one.
	halt    string
	follows bool
	// late is the name of a final step whose container can't start, and that is to be given up; or empty.
	late string

	progress *sequence.Progress
	states   []sequence.State
	recorded []bool
	// overruled is the stage of the last step whose claim that it was skipped does not count, or 0.
	overruled int
}

func newReader(pod *corev1.Pod, halt string) *stepReader {
	plan, options := planOf(pod)
	isHalted := pod.Annotations[contract.HaltAnnotation] != ""
	r := &stepReader{
		pod: pod, plan: plan, options: options, statuses: map[string]*corev1.ContainerStatus{}, isPlain: isPlain(plan),
		order: released(pod), workOrder: released(pod), firstFinal: math.MaxInt, halt: halt,
		follows:  pod.Annotations[contract.HandoffAnnotation] != contract.HandoffController || !isHalted,
		progress: sequence.Begin(plan), states: make([]sequence.State, len(plan.Steps)), recorded: make([]bool, len(plan.Steps)),
	}
	r.told, _ = contract.ParseOutcome(pod.Annotations[contract.OutcomeAnnotation])
	if work := plan.Work(); work < len(plan.Steps) {
		r.firstFinal = plan.Steps[work].Stage
	}
	if isHalted && r.order >= r.firstFinal {
		r.workOrder = 0
	}
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		r.statuses[status.Name] = status
	}
	return r
}

// read returns what the containers say about the steps.
func (r *stepReader) read() observation {
	o := observation{
		plan: r.plan, failed: sequence.None, next: sequence.None, order: r.order, halt: r.halt, turns: make([]bool, len(r.plan.Steps)),
	}
	for i, planned := range r.plan.Steps {
		options := r.options[planned.Name]
		o.checks = append(o.checks, len(options.When) > 0 || len(options.Inputs) > 0)
		step, isInterrupted := r.readStep(&o, i)
		describePlace(&step, r.plan, planned)
		r.states[i] = stateOf(step, isInterrupted)
		r.progress.Add(i, r.states[i])
		if o.failed == sequence.None && r.progress.HasFailed(i) {
			o.failed = i
		}
		o.turns[i] = !planned.IsFinal && r.progress.HasTurn(i)
		if r.recorded[i] {
			step.FinishedAt = notBefore(step.FinishedAt, step.StartedAt)
		}
		step.Duration = stepDuration(step)
		step.Reason, step.Message, step.ImageID = cleanReason(step.Reason, ""), clean(step.Message, maxStepMessage), clean(step.ImageID, maxMessage)
		o.steps = append(o.steps, step)
	}
	o.failed = r.failedBy(o.steps)
	return o
}

// readStep returns the status of step i, and whether it was interrupted. o has the steps before it.
func (r *stepReader) readStep(o *observation, i int) (step v1alpha1.StepStatus, isInterrupted bool) {
	planned, options := r.plan.Steps[i], r.options[r.plan.Steps[i].Name]
	status := cmp.Or(r.statuses[planned.Name], &corev1.ContainerStatus{})
	step, recorded := observeStep(planned.Name, status, r.pod, r.isReleased(o, i), options)
	r.recorded[i] = recorded
	if step.Reason == contract.ReasonHaltMissing {
		step.Message = r.withName(step.Message)
	}
	signaled := step.Reason == contract.ReasonSignaled
	switch { // the agent can't tell whether the signal was the stop signal of its container, and the controller can
	case signaled && isTerminating(r.pod):
		step.Reason = contract.ReasonStopped
	case signaled:
		step.Reason = status.State.Terminated.Reason
	}
	if (!recorded || signaled) && options.Timeout > 0 && step.Reason == "Error" && step.ExitCode != nil && *step.ExitCode == contract.ExitTimeout {
		step.Reason = contract.ReasonTimedOut
	}
	o.boundStart(&step, r.pod, planned, recorded)
	if step.State == v1alpha1.StepSkipped && step.Reason != contract.ReasonWhenFalse && r.isLie(i) {
		step = withoutClaim(step, *status.State.Terminated)
		r.overruled = planned.Stage
	}
	if r.giveUp(&step, i) {
		return step, !planned.IsFinal // nothing follows it, whatever OnError says
	}
	isInterrupted = contract.IsInterrupted(step.Reason) || !recorded && isTerminating(r.pod) && hasKillExitCode(step)
	if step.Reason == contract.ReasonCancelled && !planned.IsFinal && r.pod.Annotations[contract.CancelAnnotation] == contract.CancelDeadlineExceeded {
		step.Reason = v1alpha1.ReasonDeadlineExceeded // the agent knows only that it was to end the command
	}
	if o.failed != sequence.None && !planned.IsFinal && !r.progress.HasTurn(i) && neverRan(step, recorded, o.steps[o.failed]) {
		step.State, step.Reason, step.ExitCode, step.StartedAt = v1alpha1.StepSkipped, contract.ReasonSkipped, nil, nil
	}
	return step, isInterrupted
}

// withName puts the name of a step in the place of its number, with which an agent's sentence begins: agents don't know names.
func (r *stepReader) withName(message string) string {
	var number int
	if _, err := fmt.Sscanf(message, "step %d", &number); err != nil || number < 1 || number > len(r.plan.Steps) {
		return message
	}
	return strings.Replace(message, fmt.Sprintf("step %d ", number), fmt.Sprintf("step %q ", r.plan.Steps[number-1].Name), 1)
}

// isReleased reports whether step i was released, as far as the steps before it and the order tell.
func (r *stepReader) isReleased(o *observation, i int) bool {
	order := r.workOrder
	if r.plan.Steps[i].IsFinal {
		order = r.order
	}
	return r.plan.Steps[i].Stage <= order || r.follows && r.progress.MayHandOver(i) || r.plan.IsChain() && !r.plan.Steps[i].IsFinal && o.releasedBehindFailure(i)
}

// isLie reports whether a step that claims to have been skipped has run: its turn had come, and nothing had ended the sequence, or a later step
// was released. The outcome, once it is told, keeps what was decided.
func (r *stepReader) isLie(i int) bool {
	planned := r.plan.Steps[i]
	switch {
	case !r.isPlain && r.told.Steps[i+1].State == contract.Succeeded:
		return true
	case planned.IsFinal:
		return r.pod.Annotations[contract.HaltFinallyAnnotation] == "" || planned.Stage < r.order
	}
	return r.progress.HasTurn(i) && r.progress.EndedBy() == sequence.None && (r.halt == "" || planned.Stage < r.workOrder)
}

// failedBy returns the index of the step because of which the sequence fails, or sequence.None: of several that ended it side by side, the one
// that ended first. A step that was skipped is not the cause.
func (r *stepReader) failedBy(steps []v1alpha1.StepStatus) int {
	by := r.progress.Decide(sequence.Records{}).FailedBy
	if by == sequence.None || steps[by].State != v1alpha1.StepFailed {
		return sequence.None
	}
	isEarlier := func(a, b v1alpha1.StepStatus) bool { // a step that waited for a halt in vain is not the cause
		if isGivenUp(a) || isGivenUp(b) { // the halt names it
			return isGivenUp(a)
		}
		if waited := a.Reason == contract.ReasonHaltMissing; waited != (b.Reason == contract.ReasonHaltMissing) {
			return !waited
		}
		return a.FinishedAt != nil && (b.FinishedAt == nil || a.FinishedAt.Before(b.FinishedAt))
	}
	for i := by + 1; i < len(steps) && r.progress.HasFailed(by); i++ {
		if r.progress.HasFailed(i) && isEarlier(steps[i], steps[by]) {
			by = i
		}
	}
	return by
}

// holdBack corrects the steps beside a step that ended the sequence. An agent whose predecessors passed after that waits for the halt, although its
// container runs. One that waited in vain was skipped.
func (r *stepReader) holdBack(o *observation) {
	if r.isPlain {
		return
	}
	var end *metav1.MicroTime // of the first step that ended the sequence and has a record, which the others have read
	for i, step := range o.steps {
		ended := r.progress.HasFailed(i) || r.states[i] == sequence.Finished
		if ended && r.recorded[i] && step.FinishedAt != nil && (end == nil || step.FinishedAt.Before(end)) {
			end = step.FinishedAt
		}
	}
	for i := range o.steps {
		step, planned := &o.steps[i], r.plan.Steps[i]
		switch {
		case planned.IsFinal:
		case step.State == v1alpha1.StepFailed && step.Reason == contract.ReasonHaltMissing && o.failed != i && o.failed != sequence.None:
			step.State, step.Reason, step.Message, step.ExitCode = v1alpha1.StepSkipped, contract.ReasonSkipped, "", nil
			r.set(i, sequence.Skipped)
		case step.State == v1alpha1.StepRunning && planned.Stage > r.workOrder && end != nil && !o.lastEnd(planned, hasFinished).Before(end):
			step.State, step.StartedAt = v1alpha1.StepWaiting, nil
			r.set(i, sequence.Waiting)
		}
	}
}

func (r *stepReader) set(i int, state sequence.State) {
	r.states[i] = state
	r.progress.Add(i, state)
}

// hasFinished reports whether the end of a step is known, and hadTurn whether the step had its turn before. The container of another one may be
// late, and end while a final step runs.
func hasFinished(step v1alpha1.StepStatus) bool { return step.FinishedAt != nil }

func hadTurn(step v1alpha1.StepStatus) bool {
	return hasFinished(step) && (step.StartedAt != nil || step.Reason == contract.ReasonWhenFalse || step.Reason == contract.ReasonInputInvalid)
}

// lastEnd returns when the last predecessor of a step that counts ended, or nil.
func (o *observation) lastEnd(planned sequence.Step, counts func(v1alpha1.StepStatus) bool) *metav1.MicroTime {
	var last *metav1.MicroTime
	for _, before := range planned.After {
		if end := o.steps[before].FinishedAt; counts(o.steps[before]) && (last == nil || last.Before(end)) {
			last = end
		}
	}
	return last
}

// boundStart makes a step start after its predecessors ended, and the first one after the helpers started. Without a record, only the start
// of the container is known, and the agent has waited in it since.
func (o *observation) boundStart(step *v1alpha1.StepStatus, pod *corev1.Pod, planned sequence.Step, recorded bool) {
	if len(planned.After) == 0 && !recorded && step.State == v1alpha1.StepRunning {
		step.StartedAt = notBefore(step.StartedAt, lastHelperStart(pod))
	}
	step.StartedAt = notBefore(step.StartedAt, o.lastEnd(planned, hadTurn))
}

// describePlace tells where a step stands in a sequence that is no chain.
func describePlace(step *v1alpha1.StepStatus, plan sequence.Plan, planned sequence.Step) {
	if plan.IsChain() {
		return
	}
	step.Stage = int32(planned.Stage) //nolint:gosec // at most 100
	for _, before := range planned.After {
		if !planned.IsFinal {
			step.DependsOn = append(step.DependsOn, plan.Steps[before].Name)
		}
	}
}

// stateOf returns what the rule takes a step for.
func stateOf(step v1alpha1.StepStatus, isInterrupted bool) sequence.State {
	switch {
	case step.State == v1alpha1.StepRunning:
		return sequence.Running
	case step.State == v1alpha1.StepSucceeded && step.Reason == contract.ReasonFinished:
		return sequence.Finished
	case step.State == v1alpha1.StepSucceeded:
		return sequence.Succeeded
	case step.State == v1alpha1.StepSkipped && step.Reason == contract.ReasonWhenFalse:
		return sequence.WhenFalse
	case step.State == v1alpha1.StepSkipped:
		return sequence.Skipped
	case step.State == v1alpha1.StepFailed && isInterrupted:
		return sequence.Interrupted
	case step.State == v1alpha1.StepFailed:
		return sequence.Failed
	}
	return sequence.Waiting
}

// outcome returns the value of the outcome annotation that goes with a new order or halt, or "".
func (r *stepReader) outcome(o *observation) string {
	hasConditions := slices.ContainsFunc(slices.Collect(maps.Values(r.options)), func(step contract.StepOptions) bool { return len(step.When) > 0 })
	isFinal := o.order >= r.firstFinal
	isHalting := o.halt != r.pod.Annotations[contract.HaltAnnotation] && !r.isPlain // the ends of steps no longer change
	if o.order == r.order && !isHalting || !hasConditions && !isFinal && !isHalting {
		return ""
	}
	told := contract.Outcome{Steps: map[int]contract.End{}}
	for i, step := range o.steps {
		if !hasEnded(step) && step.State != v1alpha1.StepSkipped {
			continue
		}
		end := contract.End{State: string(step.State), ExitCode: -1}
		if step.ExitCode != nil {
			end.ExitCode = int(*step.ExitCode)
		}
		told.Steps[i+1] = end
	}
	switch {
	case r.told.Status != "": // it was told once
		told.Status, told.FailedStep = r.told.Status, r.told.FailedStep
	case isFinal:
		told.Status, told.FailedStep = r.finalStatus(o)
	}
	return told.Marshal()
}

// finalStatus returns what the final steps are told about the others.
func (r *stepReader) finalStatus(o *observation) (status, failedStep string) {
	work := r.plan.Work()
	ended := r.progress.EndedBy()
	isFinished := ended != sequence.None && r.states[ended] == sequence.Finished
	hasFailed := o.failed != sequence.None && o.failed < work
	hasPassed := true
	for i := range work {
		hasPassed = hasPassed && r.progress.HasPassed(i)
	}
	switch {
	case !hasFailed && (hasPassed || isFinished):
		return contract.Succeeded, ""
	case r.pod.Annotations[contract.CancelAnnotation] == contract.CancelCancelled:
		return contract.Cancelled, ""
	case hasFailed:
		return contract.Failed, o.steps[o.failed].Name
	}
	for _, container := range stuck(r.pod) {
		if i := slices.IndexFunc(o.steps[:work], func(step v1alpha1.StepStatus) bool { return step.Name == container.Name }); i >= 0 && o.turns[i] {
			return contract.Failed, container.Name
		}
	}
	return contract.Failed, ""
}
