package podspec

import (
	"slices"
	"strings"
	"testing"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// FuzzStepList proves that no value of the annotation with the steps makes the webhook panic, that every rejection is one sentence with a path, and
// that a plan and readable flags follow from every list that is accepted.
func FuzzStepList(f *testing.F) {
	for _, seed := range []string{
		"a,b", "- a\n- b", "[{name: a, dependsOn: []}, {name: b, dependsOn: [a]}]",
		"- {name: a, timeout: 10m, retries: 2, onError: FailAtEnd}\n- {name: b, finally: true}\n- {name: c, finally: true, exitCodes: [{in: [1], then: Fail}]}",
		`[{name: a}, {name: b, dependsOn: []}, {name: c, dependsOn: [a, b], inputs: [{step: a, output: X, name: "Z", default: "$(A)"}]}]`,
		`[a, {name: b, when: [{step: a, output: X, in: ["yes"]}, {step: a, state: {notIn: [Failed]}}, {step: a, exitCode: {in: [0]}}]}]`,
		"- &a {name: a}\n- {<<: *a, name: b}", "[*x]", "--- [a]", "- a: b", "[[[[", "- name: a\n  when: ~", "- {name: a, timeout: 1e9h}", "- !!binary YQ==", "- 2026-01-01",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		pod := taskPod(step("a"), step("b"), step("c"))
		pod.Labels = map[string]string{contract.SequentialLabel: "true"}
		pod.OwnerReferences = nil
		pod.Annotations[contract.StepsAnnotation] = value
		m, err := mutation(t, encode(t, pod))
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, stepsPath) || strings.Contains(text, "json:") || strings.Contains(text, "yaml:") || strings.Contains(text, "\n") {
				t.Errorf("the rejection of %q: %s", value, text)
			}
			return
		}
		options, err := contract.ParseOptions(m.pod.Annotations[contract.OptionsAnnotation])
		if err != nil {
			t.Fatal(err)
		}
		names := StepNames(m.pod)
		assertPlan(t, names, options)
		for _, operation := range m.Patch {
			if args, is := operation.Value.([]string); is && strings.HasSuffix(operation.Path, "/args") {
				assertFlags(t, args)
			}
		}
	})
}

// assertPlan fails the test if the plan of the names ignores the options, because no plan follows from them.
func assertPlan(t *testing.T, names []string, options contract.Options) {
	t.Helper()
	plan := Plan(names, options)
	for i, name := range names {
		step := plan.Steps[i]
		if step.IsFinal != options[name].Finally {
			t.Errorf("the step %q is final: %t, and its options are %+v", name, step.IsFinal, options[name])
		}
		if options[name].DependsOn == nil {
			continue
		}
		var after []string
		for _, before := range step.After {
			after = append(after, names[before])
		}
		if !slices.Equal(after, options[name].DependsOn) {
			t.Errorf("the step %q follows %q, and its options are %+v", name, after, options[name])
		}
	}
	if _, err := sequence.NewPlan(plan.Steps); err != nil {
		t.Errorf("the plan: %v", err)
	}
}

// assertFlags fails the test if the agent can't read its flags.
func assertFlags(t *testing.T, args []string) {
	t.Helper()
	flags, err := contract.ParseAgentFlags(args)
	if err != nil {
		t.Errorf("ParseAgentFlags(%q): %v", args, err)
	}
	expand := strings.NewReplacer("$$", "$") // as the kubelet does
	for _, text := range flags.When {
		if _, err := contract.ParseCondition(expand.Replace(text)); err != nil {
			t.Error(err)
		}
	}
	for _, text := range flags.Inputs {
		if _, err := contract.ParseInput(expand.Replace(text)); err != nil {
			t.Error(err)
		}
	}
	for _, text := range flags.ExitCodes {
		if _, err := contract.ParseExitCodeRule(text); err != nil {
			t.Error(err)
		}
	}
}
