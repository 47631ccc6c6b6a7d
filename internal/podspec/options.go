package podspec

import (
	"cmp"
	"strconv"

	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// toOptions returns the options of a step as OptionsAnnotation has them.
func toOptions(step v1alpha1.StepOptions) contract.StepOptions {
	o := contract.StepOptions{
		Retries:         int(ptr.Deref(step.Retries, 0)),
		ContinueOnError: step.OnError == v1alpha1.OnErrorContinue,
		FailAtEnd:       step.OnError == v1alpha1.OnErrorFailAtEnd,
		DependsOn:       step.DependsOn,
		Finally:         step.Finally,
	}
	if step.Timeout != nil {
		o.Timeout = step.Timeout.Duration
	}
	for _, rule := range step.ExitCodes {
		codes := make([]int, len(rule.In))
		for i, code := range rule.In {
			codes[i] = int(code)
		}
		o.ExitCodes = append(o.ExitCodes, contract.ExitCodeRule{In: codes, Then: string(rule.Then)})
	}
	for _, condition := range step.When {
		o.When = append(o.When, toCondition(condition))
	}
	for _, input := range step.Inputs {
		o.Inputs = append(o.Inputs, contract.Input{
			Name: cmp.Or(input.Name, input.Output), Step: input.Step, Output: input.Output, Default: input.Default,
		})
	}
	return o
}

func toCondition(c v1alpha1.Condition) contract.Condition {
	condition := contract.Condition{Step: c.Step, Of: contract.OfOutput, Output: c.Output, In: c.In, NotIn: c.NotIn}
	switch {
	case c.State != nil:
		condition.Of, condition.In, condition.NotIn = contract.OfState, texts(c.State.In), texts(c.State.NotIn)
	case c.ExitCode != nil:
		condition.Of, condition.In, condition.NotIn = contract.OfExitCode, decimals(c.ExitCode.In), decimals(c.ExitCode.NotIn)
	}
	return condition
}

func texts(states []v1alpha1.StepState) []string {
	var all []string
	for _, state := range states {
		all = append(all, string(state))
	}
	return all
}

func decimals(numbers []int32) []string {
	var all []string
	for _, number := range numbers {
		all = append(all, strconv.Itoa(int(number)))
	}
	return all
}
