//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// writeOutputs writes the outputs of a step like its command.
func writeOutputs(t *testing.T, runDir string, step int, text string) {
	t.Helper()
	writeFile(t, filepath.Join(contract.StepDir(runDir, step), contract.OutputFile), text)
}

// A condition that does not hold keeps the command from running. The step has not failed: the exit code is 0.
func TestConditions(t *testing.T) {
	two := 2
	var (
		ok       = contract.Record{}
		failed   = contract.Record{ExitCode: 3, Passes: true}
		rule     = contract.Record{CommandExitCode: &two}
		mayFail  = contract.Record{CommandExitCode: &two, Passes: true}
		finished = contract.Record{CommandExitCode: &two, Reason: contract.ReasonFinished}
		skipped  = contract.Record{Reason: contract.ReasonSkipped}
		notRun   = contract.Record{Reason: contract.ReasonWhenFalse}
		stopped  = contract.Record{ExitCode: 143, Reason: contract.ReasonStopped}
	)
	in := func(of string, values ...string) contract.Condition { return contract.Condition{Of: of, In: values} }
	notIn := func(of string, values ...string) contract.Condition {
		return contract.Condition{Of: of, NotIn: values}
	}
	output := func(c contract.Condition) contract.Condition { c.Output = "changed"; return c }
	const state, exitCode = contract.OfState, contract.OfExitCode
	told := func(end contract.End) string {
		return contract.Outcome{Status: contract.Failed, Steps: map[int]contract.End{1: end}}.Marshal()
	}
	const unknown = `how step "lint" ended is not known: its agent left no record, and the controller tells nothing`
	tests := map[string]struct {
		record  *contract.Record // of step 1, which is "lint"
		outcome string
		outputs string
		when    contract.Condition
		want    string // "": the command runs
	}{
		"succeeded":                   {record: &ok, when: in(state, "Succeeded")},
		"not failed":                  {record: &ok, when: in(state, "Failed"), want: `the state of step "lint" is Succeeded, not Failed`},
		"neither":                     {record: &ok, when: in(state, "Failed", "Skipped"), want: `the state of step "lint" is Succeeded, not Failed or Skipped`},
		"notIn":                       {record: &ok, when: notIn(state, "Failed")},
		"notIn, and it is":            {record: &failed, when: notIn(state, "Failed", "Skipped"), want: `the state of step "lint" is Failed`},
		"failed, and passes":          {record: &failed, when: in(state, "Failed")},
		"failed, Continue":            {record: &mayFail, when: in(state, "Failed")},
		"a rule: Succeed":             {record: &rule, when: in(state, "Succeeded")},
		"a rule: Finish":              {record: &finished, when: in(state, "Succeeded")},
		"skipped":                     {record: &skipped, when: in(state, "Skipped")},
		"a condition of its own":      {record: &notRun, when: in(state, "Skipped")},
		"an exit code":                {record: &ok, when: in(exitCode, "0")},
		"another exit code":           {record: &ok, when: in(exitCode, "2", "3"), want: `the exit code of step "lint" is 0, not 2 or 3`},
		"the command's exit code":     {record: &rule, when: in(exitCode, "2")},
		"the exit code of a failure":  {record: &failed, when: in(exitCode, "3")},
		"Continue's exit code":        {record: &mayFail, when: notIn(exitCode, "2"), want: `the exit code of step "lint" is 2`},
		"no exit code":                {record: &skipped, when: in(exitCode, "0"), want: `step "lint" has no exit code`},
		"no exit code, notIn":         {record: &notRun, when: notIn(exitCode, "2"), want: `step "lint" has no exit code`},
		"an output":                   {record: &ok, outputs: "changed=true\n", when: output(in(contract.OfOutput, "true"))},
		"another output":              {record: &ok, outputs: "changed=no, never\n", when: output(in(contract.OfOutput, "true", "yes")), want: `the output changed of step "lint" is "no, never", not true or yes`},
		"an empty output":             {record: &ok, outputs: "changed=\n", when: output(notIn(contract.OfOutput, "")), want: `the output changed of step "lint" is ""`},
		"a long output":               {record: &ok, outputs: "changed=" + strings.Repeat("x", 1000), when: output(in(contract.OfOutput, "true")), want: `the output changed of step "lint" is ` + strings.Repeat("x", 64) + `…, not true`},
		"no output":                   {record: &ok, outputs: "other=true\n", when: output(in(contract.OfOutput, "true")), want: `step "lint" has no output changed`},
		"no outputs, notIn":           {record: &ok, when: output(notIn(contract.OfOutput, "true"))},
		"outputs of a failure":        {record: &failed, outputs: "changed=true\n", when: output(in(contract.OfOutput, "true"))},
		"no outputs of a skipped one": {record: &notRun, outputs: "changed=true\n", when: output(in(contract.OfOutput, "true")), want: `step "lint" has no output changed`},
		"told: killed":                {outcome: told(contract.End{State: contract.Failed, ExitCode: 137}), when: in(exitCode, "137")},
		"told: failed":                {outcome: told(contract.End{State: contract.Failed, ExitCode: -1}), when: in(state, "Failed")},
		"told: no exit code":          {outcome: told(contract.End{State: contract.Failed, ExitCode: -1}), when: in(exitCode, "137"), want: `step "lint" has no exit code`},
		"the record counts":           {record: &ok, outcome: told(contract.End{State: contract.Failed, ExitCode: 137}), when: in(state, "Succeeded")},
		"told, after a signal":        {record: &stopped, outcome: told(contract.End{State: contract.Failed, ExitCode: 137}), when: in(exitCode, "137")},
		"after a signal":              {record: &stopped, when: in(exitCode, "143")},
		"not told":                    {outcome: contract.Outcome{Status: contract.Failed}.Marshal(), when: in(state, "Failed"), want: unknown},
		"nothing is known":            {when: in(state, "Failed"), want: unknown},
		"an outcome that is none":     {outcome: "{", when: in(state, "Failed"), want: unknown},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(files{contract.OrderFile: "2", contract.HaltFile: "", contract.OutcomeFile: tc.outcome})
			if tc.record != nil {
				writeRecord(t, runDir, 1, *tc.record)
			}
			if tc.outputs != "" {
				writeOutputs(t, runDir, 1, tc.outputs)
			}
			flags := info.sharing(runDir, 2)
			flags.Outcome = filepath.Join(info.dir, contract.OutcomeFile)
			tc.when.Step, tc.when.Number = "lint", 1
			flags.When = []string{contract.Condition{Step: "lint", Number: 1, Of: state, NotIn: []string{"Unknown"}}.String(), tc.when.String()}
			flags.Retries = 3 // no reason to run it again
			got := container{args: flags.Args()}.run(t)
			wantRecord, want := contract.Record{Reason: contract.ReasonWhenFalse, Message: tc.want}, result{}
			switch tc.want {
			case "":
				wantRecord, want = contract.Record{}, ran
			case unknown:
				wantRecord = contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonAgentError, Message: unknown}
				want = result{Code: contract.ExitAgentFailure, Stderr: "agent: " + unknown + "\n"}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			checkRecords(t, wantRecord, flags)
		})
	}
}

