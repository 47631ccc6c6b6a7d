//go:build linux

package agent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The startupProbe of a step prevents its other probes while the step waits. It fails until the step is released, and succeeds from then on. It
// ignores a halt after the release: a halt does not undo the start of a step.
func TestStarted(t *testing.T) {
	waits := result{Code: 1, Stderr: "agent: the step is not released yet\n"}
	tests := map[string]struct {
		contents files
		want     result
	}{
		"below the order":                {order("3"), waits},
		"at the order":                   {order("4"), result{}},
		"above the order":                {order("10"), result{}},
		"no number":                      {order("x"), waits},
		"nothing in the file":            {order(""), waits},
		"no file":                        {files{contract.HaltFile: ""}, waits},
		"halted while the step runs":     {halted("4", haltReason), result{}},
		"halted before the step started": {halted("3", haltReason), waits},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(tc.contents)
			if diff := cmp.Diff(tc.want, container{args: info.step(4).StartedArgs(nil)}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The kubelet counts initialDelaySeconds of probes from the start of the container. The startupProbe adds it after the start of the command, also
// after a restart of the container.
func TestStartedAfterADelay(t *testing.T) {
	const delay = time.Hour
	justNow := result{Code: 1, Stderr: "agent: the command started less than 1h0m0s ago\n"}
	tests := map[string]struct {
		ago  time.Duration // 0: not started
		want result
	}{
		"not yet":  {0, justNow},
		"just now": {time.Second, justNow},
		"long ago": {delay + time.Minute, result{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 1)
			info.write(order("1"))
			flags := info.sharing(runDir, 1)
			flags.ProbeDelay = delay
			if tc.ago > 0 {
				at := time.Now().Add(-tc.ago)
				must(t, os.Chtimes(writeFile(t, filepath.Join(contract.StepDir(runDir, 1), contract.StartedFile), ""), at, at))
			}
			if diff := cmp.Diff(tc.want, container{args: flags.StartedArgs(nil)}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if tc.ago > delay { // the container restarts
				again := info.sharing(runDir, 1)
				again.Command = []string{"true"}
				container{args: again.Args()}.run(t)
				if diff := cmp.Diff(justNow, container{args: flags.StartedArgs(nil)}.run(t)); diff != "" {
					t.Errorf("after a restart (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The delay counts from the first run of a command with retries.
func TestStartIsMarkedOnce(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 1)
	info.write(order("1"))
	flags := info.sharing(runDir, 1)
	flags.Retries = 1
	mark := filepath.Join(contract.StepDir(runDir, 1), contract.StartedFile)
	flags.Command = append(shell(`[ -e "$1.second" ] && exit; until [ -e "$1" ]; do sleep 0.01; done; touch -d @1 "$1"; touch "$1.second"; exit 1`), "sh", mark)
	if got := (container{args: flags.Args()}).run(t); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	file, err := os.Stat(mark)
	must(t, err)
	if at := file.ModTime(); !at.Equal(time.Unix(1, 0)) {
		t.Errorf("the mark has the time %v, want the time of the first run", at)
	}
}

// The user's startupProbe runs when the step is released, and its result counts.
func TestStartedRunsTheUsersProbe(t *testing.T) {
	dir := t.TempDir()
	plain := writeFile(t, filepath.Join(dir, "plain"), "#!/bin/sh\n")
	tests := map[string]struct {
		order string
		probe []string
		want  result
	}{
		"while the step waits": {
			order: "1", probe: shell("echo asked"),
			want: result{Code: 1, Stderr: "agent: the step is not released yet\n"},
		},
		"that succeeds": {
			order: "2", probe: shell("echo fine; echo note >&2"),
			want: result{Stdout: "fine\n", Stderr: "note\n"},
		},
		"that fails": {
			order: "2", probe: shell("echo not yet; exit 3"),
			want: result{Code: 3, Stdout: "not yet\n"},
		},
		"with arguments that look like the agent's": {
			order: "2", probe: append(shell(`printf '%s|' "$@"`), "sh", "--wait", "", "--command", "$(A)"),
			want: result{Stdout: "--wait||--command|$(A)|"},
		},
		"that is not there": {
			order: "2", probe: []string{"nope"},
			want: result{Code: contract.ExitNotFound, Stderr: "agent: starting \"nope\": not found in PATH\n"},
		},
		"that is no file": {
			order: "2", probe: []string{dir + "/nope"},
			want: result{Code: contract.ExitNotFound, Stderr: "agent: starting \"" + dir + "/nope\": no such file or directory\n"},
		},
		"that may not be executed": {
			order: "2", probe: []string{plain},
			want: result{Code: contract.ExitNotExecutable, Stderr: "agent: starting \"" + plain + "\": permission denied\n"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(order(tc.order))
			if diff := cmp.Diff(tc.want, container{args: info.step(2).StartedArgs(tc.probe)}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A probe with invalid flags fails with a sentence. It writes no record, because the step may be running.
func TestStartedWithInvalidFlags(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"none":      {nil, "--wait is missing: set it to the file that holds the order"},
		"no number": {[]string{"--wait", "/order"}, "--waitcontent is missing or below 1: set it to the step's number"},
		"unknown":   {[]string{"--nope"}, `unexpected argument "--nope": the step's command goes after --command`},
		"a probe without --command": {
			[]string{"--wait", "/order", "--waitcontent", "1", "true"},
			`unexpected argument "true": the step's command goes after --command`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{contract.StartedCommand}, tc.args...)
			want := result{Code: contract.ExitAgentFailure, Stderr: "agent: " + tc.want + "\n"} // a record would be in Stdout
			got := container{program: agentOwnDevName, clone: unix.CLONE_NEWNS, args: args}.run(t)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Once the command has started, the startupProbe succeeds, although the records now say that another step ended the sequence.
func TestStartedBesideAFailure(t *testing.T) {
	t.Parallel()
	waits := result{Code: 1, Stderr: "agent: the step is not released yet\n"}
	steps := graph("a b= c=a")
	info, runDir := newPodinfo(t), newRunDir(t, 3)
	info.write(order("1"))
	flags := info.side(runDir, steps, 3)
	started := func() result { return container{args: flags.StartedArgs(nil)}.run(t) }
	if diff := cmp.Diff(waits, started()); diff != "" {
		t.Errorf("while it waits: -want +got:\n%s", diff)
	}
	writeRecord(t, runDir, 1, contract.Record{})
	if diff := cmp.Diff(result{}, started()); diff != "" {
		t.Errorf("released by the record: -want +got:\n%s", diff)
	}
	writeRecord(t, runDir, 2, contract.Record{ExitCode: 3})
	if diff := cmp.Diff(waits, started()); diff != "" {
		t.Errorf("another step failed before it started: -want +got:\n%s", diff)
	}
	writeFile(t, filepath.Join(contract.StepDir(runDir, 3), contract.StartedFile), "")
	if diff := cmp.Diff(result{}, started()); diff != "" {
		t.Errorf("another step failed after it started: -want +got:\n%s", diff)
	}
}
