package podspec

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// checkHolds rejects a condition that can't hold, because step i does not run after such an end of the step that it tests. A final step runs after
// every end.
func (c checker) checkHolds(i int, path string, condition v1alpha1.Condition) error {
	tested := &c.steps[c.byName[condition.Step]]
	if c.steps[i].options.Finally {
		return nil
	}
	switch {
	case condition.State != nil:
		return c.checkStateHolds(i, path+".state", tested, *condition.State)
	case condition.ExitCode != nil:
		return c.checkExitCodeHolds(i, path+".exitCode", tested, *condition.ExitCode)
	}
	return nil
}

func (c checker) checkStateHolds(i int, path string, tested *listedStep, test v1alpha1.StateTest) error {
	goesOn, hasWhen := goesOnAfterFailure(tested), len(tested.options.When) > 0
	holds := func(state v1alpha1.StepState) bool { return holdsFor(test, state) }
	switch {
	case holds(v1alpha1.StepSucceeded), goesOn && holds(v1alpha1.StepFailed), hasWhen && holds(v1alpha1.StepSkipped):
		return nil
	case holds(v1alpha1.StepFailed):
		return c.errorf(i, path, "the condition never holds, because %q does not run after a failure of %q: %s", c.names[i], tested.name, c.letRun(i, tested))
	case holds(v1alpha1.StepSkipped):
		return c.errorf(i, path, "the condition never holds, because %q has no when: if it is skipped, %q does not run: set when of %[1]q, or finally: true of %[2]q",
			tested.name, c.names[i])
	}
	return c.errorf(i, path, "the condition never holds, because a step ends in one of these states: remove a state from notIn")
}

func (c checker) checkExitCodeHolds(i int, path string, tested *listedStep, test v1alpha1.ExitCodeTest) error {
	meanings := meaningsOf(tested.options.ExitCodes)
	isNamed := [256]bool{}
	for _, code := range slices.Concat(test.In, test.NotIn) {
		isNamed[code] = true
	}
	isFinish := true // for all codes for which the condition holds
	for code, meaning := range meanings {
		if isNamed[code] != (len(test.In) > 0) {
			continue
		}
		if mayRunAfter(tested, code, meaning) {
			return nil
		}
		isFinish = isFinish && meaning == v1alpha1.ExitCodeFinish
	}
	if isFinish {
		return c.errorf(i, path, "the condition never holds, because such an exit code of %q finishes the sequence, and %q does not run: "+
			"set then: Succeed for it, or finally: true of %[2]q", tested.name, c.names[i])
	}
	return c.errorf(i, path, "the condition never holds, because %q does not run after such an exit code of %q: %s", c.names[i], tested.name, c.letRun(i, tested))
}

// meaningsOf returns what each exit code means by the rules.
func meaningsOf(rules []v1alpha1.ExitCodeRule) [256]v1alpha1.ExitCodeAction {
	var meanings [256]v1alpha1.ExitCodeAction
	for _, rule := range rules {
		for _, code := range rule.In {
			meanings[code] = rule.Then
		}
	}
	return meanings
}

// letRun returns how step i can run after a failure of a step before it.
func (c checker) letRun(i int, tested *listedStep) string {
	if c.restartPolicy == corev1.RestartPolicyOnFailure {
		return fmt.Sprintf("set finally: true of %q, or remove the condition", c.names[i])
	}
	return fmt.Sprintf("set onError: Continue or FailAtEnd of %q, or finally: true of %q", tested.name, c.names[i])
}

// goesOnAfterFailure reports whether the steps after a step run although it failed.
func goesOnAfterFailure(step *listedStep) bool {
	return step.options.OnError == v1alpha1.OnErrorContinue || step.options.OnError == v1alpha1.OnErrorFailAtEnd
}

// mayRunAfter reports whether the steps after a step may run if its command ended with an exit code. The agent gives codes from 124 itself, too, and
// the rules don't apply to some of these.
func mayRunAfter(step *listedStep, code int, meaning v1alpha1.ExitCodeAction) bool {
	switch meaning {
	case v1alpha1.ExitCodeSucceed:
		return true
	case v1alpha1.ExitCodeFinish:
		return goesOnAfterFailure(step) && code >= contract.ExitTimeout
	}
	return goesOnAfterFailure(step) || meaning == "" && code == 0
}

// holdsFor reports whether a test with in or notIn holds for a state.
func holdsFor(test v1alpha1.StateTest, state v1alpha1.StepState) bool {
	if len(test.In) > 0 {
		return slices.Contains(test.In, state)
	}
	return !slices.Contains(test.NotIn, state)
}
