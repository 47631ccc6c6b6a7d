//go:build linux

package agent_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The rules for exit codes and onError decide how the container exits, and what the record says.
func TestExitCodes(t *testing.T) {
	code := func(code int) *int { return &code }
	const goOn, atEnd = contract.OnErrorContinue, contract.OnErrorFailAtEnd
	tests := map[string]struct {
		script  string
		rules   []string
		onError string
		want    contract.Record
	}{
		"a rule: Succeed":                   {`exit 2`, []string{"2,3=Succeed"}, "", contract.Record{CommandExitCode: code(2)}},
		"a rule: Finish":                    {`exit 78`, []string{"2=Succeed", "78=Finish"}, "", contract.Record{CommandExitCode: code(78), Reason: contract.ReasonFinished}},
		"a rule: Finish for 0":              {`exit 0`, []string{"0=Finish"}, "", contract.Record{Reason: contract.ReasonFinished}},
		"a rule: Fail":                      {`exit 4`, []string{"4=Fail"}, "", contract.Record{ExitCode: 4}},
		"a rule: Fail for 0":                {`exit 0`, []string{"0=Fail"}, "", contract.Record{ExitCode: 1, CommandExitCode: code(0)}},
		"a rule: Retry":                     {`exit 4`, []string{"4=Retry"}, "", contract.Record{ExitCode: 4}},
		"the first rule counts":             {`exit 4`, []string{"4=Fail", "4=Succeed"}, "", contract.Record{ExitCode: 4}},
		"a rule for another code":           {`exit 5`, []string{"4=Succeed"}, "", contract.Record{ExitCode: 5}},
		"success":                           {`exit 0`, []string{"4=Fail"}, "", contract.Record{}},
		"a rule for a signal":               {`kill -9 $$`, []string{"137=Succeed"}, "", contract.Record{CommandExitCode: code(137)}},
		"Continue: success":                 {`exit 0`, nil, goOn, contract.Record{}},
		"Continue: failure":                 {`exit 3`, nil, goOn, contract.Record{CommandExitCode: code(3), Passes: true}},
		"Continue: a signal":                {`kill -9 $$`, nil, goOn, contract.Record{CommandExitCode: code(137), Passes: true}},
		"Continue: a rule":                  {`exit 2`, []string{"2=Succeed"}, goOn, contract.Record{CommandExitCode: code(2)}},
		"Continue: a rule for 0":            {`exit 0`, []string{"0=Fail"}, goOn, contract.Record{CommandExitCode: code(0), Passes: true}},
		"Continue: not started":             {``, nil, goOn, contract.Record{CommandExitCode: code(127), Passes: true, Reason: contract.ReasonStartError, Message: `starting "/no/such/program": no such file or directory`}},
		"FailAtEnd: success":                {`exit 0`, nil, atEnd, contract.Record{}},
		"FailAtEnd: failure":                {`exit 3`, nil, atEnd, contract.Record{ExitCode: 3, Passes: true}},
		"FailAtEnd: a rule":                 {`exit 3`, []string{"3=Fail"}, atEnd, contract.Record{ExitCode: 3, Passes: true}},
		"Continue: a timeout":               {`read line`, nil, goOn, contract.Record{CommandExitCode: code(124), Passes: true, Reason: contract.ReasonTimedOut, Message: timedOut().Message}},
		"FailAtEnd: a timeout":              {`read line`, nil, atEnd, contract.Record{ExitCode: 124, Passes: true, Reason: contract.ReasonTimedOut, Message: timedOut().Message}},
		"a timeout":                         {`read line`, []string{"3=Succeed"}, "", timedOut()},
		"a rule for a timeout":              {`read line`, []string{"124=Succeed"}, "", contract.Record{CommandExitCode: code(124), Reason: contract.ReasonTimedOut, Message: timedOut().Message}},
		"a rule for a timeout: Finish":      {`read line`, []string{"124=Finish"}, "", contract.Record{CommandExitCode: code(124), Reason: contract.ReasonFinished}},
		"a rule for a code that isn't 0..9": {`exit 255`, []string{"255=Succeed"}, "", contract.Record{CommandExitCode: code(255)}},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				info, runDir := newPodinfo(t), newRunDir(t, 1)
				info.write(order("1"))
				flags := info.sharing(runDir, 1)
				flags.Command = shell(tc.script)
				if tc.script == "" {
					flags.Command = []string{"/no/such/program"}
				}
				flags.ExitCodes, flags.OnError, flags.Timeout, flags.Grace = tc.rules, tc.onError, shortTimeout, longGrace
				got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
				got.Stderr = ""
				if diff := cmp.Diff(result{Code: tc.want.ExitCode}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				checkRecords(t, tc.want, flags)
			})
		}
	}
}

