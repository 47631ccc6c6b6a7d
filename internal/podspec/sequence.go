package podspec

import (
	"slices"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// Plan returns the plan of the steps of these names. Options from which no plan follows count as none: each step follows the one before it, and
// every failure ends the sequence.
func Plan(names []string, options contract.Options) sequence.Plan {
	plan := sequence.Chain(names)
	isChain := true
	for i, name := range names {
		o := options[name]
		plan.Steps[i].OnError = onError(o)
		isChain = isChain && o.DependsOn == nil && !o.Finally
	}
	if isChain {
		return plan
	}
	for i, name := range names {
		step, o := &plan.Steps[i], options[name]
		step.IsFinal = o.Finally
		if o.DependsOn != nil {
			step.After = nil
		}
		for _, before := range o.DependsOn {
			step.After = append(step.After, slices.Index(names, before))
		}
	}
	plan, err := sequence.NewPlan(plan.Steps)
	if err != nil {
		return sequence.Chain(names)
	}
	return plan
}

func onError(o contract.StepOptions) sequence.OnError {
	switch {
	case o.ContinueOnError:
		return sequence.Continue
	case o.FailAtEnd:
		return sequence.FailAtEnd
	}
	return sequence.Stop
}
