//go:build linux

package agent_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// countRuns makes $n the number of the run, from 1. The script's first argument is a file that outlives a run.
const countRuns = `n=$(($(cat "$1" 2>/dev/null || echo 0) + 1)); echo $n >"$1"; `

// retrying returns the flags of a released step with retries, and a script with countRuns.
func retrying(t *testing.T, retries int, script string) contract.AgentFlags {
	t.Helper()
	info := newPodinfo(t)
	info.write(order("1"))
	return info.retrying(retries, script)
}

func (p *podinfo) retrying(retries int, script string) contract.AgentFlags {
	p.t.Helper()
	flags := p.step(1)
	flags.Retries = retries
	flags.Command = append(shell(countRuns+script), "sh", filepath.Join(p.t.TempDir(), "runs"))
	return flags
}

// announced returns the line that the agent logs before a retry.
func announced(retry, of, code int, pause string) string {
	return fmt.Sprintf("agent: the command failed with exit code %d; retry %d of %d starts in %s\n", code, retry, of, pause)
}

// A command that fails runs again in the same container, until it succeeds or no retries are left. The last run is the result of the step, and
// the record has the number of retries.
func TestRetries(t *testing.T) {
	tests := map[string]struct {
		retries int
		script  string
		want    result
		record  contract.Record
	}{
		"success at once": {
			retries: 3, script: `echo $n; exit 0`,
			want: result{Stdout: "1\n"},
		},
		"success after a failure": {
			retries: 3, script: `echo $n; [ $n = 2 ]`,
			want:   result{Stdout: "1\n2\n", Stderr: announced(1, 3, 1, "1s")},
			record: contract.Record{Retries: 1},
		},
		"success at the last retry": {
			retries: 2, script: `echo $n; [ $n = 3 ] || exit 4`,
			want:   result{Stdout: "1\n2\n3\n", Stderr: announced(1, 2, 4, "1s") + announced(2, 2, 4, "2s")},
			record: contract.Record{Retries: 2},
		},
		"only failures": {
			retries: 1, script: `echo $n; exit $((40 + n))`,
			want:   result{Code: 42, Stdout: "1\n2\n", Stderr: announced(1, 1, 41, "1s")},
			record: contract.Record{ExitCode: 42, Retries: 1},
		},
		"death by a signal": {
			retries: 1, script: `echo $n; kill -9 $$`,
			want:   result{Code: 128 + 9, Stdout: "1\n2\n", Stderr: announced(1, 1, 128+9, "1s")},
			record: contract.Record{ExitCode: 128 + 9, Retries: 1},
		},
		"none": {
			retries: 0, script: `echo $n; exit 42`,
			want:   result{Code: 42, Stdout: "1\n"},
			record: contract.Record{ExitCode: 42},
		},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				flags := retrying(t, tc.retries, tc.script)
				if diff := cmp.Diff(tc.want, container{args: flags.Args(), clone: clone}.run(t)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(tc.record, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// The pauses double. The record has the start of the first run, so the step takes as long as all runs. A timer is never early.
func TestRetriesPause(t *testing.T) {
	t.Parallel()
	const least = time.Second + 2*time.Second
	flags := retrying(t, 2, `exit 42`)
	container{args: flags.Args()}.run(t)
	record := readRecord(t, flags)
	if record.StartedAt == nil {
		t.Fatal("the record has no startedAt")
	}
	// The record has milliseconds.
	if took := record.FinishedAt.Sub(*record.StartedAt); took < least-time.Millisecond {
		t.Errorf("three runs took %v, want at least %v", took, least)
	}
}

// A run that exceeds the timeout has failed, and each run has the whole timeout.
func TestRetriesAfterATimeout(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			flags := retrying(t, 2, `echo $n; [ $n = 3 ] || read line`)
			flags.Timeout, flags.Grace = shortTimeout, longGrace
			got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
			want := result{
				Stdout: "1\n2\n3\n",
				Stderr: announced(1, 2, contract.ExitTimeout, "1s") + announced(2, 2, contract.ExitTimeout, "2s"),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(contract.Record{Retries: 2}, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// If the last run exceeds the timeout, the step has timed out.
func TestRetriesUntilATimeout(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	flags := retrying(t, 1, `echo $n; [ $n = 1 ] && exit 3; read line`)
	flags.Timeout, flags.Grace = shortTimeout, longGrace
	got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "1\n2\n", Stderr: announced(1, 1, 3, "1s")}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want := timedOut()
	want.Retries = 1
	if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// Processes that a run left behind would disturb the next one: for example, two servers with the same port.
func TestLeftoversAreKilledBeforeARetry(t *testing.T) {
	const script = `[ $n = 2 ] || { sleep 60 & echo $! >"$1.pid"; exit 1; }; read pid <"$1.pid"; kill -0 $pid 2>/dev/null && echo "still there"; exit 0`
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			flags := retrying(t, 1, script)
			if diff := cmp.Diff(result{Stderr: announced(1, 1, 1, "1s")}, container{args: flags.Args(), clone: clone}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A retry does not help a command that can't be started: the user must fix the Pod.
func TestNoRetriesForACommandThatCannotStart(t *testing.T) {
	t.Parallel()
	flags := released(t, "/no/such/program")
	flags.Retries = 5
	const message = `starting "/no/such/program": no such file or directory`
	want := result{Code: contract.ExitNotFound, Stderr: "agent: " + message + "\n"}
	if diff := cmp.Diff(want, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	wantRecord := contract.Record{ExitCode: contract.ExitNotFound, Reason: contract.ReasonStartError, Message: message}
	if diff := cmp.Diff(wantRecord, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// manyRetries are more than a test has time for.
const manyRetries = 100

// There is no retry if the container was told to stop, or the sequence was halted, while the command ran, however the command then ends.
func TestNoRetriesAfterASignalOrAHalt(t *testing.T) {
	tests := map[string]struct {
		tell   func(*process, *podinfo)
		code   int
		record contract.Record
	}{
		"SIGTERM": {
			tell:   func(p *process, _ *podinfo) { p.signal(unix.SIGTERM) },
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped},
		},
		"SIGINT": {
			tell:   func(p *process, _ *podinfo) { p.signal(unix.SIGINT) },
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped},
		},
		"SIGQUIT, the stop signal of nginx": {
			tell:   func(p *process, _ *podinfo) { p.signal(unix.SIGQUIT) },
			record: contract.Record{ExitCode: 7, Reason: contract.ReasonStopped},
		},
		"a halt": {
			tell:   func(_ *process, info *podinfo) { info.write(halted("1", haltReason)) },
			record: cancelled(7),
		},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.retrying(manyRetries, `trap 'exit 7' TERM INT QUIT; echo ready; while :; do read line; done`)
				flags.Grace = longGrace
				p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
				p.awaitOutput("ready")
				tc.tell(p, info)
				if diff := cmp.Diff(result{Code: 7, Stdout: "ready\n"}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(tc.record, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// Other signals may have another meaning, for example to reload a configuration, so a failure after them has retries. But the retry starts only
// when the grace period is over, in case it was the stop signal.
func TestRetriesAfterAnotherSignal(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	flags := retrying(t, 1, `[ $n = 2 ] && exit 0; trap 'exit 7' HUP; echo ready; while :; do read line; done`)
	flags.Grace = time.Second
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	p.signal(unix.SIGHUP)
	if diff := cmp.Diff(result{Stdout: "ready\n", Stderr: announced(1, 1, 7, "3s")}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// In a pause before a retry, the agent ends immediately, with the exit code of the last run and the reason why there is no retry.
func TestSignalOrHaltInAPause(t *testing.T) {
	stopped := contract.Record{ExitCode: 42, Retries: 2, Reason: contract.ReasonStopped}
	tests := map[string]struct {
		tell   func(*process, *podinfo)
		record contract.Record
	}{
		"SIGTERM": {func(p *process, _ *podinfo) { p.signal(unix.SIGTERM) }, stopped},
		"SIGQUIT": {func(p *process, _ *podinfo) { p.signal(unix.SIGQUIT) }, stopped},
		"a halt": {
			func(_ *process, info *podinfo) { info.write(halted("1", haltReason)) },
			contract.Record{ExitCode: 42, Retries: 2, Reason: contract.ReasonCancelled, Message: haltReason},
		},
		"harmless signals, and then SIGTERM": {func(p *process, _ *podinfo) {
			for _, sig := range []syscall.Signal{unix.SIGPIPE, unix.SIGCONT, unix.SIGCHLD} {
				p.signal(sig)
			}
			p.signal(unix.SIGTERM)
		}, stopped},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.retrying(manyRetries, `exit 42`)
				p := container{args: flags.Args(), clone: clone}.start(t)
				// The third pause is 4 s, which is long enough.
				third := announced(3, manyRetries, 42, "4s")
				eventually(t, "the third pause", func() bool { return strings.Contains(p.stderr.String(), third) })
				tc.tell(p, info)
				want := result{Code: 42, Stderr: announced(1, manyRetries, 42, "1s") + announced(2, manyRetries, 42, "2s") + third}
				if diff := cmp.Diff(want, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(tc.record, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// Each run gets the terminal: the kernel stops a command that reads from a terminal of another process group.
func TestRetriesAtATerminal(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			flags := retrying(t, 1, `echo ready $n >&2; read line; test "$line" = again`)
			p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { atTerminal(cmd, slave) }}.start(t)
			for run, line := range []string{"first\n", "again\n"} {
				ready := fmt.Sprintf("ready %d\n", run+1)
				eventually(t, ready, func() bool { return strings.Contains(p.stderr.String(), ready) })
				_, err := master.WriteString(line)
				must(t, err)
			}
			want := result{Stderr: "ready 1\n" + announced(1, 1, 1, "1s") + "ready 2\n"}
			if diff := cmp.Diff(want, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