// Which exit codes have retries.
func TestExitCodesAndRetries(t *testing.T) {
	code := func(code int) *int { return &code }
	tests := map[string]struct {
		script string
		rules  []string
		want   contract.Record
	}{
		"no rule names it":                  {`exit 4`, []string{"5=Fail"}, contract.Record{ExitCode: 4, Retries: 1}},
		"Fail":                              {`exit 5`, []string{"5=Fail"}, contract.Record{ExitCode: 5}},
		"Retry":                             {`exit 5`, []string{"5=Retry"}, contract.Record{ExitCode: 5, Retries: 1}},
		"another code has Retry":            {`exit 4`, []string{"5=Retry"}, contract.Record{ExitCode: 4}},
		"Retry, and then another code":      {`[ $n = 1 ] && exit 5; exit 4`, []string{"5=Retry"}, contract.Record{ExitCode: 4, Retries: 1}},
		"Succeed":                           {`exit 2`, []string{"2=Succeed"}, contract.Record{CommandExitCode: code(2)}},
		"a failure, and then Succeed":       {`[ $n = 1 ] && exit 4; exit 2`, []string{"2=Succeed"}, contract.Record{CommandExitCode: code(2), Retries: 1}},
		"a failure, and then Finish":        {`[ $n = 1 ] && exit 4; exit 2`, []string{"2=Finish"}, contract.Record{CommandExitCode: code(2), Reason: contract.ReasonFinished, Retries: 1}},
		"Retry for 0":                       {`[ $n = 1 ] && exit 0; exit 4`, []string{"0=Retry", "4=Succeed"}, contract.Record{CommandExitCode: code(4), Retries: 1}},
		"outputs that are invalid: no more": {`echo x >$TASKFLOW_OUTPUT`, nil, contract.Record{ExitCode: 125, Reason: contract.ReasonOutputInvalid, Message: `line 1 of $TASKFLOW_OUTPUT has no "=": write KEY=value, and a value of several lines in single quotes`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := retrying(t, 1, tc.script)
			flags.Run, flags.ExitCodes = newRunDir(t, 1), tc.rules
			got := container{args: flags.Args()}.run(t)
			got.Stderr = ""
			if diff := cmp.Diff(result{Code: tc.want.ExitCode}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			checkRecords(t, tc.want, flags)
		})
	}
}

// A command that is stopped or cancelled does not pass, whatever its onError, and no rule makes a cancel a success.
func TestExitCodesOfInterruptedSteps(t *testing.T) {
	code := func(code int) *int { return &code }
	tests := map[string]struct {
		tell         func(*process, *podinfo)
		rules        []string
		onError      string
		record, next contract.Record // in the termination message, and for the other steps
	}{
		"SIGTERM, Continue": {
			tell: func(p *process, _ *podinfo) { p.signal(unix.SIGTERM) }, onError: contract.OnErrorContinue,
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped}, next: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped},
		},
		"SIGTERM, FailAtEnd": {
			tell: func(p *process, _ *podinfo) { p.signal(unix.SIGTERM) }, onError: contract.OnErrorFailAtEnd,
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped}, next: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped},
		},
		"SIGTERM, Finish": {
			tell: func(p *process, _ *podinfo) { p.signal(unix.SIGTERM) }, rules: []string{"7=Finish"},
			record: contract.Record{CommandExitCode: code(7), Reason: contract.ReasonStopped}, next: contract.Record{CommandExitCode: code(7), Reason: contract.ReasonStopped},
		},
		"another signal, Continue": {
			tell: func(p *process, _ *podinfo) { p.signal(unix.SIGHUP) }, onError: contract.OnErrorContinue,
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonSignaled}, next: contract.Record{ExitCode: 7, Reason: contract.ReasonSignaled},
		},
		"another signal, Finish": {
			tell: func(p *process, _ *podinfo) { p.signal(unix.SIGHUP) }, rules: []string{"7=Finish"},
			record: contract.Record{CommandExitCode: code(7), Reason: contract.ReasonFinished}, next: contract.Record{CommandExitCode: code(7), Reason: contract.ReasonSignaled},
		},
		"a halt, Succeed": {
			tell: func(_ *process, info *podinfo) { info.write(halted("1", haltReason)) }, rules: []string{"7=Succeed"},
			record: cancelled(7), next: cancelled(7),
		},
		"a halt, Continue": {
			tell: func(_ *process, info *podinfo) { info.write(halted("1", haltReason)) }, onError: contract.OnErrorContinue,
			record: cancelled(7), next: cancelled(7),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			info, runDir := newPodinfo(t), newRunDir(t, 1)
			info.write(order("1"))
			flags := info.sharing(runDir, 1)
			flags.Command = shell(`trap 'exit 7' TERM HUP; echo ready; while :; do read line; done`)
			flags.ExitCodes, flags.OnError, flags.Grace = tc.rules, tc.onError, longGrace
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("ready")
			tc.tell(p, info)
			if diff := cmp.Diff(result{Code: tc.record.ExitCode, Stdout: "ready\n"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.record, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record in the termination message: -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.next, recordOf(t, runDir, 1), ignoreTimes); diff != "" {
				t.Errorf("record in the run directory: -want +got:\n%s", diff)
			}
		})
	}
}

