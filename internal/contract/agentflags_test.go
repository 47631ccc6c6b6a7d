package contract_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The webhook writes the command line, and the agent parses it: also if the command looks like the agent's own flags.
func TestAgentFlagsRoundTrip(t *testing.T) {
	// After parsing, defaults are explicit.
	flags := func(edit func(*contract.AgentFlags)) contract.AgentFlags {
		f := contract.AgentFlags{
			Wait:           "/etc/podinfo/order",
			WaitContent:    1,
			AfterFailure:   contract.AfterFailureStop,
			Out:            contract.OutStdout,
			TerminationLog: contract.DefaultTerminationLog,
			Grace:          contract.DefaultGrace,
			Command:        []string{"true"},
		}
		edit(&f)
		return f
	}
	command := func(argv ...string) contract.AgentFlags {
		return flags(func(f *contract.AgentFlags) { f.Command = argv })
	}

	tests := map[string]contract.AgentFlags{
		"only what is required": flags(func(*contract.AgentFlags) {}),
		"every flag": flags(func(f *contract.AgentFlags) {
			f.WaitContent = 100
			f.Halt = "/etc/podinfo/halt"
			f.TerminationLog = "/tmp/log"
			f.FallbackToLogs = true
			f.Run, f.ControllerOnly, f.AfterFailure, f.RestartsOnFailure = "/taskflow/run", true, contract.AfterFailureContinue, true
			f.Timeout, f.Grace, f.Retries = 90*time.Second, 5*time.Second, 3
			f.WorkDir, f.Mounts = "/work/a b", []string{"/dist", "/a b"}
		}),
		"a step beside others": flags(func(f *contract.AgentFlags) {
			f.WaitContent, f.Step, f.After, f.Work = 2, 7, []int{1, 3, 100}, 100
			f.Cancel, f.Outcome = "/a b/cancel", "/a b/outcome"
		}),
		"a final step": flags(func(f *contract.AgentFlags) {
			f.WaitContent, f.After, f.Work, f.IsFinal = 3, []int{2}, 2, true
			f.Halt, f.Outcome = "/etc/podinfo/halt-finally", "/etc/podinfo/outcome"
		}),
		"rules, conditions and inputs": flags(func(f *contract.AgentFlags) {
			f.OnError, f.ExitCodes = contract.OnErrorFailAtEnd, []string{"2,3=Succeed", "78=Finish"}
			f.When, f.Inputs = []string{`{"step":"a b"}`, "--wait"}, []string{`{"name":"A"}`, ""}
			f.DefaultWorkDir = "/workspace"
		}),
		"a step that restarts": flags(func(f *contract.AgentFlags) {
			f.Run, f.AfterFailure, f.RestartsOnFailure = "/taskflow/run", contract.AfterFailureWait, true
		}),
		"paths with spaces": flags(func(f *contract.AgentFlags) {
			f.Wait, f.Halt, f.Run, f.TerminationLog = "/a b/order", "/a b/halt", "/a b/run", "/a b/log"
		}),
		"paths that start with a dash": flags(func(f *contract.AgentFlags) {
			f.Wait, f.Halt, f.TerminationLog = "-order", "--halt", "-log"
		}),
		"a command with arguments":                  command("/script.sh", "100"),
		"a command with spaces, quotes, line feeds": command("sh", "-c", "echo 'a  b'\n\"$(VAR)\""),
		"a command with empty strings":              command("printf", "", ""),
		"an empty command":                          command(""),
		"a command that is --command":               command("--command"),
		"a command with --command in it":            command("agent", "--command", "x", "--command"),
		"a command with the agent's flags in it":    command("agent", "--wait", "x", "--waitcontent", "2", "--halt"),
		"a command that is --":                      command("--", "x"),
		"a command that is install":                 command(contract.InstallCommand, "/bin/agent"),
		"a command that is not UTF-8":               command("\xff"),
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := contract.ParseAgentFlags(want.Args())
			if err != nil {
				t.Fatalf("ParseAgentFlags(%q): %v", want.Args(), err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseAgentFlags(Args()): -want +got:\n%s", diff)
			}
		})
	}
}

