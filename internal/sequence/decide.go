package sequence

import "slices"

// State is what is known of a step. The zero value is Waiting.
type State uint8

const (
	// Waiting means that nothing shows that the command started.
	Waiting State = iota
	// Running means that the command started, and its end is not known or not final. A failed step that the kubelet restarts is Running, and so is
	// one that was told to stop if it is not clear yet whether that concerns the whole Pod.
	Running
	// Succeeded means that the command ended with exit code 0.
	Succeeded
	// Failed means that the command ended with another exit code, or could not be started.
	Failed
	// Interrupted means that the step ended because it was told to. Nothing follows it, whatever OnError says.
	Interrupted
	// Skipped means that the command never ran, because the sequence had ended.
	Skipped
	// Finished means that the command ended with an exit code that ends the sequence well.
	Finished
	// WhenFalse means that the command never ran, because a condition of the step did not hold.
	WhenFalse
)

// Records are what is known of a Pod.
type Records struct {
	// States has one element per step of the plan.
	States []State
	// Order is the highest released stage: the Pod's order annotation. 0: none.
	Order int
	// Halted reports whether the controller has ended the sequence: the Pod's halt annotation is set. Final steps run nevertheless.
	Halted bool
	// FinallyHalted reports whether the controller has ended the final steps, too: the Pod's halt-finally annotation is set.
	FinallyHalted bool
}

// Verdict is what a step may do.
type Verdict uint8

const (
	// Wait means that the turn of the step has not come.
	Wait Verdict = iota
	// Run means that the step may start its command.
	Run
	// Skip means that the step never runs.
	Skip
	// Begun means that the step runs or has ended, so there is nothing to decide.
	Begun
)

// None stands for no step where the index of a step is expected.
const None = -1

// Decision is what follows from the records.
type Decision struct {
	// Verdicts has one element per step of the plan.
	Verdicts []Verdict
	// Passed counts the steps that passed, each after its predecessors. Final steps that ended by themselves passed.
	Passed int
	// EndedBy is the index of the first step that ended the sequence, or None. A step that was skipped counts only if no other one ended it.
	EndedBy int
	// FailedBy is the index of the step because of which the sequence fails, or None: the first one that ended it and did not finish it, even
	// if another one finished it; else the first step that failed with FailAtEnd; else the first final step that failed.
	FailedBy int
	// Order is the highest stage that may be released, because all steps of the stages before it passed. It is at most the last stage. Among
	// the steps that are not final, it does not take Halted or EndedBy into account. It is the stage of a final step only if WorkIsOver.
	Order int
	// WorkIsOver reports whether no step that is not final runs, and none will.
	WorkIsOver bool
	// IsOver reports whether no step runs and none will.
	IsOver bool
}

// Decide applies the rule of the package to what is known.
func Decide(plan Plan, known Records) Decision {
	p := Begin(plan)
	for i, state := range known.States {
		p.Add(i, state)
	}
	return p.Decide(known)
}

// Progress evaluates the states of a plan's steps one by one, in the order of the plan. For callers that need to know whether a step's turn
// has come before they can tell its state; all others call Decide.
type Progress struct {
	plan    Plan
	states  []State
	passed  []bool
	failed  []bool // ended the sequence, and not well
	count   int
	endedBy int
}

// Begin returns a Progress without states.
func Begin(plan Plan) *Progress {
	return &Progress{plan: plan, states: make([]State, len(plan.Steps)), passed: make([]bool, len(plan.Steps)), failed: make([]bool, len(plan.Steps)), endedBy: None}
}

// HasTurn reports whether the turn of step i has come: all of its predecessors passed. Their states must have been added. The turn of a final
// step can come without it.
func (p *Progress) HasTurn(i int) bool {
	for _, before := range p.plan.Steps[i].After {
		if !p.passed[before] {
			return false
		}
	}
	return true
}

// HasPassed reports whether step i passed.
func (p *Progress) HasPassed(i int) bool { return p.passed[i] }

// HasFailed reports whether step i, which is not final, failed the sequence: its turn had come, and it failed with Stop or was interrupted.
// Several steps side by side can have.
func (p *Progress) HasFailed(i int) bool { return p.failed[i] }

