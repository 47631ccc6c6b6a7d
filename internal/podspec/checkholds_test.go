package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestCheckHolds proves which conditions are refused because they can't hold, in a Task and in a Pod. PATH stands for where the condition is.
func TestCheckHolds(t *testing.T) {
	const (
		noFailure = `PATH.state: the condition never holds, because "b" does not run after a failure of "a": `
		noCode    = `PATH.exitCode: the condition never holds, because "b" does not run after such an exit code of "a": `
		finished  = `PATH.exitCode: the condition never holds, because such an exit code of "a" finishes the sequence, and "b" does not run: set then: Succeed for it, or finally: true of "b"`
		noWhen    = `PATH.state: the condition never holds, because "a" has no when: if it is skipped, "b" does not run: set when of "a", or finally: true of "b"`
		noState   = `PATH.state: the condition never holds, because a step ends in one of these states: remove a state from notIn`
		goOn      = `set onError: Continue or FailAtEnd of "a", or finally: true of "b"`
		noGoOn    = `set finally: true of "b", or remove the condition`
		when      = "when: [{step: first, output: X, in: [x]}]"
	)
	cases := map[string]struct {
		tested string // the options of the step a
		test   string // what the step b tests of it
		policy corev1.RestartPolicy
		want   string // "" is accepted
	}{
		"a failure with Stop":             {"", "state: {in: [Failed]}", "", noFailure + goOn},
		"a failure with explicit Stop":    {"onError: Stop", "state: {in: [Failed]}", "", noFailure + goOn},
		"a failure with Continue":         {"onError: Continue", "state: {in: [Failed]}", "", ""},
		"a failure with FailAtEnd":        {"onError: FailAtEnd", "state: {in: [Failed]}", "", ""},
		"a failure and a restart":         {"", "state: {in: [Failed]}", corev1.RestartPolicyOnFailure, noFailure + noGoOn},
		"a success and a restart":         {"", "state: {in: [Succeeded]}", corev1.RestartPolicyOnFailure, ""},
		"a failure or success":            {"", "state: {in: [Failed, Succeeded]}", "", ""},
		"a failure or skipped":            {"", "state: {in: [Failed, Skipped]}", "", noFailure + goOn},
		"a failure or skipped, with when": {when, "state: {in: [Failed, Skipped]}", "", ""},
		"no success":                      {"", "state: {notIn: [Succeeded]}", "", noFailure + goOn},
		"no success, with when":           {when, "state: {notIn: [Succeeded]}", "", ""},
		"no success, with Continue":       {"onError: Continue", "state: {notIn: [Succeeded]}", "", ""},
		"no failure":                      {"", "state: {notIn: [Failed]}", "", ""},
		"skipped":                         {"", "state: {in: [Skipped]}", "", noWhen},
		"skipped, with Continue":          {"onError: Continue", "state: {in: [Skipped]}", "", noWhen},
		"skipped, with when":              {when, "state: {in: [Skipped]}", "", ""},
		"skipped as what is left":         {"", "state: {notIn: [Failed, Succeeded]}", "", noWhen},
		"no state":                        {when + ", onError: Continue", "state: {notIn: [Failed, Succeeded, Skipped]}", "", noState},

		"an exit code with Stop":          {"", "exitCode: {in: [2]}", "", noCode + goOn},
		"an exit code with Fail":          {"exitCodes: [{in: [2], then: Fail}]", "exitCode: {in: [2]}", "", noCode + goOn},
		"an exit code with Retry":         {"retries: 1, exitCodes: [{in: [2], then: Retry}]", "exitCode: {in: [2]}", "", noCode + goOn},
		"an exit code with Succeed":       {"exitCodes: [{in: [1, 2], then: Succeed}]", "exitCode: {in: [2]}", "", ""},
		"another code with Succeed":       {"exitCodes: [{in: [1, 2], then: Succeed}]", "exitCode: {in: [3]}", "", noCode + goOn},
		"an exit code with Continue":      {"onError: Continue", "exitCode: {in: [2]}", "", ""},
		"an exit code with FailAtEnd":     {"onError: FailAtEnd", "exitCode: {in: [2]}", "", ""},
		"an exit code and a restart":      {"", "exitCode: {in: [2]}", corev1.RestartPolicyOnFailure, noCode + noGoOn},
		"0":                               {"", "exitCode: {in: [0, 2]}", "", ""},
		"0 as a failure":                  {"exitCodes: [{in: [0], then: Fail}]", "exitCode: {in: [0]}", "", noCode + goOn},
		"any but 0":                       {"", "exitCode: {notIn: [0]}", "", noCode + goOn},
		"any but 0, and one with Succeed": {"exitCodes: [{in: [3], then: Succeed}]", "exitCode: {notIn: [0]}", "", ""},
		"any but 0, with when":            {when, "exitCode: {notIn: [0]}", "", noCode + goOn},
		"any but 1":                       {"", "exitCode: {notIn: [1]}", "", ""},
		"a code that finishes":            {"exitCodes: [{in: [78], then: Finish}]", "exitCode: {in: [78]}", "", finished},
		"it, with Continue":               {"onError: Continue, exitCodes: [{in: [78], then: Finish}]", "exitCode: {in: [78]}", "", finished},
		"it, or a failure":                {"exitCodes: [{in: [78], then: Finish}]", "exitCode: {in: [78, 1]}", "", noCode + goOn},
		"a code of the agent":             {"onError: Continue, exitCodes: [{in: [124], then: Finish}]", "exitCode: {in: [124]}", "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			list := "[{name: first}, {name: a, " + c.tested + "}, {name: between}, {name: b, when: [{step: a, " + c.test + "}]}]"
			task, pod := bothForms(t, list, c.policy, nil)
			want := func(path string) string { return strings.Replace(c.want, "PATH", path, 1) }
			if diff := cmp.Diff(want("spec.steps[3].when[0]"), task); diff != "" {
				t.Errorf("the Task (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want("metadata.annotations: taskflow.practice.com/steps[3].when[0]"), pod); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
			if c.want == noState {
				return
			}
			task, pod = bothForms(t, strings.Replace(list, "{name: b,", "{name: b, finally: true,", 1), c.policy, nil)
			if task != "" || pod != "" {
				t.Errorf("of a final step, the condition is refused: %q, %q", task, pod)
			}
		})
	}
}