// The command of a step beside others ends because of a cancel, also in a pause before a retry. A halt, which follows the failure of another step,
// does not end it.
func TestCancel(t *testing.T) {
	tests := map[string]struct{ value, message string }{
		"cancel":  {contract.CancelCancelled, "spec.cancel of the Task is true"},
		"timeout": {contract.CancelDeadlineExceeded, "the Task took longer than spec.timeout"},
	}
	for name, tc := range tests {
		for _, inPause := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				info, runDir := newPodinfo(t), newRunDir(t, 1)
				info.write(order("1"))
				flags := info.side(runDir, graph("a"), 1)
				flags.Command, flags.Grace, flags.Retries = shell(`trap 'exit 7' TERM; echo ready; while :; do read line; done`), longGrace, manyRetries
				if inPause {
					flags.Command = shell(`echo ready; exit 7`)
				}
				p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
				p.awaitOutput("ready")
				info.write(files{contract.OrderFile: "1", contract.HaltFile: `step "b" failed with exit code 3`, contract.CancelFile: ""})
				info.awaitRejection()
				info.write(files{contract.OrderFile: "1", contract.HaltFile: haltReason, contract.CancelFile: tc.value})
				got := p.wait()
				if got.Code != 7 {
					t.Errorf("%+v", got)
				}
				record := readRecord(t, flags)
				record.Retries = 0
				want := contract.Record{ExitCode: 7, Reason: contract.ReasonCancelled, Message: tc.message}
				if diff := cmp.Diff(want, record, ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// A message of the command stays, unless the controllers would then take the step for something else: then the record has its text.
func TestTerminationMessageWithRules(t *testing.T) {
	code := func(code int) *int { return &code }
	tests := map[string]struct {
		script, onError string
		rules           []string
		want            *contract.Record // nil: the command's
	}{
		"Finish":          {`exit 78`, "", []string{"78=Finish"}, &contract.Record{CommandExitCode: code(78), Reason: contract.ReasonFinished, Message: "mine"}},
		"Finish for 0":    {`exit 0`, "", []string{"0=Finish"}, &contract.Record{Reason: contract.ReasonFinished, Message: "mine"}},
		"Succeed":         {`exit 2`, "", []string{"2=Succeed"}, &contract.Record{CommandExitCode: code(2), Message: "mine"}},
		"Continue":        {`exit 3`, contract.OnErrorContinue, nil, &contract.Record{CommandExitCode: code(3), Passes: true, Message: "mine"}},
		"a failure":       {`exit 3`, "", []string{"2=Succeed"}, nil},
		"FailAtEnd":       {`exit 3`, contract.OnErrorFailAtEnd, nil, nil},
		"success":         {`exit 0`, contract.OnErrorContinue, []string{"2=Succeed"}, nil},
		"invalid outputs": {`echo x >$TASKFLOW_OUTPUT`, "", nil, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 1)
			info.write(order("1"))
			flags := info.sharing(runDir, 1)
			flags.Command = append(shell(`printf mine >"$1"; `+tc.script), "sh", flags.TerminationLog)
			flags.ExitCodes, flags.OnError = tc.rules, tc.onError
			container{args: flags.Args()}.run(t)
			if tc.want == nil {
				if diff := cmp.Diff("mine", readFile(t, flags.TerminationLog)); diff != "" {
					t.Errorf("termination message: -want +got:\n%s", diff)
				}
				return
			}
			if diff := cmp.Diff(*tc.want, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// Flags that can't be parsed fail the step with a sentence, before it waits.
func TestInvalidRules(t *testing.T) {
	tests := map[string]struct {
		flag, value, want string
	}{
		"exit code": {"--exit-code", "3=Explode", `--exit-code: "Explode" is unknown: set it to Succeed, Finish, Fail or Retry`},
		"condition": {"--when", `{"step":"a"}`, `--when: "{\"step\":\"a\"}" is no condition`},
		"input":     {"--input", `{`, `--input: "{" is no input`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := released(t, "true")
			args := append([]string{tc.flag, tc.value, "--wait", filepath.Join(t.TempDir(), "missing")}, flags.Args()[2:]...)
			got := container{program: agentOwnDevName, clone: unix.CLONE_NEWNS, args: args}.run(t)
			got.Stdout = "" // the record
			if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: "agent: " + tc.want + "\n"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
