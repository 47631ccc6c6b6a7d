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
)

// Step is one step of a Plan.
type Step struct {
	// Name of the step's container. An agent that knows only the number of a step leaves it empty.
	Name string
	// After lists the predecessors: the indexes of the steps that must pass before this one runs. Each is lower than the step's own index,
	// so that a plan has no cycles. Empty: the step runs as soon as the order releases it.
	After []int
	// OnError says what the failure of this step means.
	OnError OnError
	// Stage is the step's number, counted from 1: the order k releases all steps up to stage k. NewPlan computes it.
	Stage int
}

// Plan is the steps of a Pod and how they follow each other.
type Plan struct {
	Steps []Step
}

// NewPlan returns the plan of the steps and computes their stages: 1 plus the greatest stage of the predecessors. It fails if a predecessor
// does not stand before its step.
func NewPlan(steps []Step) (Plan, error) {
	for i := range steps {
		step := &steps[i]
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

// Behind returns the plan that the agent of a step sees. Its last step is the agent's own, at the given stage. The others are its
// predecessors, one for each element of before, as if the turn of each had come: an agent ends with a record only if its own gate let it.
func Behind(before []OnError, stage int) Plan {
	plan := Plan{Steps: make([]Step, len(before)+1)}
	own := &plan.Steps[len(before)]
	own.Stage = stage
	for i, onError := range before {
		plan.Steps[i] = Step{OnError: onError, Stage: stage}
		own.After = append(own.After, i)
	}
	return plan
}
