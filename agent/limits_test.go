//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

const (
	// shortTimeout is one that is reached. It is long enough for a shell to be ready before, with much to spare.
	shortTimeout = 2 * time.Second
	// shortGrace is one that is used up, and noGrace one that no test lives to see: what ends then ends by SIGTERM.
	shortGrace = 300 * time.Millisecond
	noGrace    = time.Hour
)

// Scripts that are ready, and end only when they are told to. They read from a pipe that nobody writes to.
const (
	obeys     = `echo ready; read line`
	endsWell  = `trap 'echo told; exit 0' TERM; echo ready; while :; do read line; done`
	endsWith7 = `trap 'echo told; exit 7' TERM; echo ready; while :; do read line; done`
	cleansUp  = `trap 'sleep 0.2; echo told; exit 0' TERM; echo ready; while :; do read line; done`
	ignores   = `trap '' TERM; echo ready; while :; do read line; done`
	isStopped = `echo ready; kill -STOP $$`
)

// A command that takes longer than its timeout gets SIGTERM, and SIGKILL only after the grace. However it then ends, the
// step has failed with the exit code of timeout(1), and the record says why.
func TestTimeout(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
		stdout string
	}{
		"obeys SIGTERM":                  {obeys, noGrace, "ready\n"},
		"ends well on SIGTERM":           {endsWell, noGrace, "ready\ntold\n"},
		"has its own code for SIGTERM":   {endsWith7, noGrace, "ready\ntold\n"},
		"takes its time to clean up":     {cleansUp, noGrace, "ready\ntold\n"},
		"ignores SIGTERM":                {ignores, shortGrace, "ready\n"},
		"is stopped and can't even obey": {isStopped, shortGrace, "ready\n"},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				flags := released(t, shell(tc.script)...)
				flags.Timeout, flags.Grace = shortTimeout, tc.grace
				started := time.Now()
				got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
				took := time.Since(started)
				if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: tc.stdout}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(timedOut(), readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
				// A timer may be late and never early.
				least := shortTimeout
				if tc.grace != noGrace {
					least += tc.grace
				}
				if took < least {
					t.Errorf("the step took %v, want at least %v", took, least)
				}
			})
		}
	}
}

// timedOut is the record of a command with shortTimeout.
func timedOut() contract.Record {
	return contract.Record{
		ExitCode: contract.ExitTimeout,
		Reason:   contract.ReasonTimedOut,
		Message:  "took longer than its timeout of 2s",
	}
}

