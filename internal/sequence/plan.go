package sequence

import (
	"errors"
	"strconv"
)

// OnError says what the failure of a step means for the sequence.
type OnError uint8

const (
	// Stop ends the sequence: no further step starts. It is the default.
	Stop OnError = iota
	// Continue lets the failed step pass.
	Continue
	// FailAtEnd lets the failed step pass, and the sequence fails when it is over.
	FailAtEnd
)

// Step is one step of a Plan.
type Step struct {
	// Name of the step's container. An agent that knows only the number of a step leaves it empty.
	Name string
	// After lists the predecessors: the indexes of the steps that must pass before this one runs. Each is lower than the step's own index,
	// so that a plan has no cycles. Empty: the step runs as soon as the order releases it. NewPlan sets it for a final step: the first one follows
	// all steps that are not final, and each other one the final step before it.
	After []int
	// OnError says what the failure of this step means. A final step that failed lets the next final step run in any case.
	OnError OnError
	// IsFinal means that the step runs when all steps that are not final are over, however they ended. Final steps stand behind all others.
	IsFinal bool
	// Stage is the step's number, counted from 1: the order k releases all steps up to stage k. NewPlan computes it.
	Stage int
}

// Plan is the steps of a Pod and how they follow each other.
type Plan struct {
	Steps []Step
}

// NewPlan returns the plan of the steps and computes their stages: 1 plus the greatest stage of the predecessors. It fails if a predecessor
// does not stand before its step or is final, or if a step stands behind a final one.
func NewPlan(steps []Step) (Plan, error) {
	for i := range steps {
		step := &steps[i]
		isBehindFinal := i > 0 && steps[i-1].IsFinal
		switch {
		case isBehindFinal && !step.IsFinal:
			return Plan{}, errors.New("step " + strconv.Quote(step.Name) + " must stand before all final steps in the list")
		case isBehindFinal:
			step.After = []int{i - 1}
		case step.IsFinal:
			step.After = make([]int, i)
			for before := range i {
				step.After[before] = before
			}
		}
		step.Stage = 1
		for _, before := range step.After {
			if before < 0 || before >= i {
				return Plan{}, errors.New("step " + strconv.Quote(step.Name) + " must follow steps that stand before it in the list")
			}
			step.Stage = max(step.Stage, steps[before].Stage+1)
		}
	}
	return Plan{Steps: steps}, nil
}

// IsChain reports whether each step that is not final follows the one before it alone.
func (p Plan) IsChain() bool {
	for i, step := range p.Steps[:p.Work()] {
		if step.Stage != i+1 || len(step.After) > 1 {
			return false
		}
	}
	return true
}

// Work returns how many steps are not final. They stand before the final ones.
func (p Plan) Work() int {
	n := len(p.Steps)
	for n > 0 && p.Steps[n-1].IsFinal {
		n--
	}
	return n
}

// Sinks returns the indexes of the steps that are not final and that no other such step follows.
func (p Plan) Sinks() []int {
	work := p.Work()
	hasSuccessor := make([]bool, work)
	for _, step := range p.Steps[:work] {
		for _, before := range step.After {
			hasSuccessor[before] = true
		}
	}
	var sinks []int
	for i, has := range hasSuccessor {
		if !has {
			sinks = append(sinks, i)
		}
	}
	return sinks
}

// Chain returns the plan in which each step follows the one before it.
func Chain(names []string) Plan {
	steps := make([]Step, len(names))
	after := make([]int, len(names))
	for i, name := range names {
		steps[i] = Step{Name: name, Stage: i + 1}
		if i > 0 {
			after[i] = i - 1
			steps[i].After = after[i : i+1 : i+1]
		}
	}
	return Plan{Steps: steps}
}

// Behind returns the plan that the agent of a step sees. Its last step is the agent's own. The others are its predecessors and further steps whose
// records it reads, as if the turn of each had come: an agent ends with a record only if its own gate let it.
func Behind(before, others []Step, own Step) Plan {
	plan := Plan{Steps: make([]Step, 0, len(before)+len(others)+1)}
	own.After = make([]int, len(before))
	for i := range before {
		own.After[i] = i
	}
	for _, steps := range [][]Step{before, others, {own}} {
		plan.Steps = append(plan.Steps, steps...)
	}
	return plan
}