// MayHandOver reports whether the records of other steps release step i, without the order.
func (p *Progress) MayHandOver(i int) bool {
	step := p.plan.Steps[i]
	return len(step.After) > 0 && p.HasTurn(i) && (!step.IsFinal || p.mayHandOverToFinal(i))
}

// EndedBy returns the index of the first step so far that ended the sequence, or None.
func (p *Progress) EndedBy() int { return p.endedBy }

// Add adds the state of step i. The states of its predecessors must have been added.
func (p *Progress) Add(i int, state State) {
	p.states[i] = state
	step := p.plan.Steps[i]
	if !step.IsFinal && !p.HasTurn(i) {
		return
	}
	switch {
	case state == Succeeded, state == WhenFalse, state == Failed && (step.OnError != Stop || step.IsFinal), state == Finished && step.IsFinal:
		p.passed[i] = true
		p.count++
	case step.IsFinal:
	case state == Failed, state == Interrupted, state == Skipped, state == Finished:
		p.failed[i] = state == Failed || state == Interrupted
		if p.endedBy == None || p.states[p.endedBy] == Skipped && state != Skipped {
			p.endedBy = i
		}
	}
}

// Decide returns what follows from the states that were added. A step without one is Waiting. The States of the records do not count.
func (p *Progress) Decide(known Records) Decision {
	d := Decision{Verdicts: make([]Verdict, len(p.states)), Passed: p.count, EndedBy: p.endedBy, FailedBy: p.failedBy(), WorkIsOver: true, IsOver: true}
	last, open, final := 0, 0, 0 // the last stage, the first one with a step that has not passed, and the stage of the first final step that waits
	for i, state := range p.states {
		step := p.plan.Steps[i]
		d.Verdicts[i] = p.verdict(i, known)
		isOver := state != Running && d.Verdicts[i] != Run && d.Verdicts[i] != Wait
		d.IsOver = d.IsOver && isOver
		last = max(last, step.Stage)
		switch {
		case !step.IsFinal:
			d.WorkIsOver = d.WorkIsOver && isOver
			if !p.passed[i] && (open == 0 || step.Stage < open) {
				open = step.Stage
			}
		case final == 0 && !isOver:
			final = step.Stage
		}
	}
	switch {
	case d.WorkIsOver && final > 0:
		d.Order = final
	case open > 0:
		d.Order = open
	default:
		d.Order = last
	}
	return d
}

// failedBy returns Decision.FailedBy.
func (p *Progress) failedBy() int {
	if first := slices.Index(p.failed, true); first != None {
		return first
	}
	if p.endedBy != None && p.states[p.endedBy] == Skipped {
		return p.endedBy
	}
	final := None
	for i, state := range p.states {
		step := p.plan.Steps[i]
		switch {
		case step.IsFinal:
			if final == None && (state == Failed && step.OnError != Continue || state == Interrupted) {
				final = i
			}
		case state == Failed && p.passed[i] && step.OnError == FailAtEnd:
			return i
		}
	}
	return final
}

// verdict is the table in the documentation of the package.
func (p *Progress) verdict(i int, known Records) Verdict {
	step := p.plan.Steps[i]
	isHalted, endedBy := known.Halted, p.endedBy
	if step.IsFinal {
		isHalted, endedBy = known.FinallyHalted, None
	}
	switch {
	case p.states[i] != Waiting:
		return Begun
	case isHalted:
		return Skip
	case known.Order >= step.Stage:
		return Run
	case endedBy != None:
		return Skip
	case p.MayHandOver(i):
		return Run
	}
	return Wait
}

// mayHandOverToFinal reports whether final step i, whose turn has come, may run without the controller. The first one may only after success, because its command is
// told how the others ended. Each other one follows the final step before it.
func (p *Progress) mayHandOverToFinal(i int) bool {
	after := p.plan.Steps[i].After
	if p.plan.Steps[after[0]].IsFinal {
		return true
	}
	for before, step := range p.plan.Steps {
		if !step.IsFinal && (!p.passed[before] || p.states[before] == Failed && step.OnError == FailAtEnd) {
			return false
		}
	}
	return true
}