// A command that ends before its timeout ends as it would without one.
func TestTimeoutThatIsNotReached(t *testing.T) {
	tests := map[string]struct {
		script string
		want   int
	}{
		"success":            {"exit 0", 0},
		"failure":            {"exit 42", 42},
		"SIGTERM of its own": {"kill -15 $$", 128 + 15},
		"a timeout's code":   {"exit 124", 124},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := released(t, shell(tc.script)...)
			flags.Timeout = time.Hour
			if diff := cmp.Diff(result{Code: tc.want}, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(contract.Record{ExitCode: tc.want}, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// What a timed-out command has started ends with it, also where it holds the output or does not listen to SIGTERM, and the
// agent does not wait for it: others read the output through a pipe of their own, and then hang until a grandchild is done.
// As in TestLeftoversAreKilled it is the test that has the pipe.
func TestTimeoutKillsLeftovers(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
	}{
		"a background process":               {`sleep 100 & ` + obeys, noGrace},
		"a daemon":                           {`setsid sleep 100 & ` + obeys, noGrace},
		"one that ignores SIGTERM":           {`(trap '' TERM; exec sleep 100) & ` + obeys, noGrace},
		"what the command waits for":         {`sleep 100 & echo ready; wait`, noGrace},
		"what the command runs, after grace": {`trap '' TERM; echo ready; sleep 100; exit 0`, shortGrace},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				flags := released(t, shell(tc.script)...)
				flags.Timeout, flags.Grace = shortTimeout, tc.grace
				got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
				if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "ready\n"}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(timedOut(), readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// Whoever else holds the output, out of the agent's reach, does not delay it either (PEERS row 18).
func TestTimeoutDoesNotWaitForTheOutput(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	_, output := pipe(t) // the test keeps it open
	flags := released(t, shell(obeys)...)
	flags.Timeout, flags.Grace = shortTimeout, noGrace
	got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin, cmd.Stdout = input, output }}.run(t)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

const haltReason = "the Task was cancelled"

// A halt ends the command that runs: SIGTERM, and SIGKILL after the grace. A command that ends well then has been cut short
// all the same, so the step never counts as a success.
func TestHaltWhileTheCommandRuns(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
		stdout string
		code   int
	}{
		"obeys SIGTERM":                  {obeys, noGrace, "ready\n", 128 + 15},
		"ends well on SIGTERM":           {endsWell, noGrace, "ready\ntold\n", 128 + 15},
		"has its own code for SIGTERM":   {endsWith7, noGrace, "ready\ntold\n", 7},
		"takes its time to clean up":     {cleansUp, noGrace, "ready\ntold\n", 128 + 15},
		"ignores SIGTERM":                {ignores, shortGrace, "ready\n", 128 + 9},
		"is stopped and can't even obey": {isStopped, shortGrace, "ready\n", 128 + 9},
		"has a child that holds stdout":  {`(trap '' TERM; exec sleep 100) & ` + obeys, noGrace, "ready\n", 128 + 15},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.step(1)
				flags.Command, flags.Grace = shell(tc.script), tc.grace
				p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
				p.awaitOutput("ready")
				if tc.script == isStopped {
					eventually(t, "the command is stopped", func() bool {
						return slices.ContainsFunc(childrenOf(t, p.cmd.Process.Pid), func(child int) bool {
							status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", child)) // fails for one that has gone
							return strings.Contains(string(status), "\nState:\tT")
						})
					})
				}
				info.write(halted("1", haltReason+"\n"))
				if diff := cmp.Diff(result{Code: tc.code, Stdout: tc.stdout}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				record := readRecord(t, flags)
				if diff := cmp.Diff(cancelled(tc.code), record, ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
				if record.StartedAt == nil {
					t.Error("the record has no start, and the command did run")
				}
			})
		}
	}
}

func cancelled(code int) contract.Record {
	return contract.Record{ExitCode: code, Reason: contract.ReasonCancelled, Message: haltReason}
}

// Where inotify is not to be had the halt is found by polling.
func TestHaltWhileTheCommandRunsWithoutInotify(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(1)
	flags.Command, flags.Grace = shell(obeys), noGrace
	p := container{
		program: agentNoInotifyName,
		clone:   unix.CLONE_NEWUSER,
		args:    flags.Args(),
		edit:    func(cmd *exec.Cmd) { cmd.Stdin = input },
	}.start(t)
	p.awaitOutput("ready")
	info.write(halted("1", haltReason))
	if diff := cmp.Diff(result{Code: 128 + 15, Stdout: "ready\n"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(cancelled(128+15), readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// Nothing but a halt ends a command that runs: not the release of later steps, nor an order that is malformed, goes back or
// is missing, nor a halt without content.
func TestOtherChangesWhileTheCommandRuns(t *testing.T) {
	t.Parallel()
	input, finish := pipe(t)
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(1)
	flags.Command = shell("echo ready; read line; exit 42")
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	for _, contents := range []files{
		order("2"), order("100"), order("0"), order("x"), halted("2", " \n"), {contract.OrderFile: "2"}, {contract.HaltFile: ""},
	} {
		info.write(contents)
		info.awaitRejection()
	}
	_, err := fmt.Fprintln(finish)
	must(t, err)
	if diff := cmp.Diff(result{Code: 42, Stdout: "ready\n"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(contract.Record{ExitCode: 42}, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// A halt that is there before the command starts is none that cancels it: the step is skipped, whatever limits it has.
func TestHaltBeforeTheStartSkipsAStepWithLimits(t *testing.T) {
	t.Parallel()
	info := newPodinfo(t)
	info.write(halted("1", haltReason))
	flags := info.step(1)
	flags.Timeout, flags.Grace, flags.Retries = shortTimeout, shortGrace, 3
	if diff := cmp.Diff(result{}, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	record := readRecord(t, flags)
	want := contract.Record{Reason: contract.ReasonSkipped, Message: haltReason}
	if diff := cmp.Diff(want, record, ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
	if record.StartedAt != nil {
		t.Errorf("startedAt is %v, want none", record.StartedAt)
	}
}

// slowToObey says each time that it has been told to end, and ends well when it can read a line.
const slowToObey = `trap 'echo told' TERM; echo ready; while :; do read line && exit 0; done`

// The timeout may come while a halted command has its grace. Then it is the halt that has ended it, and it is told once.
func TestHaltBeforeTheTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second // enough for the halt to be first
	input, finish := pipe(t)
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(1)
	flags.Command, flags.Timeout, flags.Grace = shell(slowToObey), timeout, noGrace
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	ready := time.Now()
	info.write(halted("1", haltReason))
	p.awaitOutput("told")
	eventually(t, "the timeout is over", func() bool { return time.Since(ready) > timeout })
	_, err := fmt.Fprintln(finish)
	must(t, err)
	if diff := cmp.Diff(result{Code: 128 + 15, Stdout: "ready\ntold\n"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(cancelled(128+15), readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// And the other way round: a timed-out command that is halted during its grace has timed out. But it is not run again.
func TestTimeoutBeforeTheHalt(t *testing.T) {
	for name, retries := range map[string]int{"without retries": 0, "with retries": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			info := newPodinfo(t)
			info.write(order("1"))
			flags := info.step(1)
			flags.Command, flags.Timeout, flags.Grace, flags.Retries = shell(slowToObey), shortTimeout, noGrace, retries
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("told")
			info.write(halted("1", haltReason))
			info.awaitHalt()
			_, err := fmt.Fprintln(finish)
			must(t, err)
			got := p.wait()
			got.Stderr = "" // whether it announces a further try is up to which the agent sees first, the halt or the end
			if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "ready\ntold\n"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(timedOut(), readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}
