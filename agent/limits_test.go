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
	// shortTimeout is for commands that exceed it. A shell needs much less to be ready.
	shortTimeout = 2 * time.Second
	// shortGrace is for commands that exceed it.
	shortGrace = 300 * time.Millisecond
	// longGrace is longer than the tests: a command that ends within it has ended by SIGTERM.
	longGrace = time.Hour
)

// Scripts that print "ready" and end only when they are told to. They read from a pipe without input.
const (
	obeys     = `echo ready; read line`
	exits0    = `trap 'echo told; exit 0' TERM; echo ready; while :; do read line; done`
	exits7    = `trap 'echo told; exit 7' TERM; echo ready; while :; do read line; done`
	cleansUp  = `trap 'sleep 0.2; echo told; exit 0' TERM; echo ready; while :; do read line; done`
	ignores   = `trap '' TERM; echo ready; while :; do read line; done`
	isStopped = `echo ready; kill -STOP $$`
)

// A command that exceeds its timeout gets SIGTERM, and SIGKILL after the grace period. However it then ends, the step has failed with the exit
// code of timeout(1), and the record has the reason.
func TestTimeout(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
		stdout string
	}{
		"obeys SIGTERM":                {obeys, longGrace, "ready\n"},
		"exits with 0 on SIGTERM":      {exits0, longGrace, "ready\ntold\n"},
		"has its own code for SIGTERM": {exits7, longGrace, "ready\ntold\n"},
		"cleans up for a while":        {cleansUp, longGrace, "ready\ntold\n"},
		"ignores SIGTERM":              {ignores, shortGrace, "ready\n"},
		"is stopped by SIGSTOP":        {isStopped, shortGrace, "ready\n"},
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
				// A timer may be late, but never early.
				least := shortTimeout
				if tc.grace != longGrace {
					least += tc.grace
				}
				if took < least {
					t.Errorf("the step took %v, want at least %v", took, least)
				}
			})
		}
	}
}

// timedOut returns the record of a command that exceeded shortTimeout.
func timedOut() contract.Record {
	return contract.Record{
		ExitCode: contract.ExitTimeout,
		Reason:   contract.ReasonTimedOut,
		Message:  "took longer than its timeout of 2s",
	}
}

// A timeout does not change the result of a command that ends before it.
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

// Processes that a timed-out command started end with it, also if they hold its output or ignore SIGTERM. Tools that read the output through a
// pipe of their own hang until the last of them ends; the agent does not. As in TestLeftoversAreKilled, the test has the pipe.
func TestTimeoutKillsLeftovers(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
	}{
		"a background process":               {`sleep 100 & ` + obeys, longGrace},
		"a daemon":                           {`setsid sleep 100 & ` + obeys, longGrace},
		"one that ignores SIGTERM":           {`(trap '' TERM; exec sleep 100) & ` + obeys, longGrace},
		"what the command waits for":         {`sleep 100 & echo ready; wait`, longGrace},
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

// A process outside the container that holds the output does not delay the end of a timed-out step.
func TestTimeoutDoesNotWaitForTheOutput(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	_, output := pipe(t) // the test keeps it open
	flags := released(t, shell(obeys)...)
	flags.Timeout, flags.Grace = shortTimeout, longGrace
	got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin, cmd.Stdout = input, output }}.run(t)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

const haltReason = "the Task was cancelled"

// A halt ends a running command with SIGTERM, and SIGKILL after the grace period. The step does not succeed, even if the command then exits
// with 0, because it was cut short.
func TestHaltWhileTheCommandRuns(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
		stdout string
		code   int
	}{
		"obeys SIGTERM":                 {obeys, longGrace, "ready\n", 128 + 15},
		"exits with 0 on SIGTERM":       {exits0, longGrace, "ready\ntold\n", 128 + 15},
		"has its own code for SIGTERM":  {exits7, longGrace, "ready\ntold\n", 7},
		"cleans up for a while":         {cleansUp, longGrace, "ready\ntold\n", 128 + 15},
		"ignores SIGTERM":               {ignores, shortGrace, "ready\n", 128 + 9},
		"is stopped by SIGSTOP":         {isStopped, shortGrace, "ready\n", 128 + 9},
		"has a child that holds stdout": {`(trap '' TERM; exec sleep 100) & ` + obeys, longGrace, "ready\n", 128 + 15},
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
							status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", child)) // fails if it has ended
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
					t.Error("the record has no startedAt, although the command ran")
				}
			})
		}
	}
}

func cancelled(code int) contract.Record {
	return contract.Record{ExitCode: code, Reason: contract.ReasonCancelled, Message: haltReason}
}

// Without inotify, the agent polls for the halt.
func TestHaltWhileTheCommandRunsWithoutInotify(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(1)
	flags.Command, flags.Grace = shell(obeys), longGrace
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

// Only a halt ends a running command: not a higher order, nor one that is lower, malformed or missing, nor a halt without content.
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

// A halt before the command starts skips the step instead of cancelling it, whatever limits the step has.
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
		t.Errorf("startedAt is %v, want nil", record.StartedAt)
	}
}

// slowToObey prints a line for each SIGTERM, and exits with 0 when it can read a line.
const slowToObey = `trap 'echo told' TERM; echo ready; while :; do read line && exit 0; done`

// If the timeout comes in the grace period after a halt, the step is cancelled, and the command gets one SIGTERM.
func TestHaltBeforeTheTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second // the halt comes first
	input, finish := pipe(t)
	info := newPodinfo(t)
	info.write(order("1"))
	flags := info.step(1)
	flags.Command, flags.Timeout, flags.Grace = shell(slowToObey), timeout, longGrace
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

// If a halt comes in the grace period after a timeout, the step has timed out. It has no retry.
func TestTimeoutBeforeTheHalt(t *testing.T) {
	for name, retries := range map[string]int{"without retries": 0, "with retries": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			info := newPodinfo(t)
			info.write(order("1"))
			flags := info.step(1)
			flags.Command, flags.Timeout, flags.Grace, flags.Retries = shell(slowToObey), shortTimeout, longGrace, retries
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("told")
			info.write(halted("1", haltReason))
			info.awaitHalt()
			_, err := fmt.Fprintln(finish)
			must(t, err)
			got := p.wait()
			got.Stderr = "" // it announces a retry if the agent sees the end of the command before the halt
			if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "ready\ntold\n"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(timedOut(), readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}