// The command line of the startupProbe has only the flags that the probe needs.
func TestStartedFlagsRoundTrip(t *testing.T) {
	step := contract.AgentFlags{
		Wait: "/a b/order", WaitContent: 7, Halt: "/a b/halt", TerminationLog: "/log",
		Timeout: time.Hour, Grace: time.Second, Retries: 3, Command: []string{"the", "step"},
		Run: "/a b/run", ControllerOnly: true, AfterFailure: contract.AfterFailureContinue, RestartsOnFailure: true, ProbeDelay: 90 * time.Second, WorkDir: "/work/a b", Mounts: []string{"/dist"},
		Step: 9, After: []int{2, 8}, Work: 11, IsFinal: true,
		OnError: contract.OnErrorContinue, ExitCodes: []string{"2=Succeed"}, When: []string{"{}"}, Inputs: []string{"{}"}, Cancel: "/cancel", Outcome: "/outcome",
		DefaultWorkDir: "/workspace",
	}
	for name, probe := range map[string][]string{
		"no probe":                     nil,
		"a probe":                      {"sh", "-c", "test -e /ready"},
		"a probe with --command in it": {"agent", "started", "--command", "", "$(A)"},
	} {
		t.Run(name, func(t *testing.T) {
			args := step.StartedArgs(probe)
			if args[0] != contract.StartedCommand {
				t.Fatalf("StartedArgs begins with %q, want %q", args[0], contract.StartedCommand)
			}
			got, err := contract.ParseStartedFlags(args[1:])
			if err != nil {
				t.Fatalf("ParseStartedFlags(%q): %v", args[1:], err)
			}
			want := contract.AgentFlags{
				Wait: step.Wait, WaitContent: step.WaitContent, Command: probe,
				Run: step.Run, ControllerOnly: step.ControllerOnly, AfterFailure: step.AfterFailure, ProbeDelay: step.ProbeDelay,
				Step: step.Step, After: step.After, Work: step.Work, IsFinal: step.IsFinal,
				Out: contract.OutStdout, TerminationLog: contract.DefaultTerminationLog, Grace: contract.DefaultGrace,
			}
			if len(probe) > 0 {
				want.WorkDir = step.WorkDir // only the probe needs it
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseStartedFlags(StartedArgs()): -want +got:\n%s", diff)
			}
		})
	}
}

