package podspec

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// stepFlags returns the agent's flags for step n of the plan, from 0, as far as they depend on more than its container.
func stepFlags(pod *corev1.Pod, plan sequence.Plan, n int, options contract.Options) contract.AgentFlags {
	step := plan.Steps[n]
	own := options[step.Name]
	flags := contract.AgentFlags{
		WaitContent:       step.Stage,
		Run:               contract.RunDir,
		ControllerOnly:    pod.Annotations[contract.HandoffAnnotation] == contract.HandoffController,
		RestartsOnFailure: pod.Spec.RestartPolicy != corev1.RestartPolicyNever,
		Timeout:           own.Timeout,
		Retries:           own.Retries,
		DefaultWorkDir:    own.DefaultWorkDir,
	}
	if n+1 != step.Stage {
		flags.Step = n + 1
	}
	switch isChain := plan.IsChain(); {
	case step.IsFinal:
		followFinally(&flags, plan, n)
	case isChain:
		flags.AfterFailure = afterFailure(flags, plan, step)
	default:
		follow(&flags, plan, step)
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		flags.Grace = max(time.Second, time.Duration(*grace)*time.Second)
	}
	flags.OnError = onErrorFlag(pod, plan, step)
	for _, rule := range own.ExitCodes {
		flags.ExitCodes = append(flags.ExitCodes, rule.String())
	}
	numbers := make(map[string]int, len(plan.Steps))
	if len(own.When)+len(own.Inputs) > 0 {
		for i, other := range plan.Steps {
			numbers[other.Name] = i + 1
		}
	}
	for _, condition := range own.When {
		condition.Number = numbers[condition.Step]
		flags.When = append(flags.When, literal(condition.String()))
	}
	for _, input := range own.Inputs {
		input.Number = numbers[input.Step]
		flags.Inputs = append(flags.Inputs, literal(input.String()))
	}
	return flags
}

// afterFailure returns what a failure of the predecessor means for a step of a chain.
func afterFailure(flags contract.AgentFlags, plan sequence.Plan, step sequence.Step) string {
	switch {
	case len(step.After) == 0 || flags.ControllerOnly:
	case flags.RestartsOnFailure:
		return contract.AfterFailureWait
	case plan.Steps[step.After[0]].OnError == sequence.Continue:
		return contract.AfterFailureContinue
	}
	return ""
}

// follow sets the predecessors of a step beside which others run. Their records say themselves whether they pass.
func follow(flags *contract.AgentFlags, plan sequence.Plan, step sequence.Step) {
	flags.Cancel = contract.CancelFile // gateContainer adds the directory
	if flags.ControllerOnly {
		return
	}
	flags.Work = plan.Work()
	flags.After = numbersOf(step.After)
	if flags.RestartsOnFailure && len(step.After) > 0 {
		flags.AfterFailure = contract.AfterFailureWait
	}
}

// followFinally sets the predecessors of final step n. The first one follows the sinks, because their records exist only after all others.
func followFinally(flags *contract.AgentFlags, plan sequence.Plan, n int) {
	flags.IsFinal = true
	switch first := plan.Work(); {
	case flags.ControllerOnly:
	case n > first:
		flags.After = []int{n}
	default:
		flags.After, flags.Work = numbersOf(plan.Sinks()), first
	}
}

// numbersOf returns the numbers of steps by their indexes.
func numbersOf(indexes []int) []int {
	numbers := make([]int, len(indexes))
	for i, index := range indexes {
		numbers[i] = index + 1
	}
	return numbers
}

// onErrorFlag returns AgentFlags.OnError. In a chain of a Task's own Pod, the next step has AfterFailureContinue instead, as in earlier releases. A
// Job takes a Pod with a failed container for failed, and a final step follows the step itself.
func onErrorFlag(pod *corev1.Pod, plan sequence.Plan, step sequence.Step) string {
	isPlain := plan.IsChain() && plan.Work() == len(plan.Steps)
	switch {
	case step.OnError == sequence.FailAtEnd:
		return contract.OnErrorFailAtEnd
	case step.OnError != sequence.Continue, isPlain && OwnerTask(pod) != "":
		return ""
	}
	return contract.OnErrorContinue
}
