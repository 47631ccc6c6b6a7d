package sequence

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
)

// Records are what is known of a Pod.
type Records struct {
	// States has one element per step of the plan.
	States []State
	// Order is the highest released stage: the Pod's order annotation. 0: none.
	Order int
	// Halted reports whether the controller has ended the sequence: the Pod's halt annotation is set.
	Halted bool
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
	// Passed counts the steps that passed, each after its predecessors.
	Passed int
	// EndedBy is the index of the first step that ended the sequence, or None.
	EndedBy int
	// Order is the highest stage that may be released, because all steps of the stages before it passed. It is at most the last stage, and
	// does not take Halted or EndedBy into account.
	Order int
	// IsOver reports whether no step runs and none will.
	IsOver bool
}

// Decide applies the rule of the package to what is known.
func Decide(plan Plan, known Records) Decision {
	p := Begin(plan)
	for i, state := range known.States {
		p.Add(i, state)
	}
	return p.Decide(known.Order, known.Halted)
}

// Progress evaluates the states of a plan's steps one by one, in the order of the plan. For callers that need to know whether a step's turn
// has come before they can tell its state; all others call Decide.
type Progress struct {
	plan    Plan
	states  []State
	passed  []bool
	count   int
	endedBy int
}

// Begin returns a Progress without states.
func Begin(plan Plan) *Progress {
	return &Progress{plan: plan, states: make([]State, len(plan.Steps)), passed: make([]bool, len(plan.Steps)), endedBy: None}
}

// HasTurn reports whether the turn of step i has come: all of its predecessors passed. Their states must have been added.
func (p *Progress) HasTurn(i int) bool {
	for _, before := range p.plan.Steps[i].After {
		if !p.passed[before] {
			return false
		}
	}
	return true
}

// EndedBy returns the index of the first step so far that ended the sequence, or None.
func (p *Progress) EndedBy() int { return p.endedBy }

// Add adds the state of step i. The states of its predecessors must have been added.
func (p *Progress) Add(i int, state State) {
	p.states[i] = state
	if !p.HasTurn(i) {
		return
	}
	switch {
	case state == Succeeded, state == Failed && p.plan.Steps[i].OnError == Continue:
		p.passed[i] = true
		p.count++
	case state == Failed, state == Interrupted, state == Skipped:
		if p.endedBy == None {
			p.endedBy = i
		}
	}
}

// Decide returns what follows from the states that were added. A step without one is Waiting.
func (p *Progress) Decide(order int, halted bool) Decision {
	d := Decision{Verdicts: make([]Verdict, len(p.states)), Passed: p.count, EndedBy: p.endedBy, IsOver: true}
	last, open := 0, 0 // the last stage, and the first one with a step that has not passed
	for i, state := range p.states {
		stage := p.plan.Steps[i].Stage
		last = max(last, stage)
		if !p.passed[i] && (open == 0 || stage < open) {
			open = stage
		}
		d.Verdicts[i] = p.verdict(i, order, halted)
		if state == Running || d.Verdicts[i] == Run || d.Verdicts[i] == Wait {
			d.IsOver = false
		}
	}
	if d.Order = open; open == 0 {
		d.Order = last
	}
	return d
}

// verdict is the table in the documentation of the package.
func (p *Progress) verdict(i, order int, halted bool) Verdict {
	switch {
	case p.states[i] != Waiting:
		return Begun
	case halted:
		return Skip
	case order >= p.plan.Steps[i].Stage:
		return Run
	case p.endedBy != None:
		return Skip
	case len(p.plan.Steps[i].After) > 0 && p.HasTurn(i):
		return Run
	}
	return Wait
}
