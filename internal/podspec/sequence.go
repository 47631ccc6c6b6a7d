package podspec

import (
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// Plan returns the plan of the steps of these names: each follows the one before it.
func Plan(names []string, options contract.Options) sequence.Plan {
	plan := sequence.Chain(names)
	for i := range plan.Steps {
		if options[names[i]].ContinueOnError {
			plan.Steps[i].OnError = sequence.Continue
		}
	}
	return plan
}