// A halt is stronger than a condition, and lost mounts are found before it. A condition is tested at the turn of the step.
func TestConditionsAndTheGate(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	flags := late(info.sharing(runDir, 2))
	flags.When = []string{contract.Condition{Step: "lint", Number: 1, Of: contract.OfOutput, Output: "A", In: []string{"2"}}.String()}
	p := container{args: flags.Args()}.start(t)
	writeOutputs(t, runDir, 1, "A=1\n")
	info.awaitRejection()
	writeOutputs(t, runDir, 1, "A=2\n")
	writeRecord(t, runDir, 1, contract.Record{})
	if diff := cmp.Diff(result{Stdout: "1"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	halt := newPodinfo(t)
	halt.write(halted("2", haltReason))
	flags = halt.sharing(newRunDir(t, 2), 2)
	flags.When = []string{contract.Condition{Step: "lint", Number: 1, Of: contract.OfState, In: []string{"Failed"}}.String()}
	if diff := cmp.Diff(result{}, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("after a halt: -want +got:\n%s", diff)
	}
	checkRecords(t, contract.Record{Reason: contract.ReasonSkipped, Message: haltReason}, flags)
}

// Inputs become environment variables of the command, literally, and override the container's own.
func TestInputs(t *testing.T) {
	const missing = `input V: step "make" has no output KEY; write KEY=VALUE to $TASKFLOW_OUTPUT there, or set a default`
	whole := "a b\t'\"$HOME `x` \\n $(KEY)"
	tests := map[string]struct {
		outputs  string
		fallback *string
		env      []string
		want     string
		err      string
	}{
		"a value":                     {outputs: "KEY=1\n", want: "1"},
		"a literal value":             {outputs: "KEY=" + whole + "\n", want: whole},
		"several lines":               {outputs: "KEY='1\n2'\n", want: "1\n2"},
		"an empty value":              {outputs: "KEY=\n", fallback: &whole, want: ""},
		"overrides":                   {outputs: "KEY=1\n", env: []string{"V=0", "VV=2"}, want: "1"},
		"overrides the first of two":  {outputs: "KEY=1\n", env: []string{"V=0", "V=2"}, want: "1"},
		"a default":                   {outputs: "OTHER=1\n", fallback: &whole, want: whole},
		"a default without a file":    {fallback: &whole, want: whole},
		"an empty default":            {fallback: new(string), want: ""},
		"no value":                    {outputs: "OTHER=1\n", err: missing},
		"no file":                     {err: missing},
		"no value, but the container": {env: []string{"V=0"}, err: missing},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("2"))
			writeRecord(t, runDir, 1, contract.Record{})
			if tc.outputs != "" {
				writeOutputs(t, runDir, 1, tc.outputs)
			}
			flags := info.sharing(runDir, 2)
			flags.Inputs = []string{contract.Input{Name: "V", Step: "make", Number: 1, Output: "KEY", Default: tc.fallback}.String()}
			flags.Command = []string{"printenv", "V"}
			got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), tc.env...) }}.run(t)
			if tc.err != "" {
				if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: "agent: " + tc.err + "\n"}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				checkRecords(t, contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonInputInvalid, Message: tc.err}, flags)
				return
			}
			if diff := cmp.Diff(result{Stdout: tc.want + "\n"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A step that wants to may set how its programs are found.
func TestInputPATH(t *testing.T) {
	t.Parallel()
	info, runDir, dir := newPodinfo(t), newRunDir(t, 2), t.TempDir()
	info.write(order("2"))
	writeOutputs(t, runDir, 1, "dir="+dir+"\n")
	must(t, os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\necho $PATH\n"), 0o755))
	flags := info.sharing(runDir, 2)
	flags.Inputs = []string{contract.Input{Name: "PATH", Step: "make", Number: 1, Output: "dir"}.String()}
	flags.Command = []string{"tool"}
	if diff := cmp.Diff(result{Stdout: dir + "\n"}, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An input that is missing fails the step like its command would: with onError Continue, the next step runs.
func TestInputsAndOnError(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("2"))
	flags := consuming(t, info, runDir, "A")
	flags.OnError = contract.OnErrorContinue
	if got := (container{args: flags.Args()}).run(t); got.Code != 0 {
		t.Errorf("%+v", got)
	}
	code := contract.ExitAgentFailure
	want := contract.Record{
		CommandExitCode: &code, Passes: true, Reason: contract.ReasonInputInvalid,
		Message: `input V: step "make" has no output A; write A=VALUE to $TASKFLOW_OUTPUT there, or set a default`,
	}
	checkRecords(t, want, flags)
}

// The environment of a command is the container's and, with a run directory, the path of its outputs.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 7)
	info.write(order("3"))
	env := []string{"GORACE=" + os.Getenv("GORACE"), "A=1", "EMPTY=", "TASKFLOW_OUTPUT=/elsewhere"}
	flags := info.sharing(runDir, 3)
	flags.Step = 7
	flags.Command = child(childReport)
	got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Dir, cmd.Env = "/", env }}.run(t)
	want := []string{env[0], env[1], env[2], "TASKFLOW_OUTPUT=" + runDir + "/7/output"}
	if diff := cmp.Diff(reported(flags.Command, want, "/"), got.Stdout); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A final step is told how the others ended. Without the controller's word they succeeded: a record has released it.
func TestFinalStepIsTold(t *testing.T) {
	tests := map[string]struct {
		outcome string
		want    string
	}{
		"nothing":   {"", "Succeeded[]"},
		"succeeded": {contract.Outcome{Status: contract.Succeeded}.Marshal(), "Succeeded[]"},
		"failed":    {contract.Outcome{Status: contract.Failed, FailedStep: "lint"}.Marshal(), "Failed[lint]"},
		"cancelled": {contract.Outcome{Status: contract.Cancelled}.Marshal(), "Cancelled[]"},
		"timed out": {contract.Outcome{Status: contract.Failed}.Marshal(), "Failed[]"},
		"only ends": {contract.Outcome{Steps: map[int]contract.End{1: {State: contract.Succeeded}}}.Marshal(), "Succeeded[]"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := graph("a b=")
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(files{contract.OrderFile: "2", contract.HaltFile: "why", contract.HaltFinallyFile: "", contract.OutcomeFile: tc.outcome})
			flags := info.final(runDir, steps)
			flags.Command = shell("echo $TASKFLOW_STATUS[$TASKFLOW_FAILED_STEP]")
			if diff := cmp.Diff(result{Stdout: tc.want + "\n"}, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Final steps run one after another, also after the failure of one. A halt of the others does not concern them; their own halt ends the one that runs,
// and skips those that wait.
func TestFinalSteps(t *testing.T) {
	steps := graph("a")
	second := func(info *podinfo, runDir string) contract.AgentFlags {
		flags := info.final(runDir, steps)
		flags.WaitContent, flags.Step, flags.After, flags.Work = 3, 0, []int{2}, 0
		return flags
	}
	two := 2
	for name, tc := range map[string]struct {
		record contract.Record
		opens  bool
	}{
		"succeeded":             {contract.Record{}, true},
		"failed":                {contract.Record{ExitCode: 3}, true},
		"failed, Continue":      {contract.Record{CommandExitCode: &two, Passes: true}, true},
		"a condition":           {contract.Record{Reason: contract.ReasonWhenFalse}, true},
		"timed out":             {contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}, true},
		"cancelled":             {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, false},
		"may have been stopped": {contract.Record{ExitCode: 143, Reason: contract.ReasonSignaled}, false},
		"skipped":               {contract.Record{Reason: contract.ReasonSkipped}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(halted("2", "the others are halted"))
			writeRecord(t, runDir, 2, tc.record)
			p := container{args: late(second(info, runDir)).Args()}.start(t)
			want := result{Stdout: "2"}
			if !tc.opens {
				info.awaitRejection()
				info.write(halted("3", "the others are halted"))
				want.Stdout = "3"
			}
			if diff := cmp.Diff(want, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}

	t.Run("halted", func(t *testing.T) {
		t.Parallel()
		input, _ := pipe(t)
		info, runDir := newPodinfo(t), newRunDir(t, 3)
		info.write(order("2"))
		first := info.final(runDir, steps)
		first.Command, first.Grace = shell(exits0), longGrace
		running := container{args: first.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
		waits := second(info, runDir)
		waiting := container{args: waits.Args()}.start(t)
		running.awaitOutput("ready")
		info.write(halted("2", "the others are halted"))
		info.awaitRejection()
		info.write(files{contract.OrderFile: "2", contract.HaltFile: "why", contract.HaltFinallyFile: "enough"})
		if diff := cmp.Diff(result{Code: 128 + int(unix.SIGTERM), Stdout: "ready\ntold\n"}, running.wait()); diff != "" {
			t.Errorf("the step that runs: -want +got:\n%s", diff)
		}
		if diff := cmp.Diff(result{}, waiting.wait()); diff != "" {
			t.Errorf("the step that waits: -want +got:\n%s", diff)
		}
		checkRecords(t, contract.Record{Reason: contract.ReasonSkipped, Message: "enough"}, waits)
	})
}
