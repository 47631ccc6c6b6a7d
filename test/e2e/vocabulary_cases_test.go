//go:build e2e

package e2e

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// options is short for the options of a step.
type options = v1alpha1.StepOptions

// alone is the dependsOn of a step without predecessors.
var alone = []string{}

func rule(then v1alpha1.ExitCodeAction, codes ...int32) []v1alpha1.ExitCodeRule {
	return []v1alpha1.ExitCodeRule{{In: codes, Then: then}}
}

// ifStep returns the options of a step that follows another one if the condition about it holds.
func ifStep(name string, condition v1alpha1.Condition) options {
	condition.Step = name
	return options{DependsOn: []string{name}, When: []v1alpha1.Condition{condition}}
}

func asUser(uid int64, s v1alpha1.Step) v1alpha1.Step {
	s.SecurityContext = &corev1.SecurityContext{RunAsUser: &uid, RunAsGroup: &uid}
	return s
}

func inImage(image string, s v1alpha1.Step) v1alpha1.Step {
	s.Image = image
	return s
}

var vocabulary = map[string]vocabularyCase{
	"dependsOn": {
		steps: []v1alpha1.Step{
			step("left", meets("left", "right"), options{}),
			step("right", meets("right", "left"), options{DependsOn: alone}),
			step("join", "echo joined", options{DependsOn: []string{"left", "right"}}),
			step("last", "echo last", options{}),
		},
		logs:    map[string]string{"join": "joined\n", "last": "last\n"},
		lines:   []string{"left Succeeded Completed 0", "right Succeeded Completed 0", "join Succeeded Completed 0", "last Succeeded Completed 0"},
		codes:   "join 0, last 0, left 0, right 0",
		message: "all steps succeeded",
	},
	"when": {
		steps: []v1alpha1.Step{
			step("probe", "echo changed=true >$TASKFLOW_OUTPUT; exit 2", options{OnError: v1alpha1.OnErrorContinue, ExitCodes: rule(v1alpha1.ExitCodeSucceed, 1, 2)}),
			step("a", "echo ran", ifStep("probe", v1alpha1.Condition{State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepSucceeded}}})),
			step("b", "echo ran", ifStep("probe", v1alpha1.Condition{State: &v1alpha1.StateTest{NotIn: []v1alpha1.StepState{v1alpha1.StepSucceeded}}})),
			step("c", "echo ran", ifStep("probe", v1alpha1.Condition{ExitCode: &v1alpha1.ExitCodeTest{In: []int32{2}}})),
			step("d", "echo ran", ifStep("probe", v1alpha1.Condition{ExitCode: &v1alpha1.ExitCodeTest{NotIn: []int32{2}}})),
			step("e", "echo ran", ifStep("probe", v1alpha1.Condition{Output: "changed", In: []string{"yes", "true"}})),
			step("f", "echo ran", ifStep("probe", v1alpha1.Condition{Output: "changed", NotIn: []string{"true"}})),
			step("g", "echo ran", ifStep("probe", v1alpha1.Condition{Output: "missing", NotIn: []string{"true"}})),
			step("h", "echo ran", ifStep("probe", v1alpha1.Condition{Output: "missing", In: []string{"true"}})),
			step("i", "echo ran", ifStep("b", v1alpha1.Condition{State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepSkipped}}})),
			step("j", "echo ran", ifStep("b", v1alpha1.Condition{ExitCode: &v1alpha1.ExitCodeTest{NotIn: []int32{5}}})),
		},
		logs: map[string]string{"a": "ran\n", "b": "", "c": "ran\n", "d": "", "e": "ran\n", "f": "", "g": "ran\n", "h": "", "i": "ran\n", "j": ""},
		lines: []string{
			"probe Succeeded Completed 2", "a Succeeded Completed 0", "b Skipped WhenFalse", "c Succeeded Completed 0", "d Skipped WhenFalse",
			"e Succeeded Completed 0", "f Skipped WhenFalse", "g Succeeded Completed 0", "h Skipped WhenFalse", "i Succeeded Completed 0", "j Skipped WhenFalse",
		},
		codes: "a 0, b 0, c 0, d 0, e 0, f 0, g 0, h 0, i 0, j 0, probe 0",
	},
	"exitCodes: Finish": {
		steps: []v1alpha1.Step{
			step("check", "exit 78", options{ExitCodes: rule(v1alpha1.ExitCodeFinish, 78)}),
			step("work", "echo ran", options{}),
			step("last", tells, options{Finally: true}),
		},
		logs:    map[string]string{"work": "", "last": "Succeeded []\n"},
		lines:   []string{"check Succeeded Finished 78", "work Skipped Skipped", "last Succeeded Completed 0"},
		codes:   "check 0, last 0, work 0",
		message: `step "check" finished the sequence with exit code 78`,
	},
	"exitCodes: Fail": {
		steps: []v1alpha1.Step{
			step("try", counts+"exit 3", options{Retries: new(int32(5)), ExitCodes: rule(v1alpha1.ExitCodeFail, 3)}),
			step("next", "echo ran", options{}),
		},
		fails:   true,
		logs:    map[string]string{"next": ""},
		lines:   []string{"try Failed Error 3", "next Skipped Skipped"},
		codes:   "next 0, try 3",
		message: `step "try" failed with exit code 3`,
	},
	"exitCodes: Retry": {
		steps: []v1alpha1.Step{
			step("try", counts+"test $runs = 1 && exit 4; exit 5", options{Retries: new(int32(5)), ExitCodes: rule(v1alpha1.ExitCodeRetry, 4)}),
			step("next", "echo ran", options{}),
		},
		fails:   true,
		logs:    map[string]string{"next": ""},
		lines:   []string{"try Failed Error 5, 1 retries", "next Skipped Skipped"},
		codes:   "next 0, try 5",
		message: `step "try" failed with exit code 5`,
	},
	"onError: Continue": {
		steps: []v1alpha1.Step{
			step("lint", "exit 7", options{OnError: v1alpha1.OnErrorContinue}),
			step("test", "sleep 1", options{DependsOn: alone}),
			step("build", "echo ran", options{DependsOn: []string{"lint", "test"}, When: []v1alpha1.Condition{
				{Step: "lint", ExitCode: &v1alpha1.ExitCodeTest{In: []int32{7}}},
				{Step: "lint", State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepFailed}}},
			}}),
			step("last", tells, options{Finally: true}),
		},
		logs:    map[string]string{"build": "ran\n", "last": "Succeeded []\n"},
		lines:   []string{"lint Failed Error 7", "test Succeeded Completed 0", "build Succeeded Completed 0", "last Succeeded Completed 0"},
		codes:   "build 0, last 0, lint 0, test 0",
		message: `step "lint" failed with exit code 7, which does not fail the Task (onError: Continue)`,
	},
	"onError: Continue in a plain sequence": {
		steps: []v1alpha1.Step{
			step("lint", "exit 7", options{OnError: v1alpha1.OnErrorContinue}),
			step("build", "echo ran", options{}),
		},
		logs:    map[string]string{"build": "ran\n"},
		lines:   []string{"lint Failed Error 7", "build Succeeded Completed 0"},
		codes:   "build 0, lint 0",
		message: `step "lint" failed with exit code 7, which does not fail the Task (onError: Continue)`,
	},
	"onError: FailAtEnd": {
		steps: []v1alpha1.Step{
			step("lint", "exit 7", options{OnError: v1alpha1.OnErrorFailAtEnd}),
			step("build", "echo ran", options{}),
			step("last", tells, options{Finally: true}),
		},
		fails:   true,
		logs:    map[string]string{"build": "ran\n", "last": "Failed [lint]\n"},
		lines:   []string{"lint Failed Error 7", "build Succeeded Completed 0", "last Succeeded Completed 0"},
		codes:   "build 0, last 0, lint 7",
		message: `step "lint" failed with exit code 7`,
	},
	"inputs": {
		steps: []v1alpha1.Step{
			asUser(1001, step("write", `printf "# what was built\nSHA=abc\nTEXT='two\nlines'\n" >$TASKFLOW_OUTPUT`, options{})),
			asUser(1002, inImage("devopscube/kubernetes-job-demo:latest", step("read", `echo "$SHA, $OTHER, $MORE, $(cat /taskflow/run/1/output | head -n 1)"`, options{
				Inputs: []v1alpha1.Input{
					{Step: "write", Output: "SHA"},
					{Step: "write", Output: "TEXT", Name: "OTHER"},
					{Step: "write", Output: "NOTHING", Name: "MORE", Default: new("a default")},
				},
			}))),
			asUser(1003, step("later", `echo "$SHA"`, options{Inputs: []v1alpha1.Input{{Step: "write", Output: "SHA"}}, Finally: true})),
		},
		logs:  map[string]string{"read": "abc, two\nlines, a default, # what was built\n", "later": "abc\n"},
		lines: []string{"write Succeeded Completed 0", "read Succeeded Completed 0", "later Succeeded Completed 0"},
		codes: "later 0, read 0, write 0",
	},
	"a missing input": {
		steps: []v1alpha1.Step{
			step("write", "true", options{}),
			step("read", "echo ran", options{Inputs: []v1alpha1.Input{{Step: "write", Output: "SHA"}}}),
			step("last", tells, options{Finally: true}),
		},
		fails:   true,
		logs:    map[string]string{"last": "Failed [read]\n"},
		lines:   []string{"write Succeeded Completed 0", "read Failed InputInvalid 125 never started", "last Succeeded Completed 0"},
		codes:   "last 0, read 125, write 0",
		message: `SHA`,
	},
	"finally": {
		steps: []v1alpha1.Step{
			step("work", "exit 3", options{}),
			step("next", "echo ran", options{}),
			step("clean", tells+"; exit 4", options{Finally: true, OnError: v1alpha1.OnErrorContinue}),
			step("notify", tells, options{Finally: true, When: []v1alpha1.Condition{
				{Step: "clean", State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepFailed}}},
				{Step: "work", ExitCode: &v1alpha1.ExitCodeTest{In: []int32{3}}},
				{Step: "next", State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepSkipped}}},
			}}),
		},
		fails:   true,
		logs:    map[string]string{"next": "", "clean": "Failed [work]\n", "notify": "Failed [work]\n"},
		lines:   []string{"work Failed Error 3", "next Skipped Skipped", "clean Failed Error 4", "notify Succeeded Completed 0"},
		codes:   "clean 0, next 0, notify 0, work 3",
		message: `step "work" failed with exit code 3`,
	},
	"retries and timeouts in branches": {
		steps: []v1alpha1.Step{
			step("flaky", counts+"test $runs = 2", options{Retries: new(int32(3))}),
			step("slow", "sleep 1000", options{DependsOn: alone, Timeout: &metav1.Duration{Duration: time.Second}, Retries: new(int32(1)), OnError: v1alpha1.OnErrorContinue}),
			step("join", "echo ran", options{DependsOn: []string{"flaky", "slow"}}),
		},
		logs:  map[string]string{"join": "ran\n"},
		lines: []string{"flaky Succeeded Completed 0, 1 retries", "slow Failed TimedOut 124, 1 retries", "join Succeeded Completed 0"},
		codes: "flaky 0, join 0, slow 0",
	},
}