// The numbers of a step and of its predecessors follow from its stage in a plain sequence, and have flags of their own beside others.
func TestNumberAndPredecessors(t *testing.T) {
	type numbers struct {
		Number       int
		Predecessors []int
	}
	tests := map[string]struct {
		flags contract.AgentFlags
		want  numbers
	}{
		"the first step":                         {contract.AgentFlags{WaitContent: 1}, numbers{1, nil}},
		"a later step":                           {contract.AgentFlags{WaitContent: 7}, numbers{7, []int{6}}},
		"beside others":                          {contract.AgentFlags{WaitContent: 2, Step: 7, After: []int{3, 5}}, numbers{7, []int{3, 5}}},
		"without predecessors":                   {contract.AgentFlags{WaitContent: 1, Step: 7}, numbers{7, nil}},
		"behind one that is not the step before": {contract.AgentFlags{WaitContent: 4, After: []int{2}}, numbers{4, []int{2}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, numbers{tc.flags.Number(), tc.flags.Predecessors()}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Pods in flight have these flags in this form.
func TestFlagsOfStepsSideBySide(t *testing.T) {
	f := contract.AgentFlags{
		Wait: "/o", WaitContent: 2, Step: 3, After: []int{1, 2}, Work: 4, IsFinal: true, OnError: contract.OnErrorContinue, ExitCodes: []string{"2,3=Succeed"},
		When: []string{"{}"}, Inputs: []string{"[]"}, Cancel: "/c", Outcome: "/r", DefaultWorkDir: "/workspace", Command: []string{"make"},
	}
	want := []string{
		"--wait", "/o", "--waitcontent", "2", "--out", "stdout", "--step", "3", "--after", "1", "--after", "2", "--work", "4", "--final", "--on-error", "continue",
		"--exit-code", "2,3=Succeed", "--when", "{}", "--input", "[]", "--cancel", "/c", "--outcome", "/r", "--default-workdir", "/workspace", "--command", "make",
	}
	if diff := cmp.Diff(want, f.Args()); diff != "" {
		t.Errorf("Args: -want +got:\n%s", diff)
	}
	want = []string{"started", "--wait", "/o", "--waitcontent", "2", "--step", "3", "--after", "1", "--after", "2", "--work", "4", "--final"}
	if diff := cmp.Diff(want, f.StartedArgs(nil)); diff != "" {
		t.Errorf("StartedArgs: -want +got:\n%s", diff)
	}
}

// Pods in flight have the flags for a working directory and for mounts in this form.
func TestFlagsForWorkDirAndMounts(t *testing.T) {
	f := contract.AgentFlags{
		Wait: "/etc/podinfo/order", WaitContent: 2, WorkDir: "/s/src", Mounts: []string{"/dist:out/dist", "/assets"}, Command: []string{"make"},
	}
	want := []string{
		"--wait", "/etc/podinfo/order", "--waitcontent", "2", "--out", "stdout",
		"--workdir", "/s/src", "--mount", "/dist:out/dist", "--mount", "/assets", "--command", "make",
	}
	if diff := cmp.Diff(want, f.Args()); diff != "" {
		t.Errorf("Args: -want +got:\n%s", diff)
	}
	want = []string{"started", "--wait", "/etc/podinfo/order", "--waitcontent", "2", "--workdir", "/s/src", "--command", "true"}
	if diff := cmp.Diff(want, f.StartedArgs([]string{"true"})); diff != "" {
		t.Errorf("StartedArgs: -want +got:\n%s", diff)
	}
	want = []string{"enter", "/s/src", "test", "-e", "ready"}
	if diff := cmp.Diff(want, contract.EnterArgs("/s/src", []string{"test", "-e", "ready"})); diff != "" {
		t.Errorf("EnterArgs: -want +got:\n%s", diff)
	}
}

// Empty fields have defaults, so the webhook sets only what a Pod asks for.
func TestAgentFlagsDefaults(t *testing.T) {
	f := contract.AgentFlags{Wait: "order", WaitContent: 1, Command: []string{"true"}}
	got, err := contract.ParseAgentFlags(f.Args())
	if err != nil {
		t.Fatal(err)
	}
	want := f
	want.Out, want.TerminationLog, want.Grace = contract.OutStdout, contract.DefaultTerminationLog, contract.DefaultGrace
	want.AfterFailure = contract.AfterFailureStop
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseAgentFlags(Args()): -want +got:\n%s", diff)
	}
}

// Args must not write into the array behind Command: it belongs to the Pod that the webhook mutates.
func TestAgentFlagsArgsCopiesTheCommand(t *testing.T) {
	command := slices.Grow([]string{"sh"}, 10)
	args := contract.AgentFlags{Wait: "order", WaitContent: 1, Command: command}.Args()
	args[len(args)-1] = "changed"
	if diff := cmp.Diff([]string{"sh"}, command); diff != "" {
		t.Errorf("Command after Args: -want +got:\n%s", diff)
	}
}

// Pods in flight have the form of the first release.
func TestParseFirstReleasesForm(t *testing.T) {
	args := []string{"--wait", "/etc/podinfo/order", "--waitcontent", "3", "--out", "stdout", "--command", "/script.sh", "100"}
	got, err := contract.ParseAgentFlags(args)
	if err != nil {
		t.Fatal(err)
	}
	want := contract.AgentFlags{
		Wait:           "/etc/podinfo/order",
		WaitContent:    3,
		AfterFailure:   contract.AfterFailureStop,
		Out:            contract.OutStdout,
		TerminationLog: contract.DefaultTerminationLog,
		Grace:          contract.DefaultGrace,
		Command:        []string{"/script.sh", "100"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseAgentFlags: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(args, want.Args()); diff != "" {
		t.Errorf("Args: -want +got:\n%s", diff)
	}
}

// Users see these sentences in "kubectl logs": each says what is wrong, and what to do about it.
func TestParseAgentFlagsRejects(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"nothing": {
			args: nil,
			want: "--wait is missing: set it to the file that holds the order",
		},
		"no order file": {
			args: []string{"--waitcontent", "1", "--command", "true"},
			want: "--wait is missing: set it to the file that holds the order",
		},
		"no number": {
			args: []string{"--wait", "order", "--command", "true"},
			want: "--waitcontent is missing or below 1: set it to the step's number",
		},
		"number zero": {
			args: []string{"--wait", "order", "--waitcontent", "0", "--command", "true"},
			want: "--waitcontent is missing or below 1: set it to the step's number",
		},
		"negative number": {
			args: []string{"--wait", "order", "--waitcontent", "-1", "--command", "true"},
			want: "--waitcontent is missing or below 1: set it to the step's number",
		},
		"not a number": {
			args: []string{"--wait", "order", "--waitcontent", "one", "--command", "true"},
			want: `--waitcontent: strconv.Atoi: parsing "one": invalid syntax`,
		},
		"output that is not stdout": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--out", "/tmp/log", "--command", "true"},
			want: `--out "/tmp/log" is unknown: set it to stdout`,
		},
		"unknown flag": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--until", "x", "--command", "true"},
			want: `unexpected argument "--until": the step's command goes after --command`,
		},
		"flag without its value": {
			args: []string{"--waitcontent", "1", "--wait", "--command", "true"},
			want: "--wait has no value",
		},
		"unknown --after-failure": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--after-failure", "retry", "--command", "true"},
			want: `--after-failure "retry" is unknown: set it to stop, continue or wait`,
		},
		"negative timeout": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--timeout", "-1s", "--command", "true"},
			want: "--timeout -1s is below 0: leave it out for no timeout",
		},
		"no grace": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--grace", "0s", "--command", "true"},
			want: "--grace 0s must be above 0",
		},
		"grace without a unit": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--grace", "30", "--command", "true"},
			want: `--grace: time: missing unit in duration "30"`,
		},
		"negative delay": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--delay", "-1s", "--command", "true"},
			want: "--delay -1s is below 0: leave it out for no delay",
		},
		"negative retries": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--retries", "-1", "--command", "true"},
			want: "--retries -1 is below 0: leave it out for no retries",
		},
		"unknown --on-error": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--on-error", "stop", "--command", "true"},
			want: `--on-error "stop" is unknown: set it to continue or fail-at-end`,
		},
		"a predecessor that is no number": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--after", "1,2", "--command", "true"},
			want: `--after: strconv.Atoi: parsing "1,2": invalid syntax`,
		},
		"no --command": {
			args: []string{"--wait", "order", "--waitcontent", "1"},
			want: "--command is missing: put the step's command after it",
		},
		"nothing after --command": {
			args: []string{"--wait", "order", "--waitcontent", "1", "--command"},
			want: "--command is missing: put the step's command after it",
		},
		"command without --command": {
			args: []string{"--wait", "order", "--waitcontent", "1", "/script.sh"},
			want: `unexpected argument "/script.sh": the step's command goes after --command`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := contract.ParseAgentFlags(tc.args)
			if err == nil {
				t.Fatalf("ParseAgentFlags(%q) = %+v, want an error", tc.args, got)
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("ParseAgentFlags(%q): -want +got:\n%s", tc.args, diff)
			}
			if diff := cmp.Diff(contract.AgentFlags{}, got); diff != "" {
				t.Errorf("flags returned with the error: -want +got:\n%s", diff)
			}
		})
	}
}
