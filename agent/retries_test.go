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

// countTries makes the number of the try, from 1, a script's $n. Its first argument is a file that outlives a try.
const countTries = `n=$(($(cat "$1" 2>/dev/null || echo 0) + 1)); echo $n >"$1"; `

// trying is a released step with retries and a script that knows its try.
func trying(t *testing.T, retries int, script string) contract.AgentFlags {
	t.Helper()
	info := newPodinfo(t)
	info.write(order("1"))
	return info.trying(retries, script)
}

func (p *podinfo) trying(retries int, script string) contract.AgentFlags {
	p.t.Helper()
	flags := p.step(1)
	flags.Retries = retries
	flags.Command = append(shell(countTries+script), "sh", filepath.Join(p.t.TempDir(), "tries"))
	return flags
}

// announced is what the agent says between two tries.
func announced(try, of, code int, pause string) string {
	return fmt.Sprintf("agent: try %d of %d ended with exit code %d; the next is in %s\n", try, of, code, pause)
}

// PEERS row 26. A command that fails is run again in the same container: until it succeeds, or there are no retries left. The
// last try is the step's result, and the record says how many came before it.
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
			want:   result{Stdout: "1\n2\n", Stderr: announced(1, 4, 1, "1s")},
			record: contract.Record{Retries: 1},
		},
		"success at the last try": {
			retries: 2, script: `echo $n; [ $n = 3 ] || exit 4`,
			want:   result{Stdout: "1\n2\n3\n", Stderr: announced(1, 3, 4, "1s") + announced(2, 3, 4, "2s")},
			record: contract.Record{Retries: 2},
		},
		"only failures": {
			retries: 1, script: `echo $n; exit $((40 + n))`,
			want:   result{Code: 42, Stdout: "1\n2\n", Stderr: announced(1, 2, 41, "1s")},
			record: contract.Record{ExitCode: 42, Retries: 1},
		},
		"death by a signal": {
			retries: 1, script: `echo $n; kill -9 $$`,
			want:   result{Code: 128 + 9, Stdout: "1\n2\n", Stderr: announced(1, 2, 128+9, "1s")},
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
				flags := trying(t, tc.retries, tc.script)
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

// The pauses double, and a timer is never early. The record's start is that of the first try: a step with retries takes as long
// as all of them.
func TestRetriesPause(t *testing.T) {
	t.Parallel()
	const least = time.Second + 2*time.Second
	flags := trying(t, 2, `exit 42`)
	container{args: flags.Args()}.run(t)
	record := readRecord(t, flags)
	if record.StartedAt == nil {
		t.Fatal("the record has no start")
	}
	// The record has milliseconds.
	if took := record.FinishedAt.Sub(*record.StartedAt); took < least-time.Millisecond {
		t.Errorf("three tries took %v, want at least %v", took, least)
	}
}

// A try that took too long has failed like any other, and each has the whole timeout.
func TestRetriesAfterATimeout(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			flags := trying(t, 2, `echo $n; [ $n = 3 ] || read line`)
			flags.Timeout, flags.Grace = shortTimeout, noGrace
			got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
			want := result{
				Stdout: "1\n2\n3\n",
				Stderr: announced(1, 3, contract.ExitTimeout, "1s") + announced(2, 3, contract.ExitTimeout, "2s"),
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

// When the last try takes too long, too, its timeout is the step's.
func TestRetriesUntilATimeout(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	flags := trying(t, 1, `echo $n; [ $n = 1 ] && exit 3; read line`)
	flags.Timeout, flags.Grace = shortTimeout, noGrace
	got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.run(t)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "1\n2\n", Stderr: announced(1, 2, 3, "1s")}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want := timedOut()
	want.Retries = 1
	if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// What one try has left running would be in the way of the next: two servers at one port, say.
func TestRetriesKillLeftoversInBetween(t *testing.T) {
	const script = `[ $n = 2 ] || { sleep 60 & echo $! >"$1.pid"; exit 1; }; read pid <"$1.pid"; kill -0 $pid 2>/dev/null && echo "still there"; exit 0`
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			flags := trying(t, 1, script)
			if diff := cmp.Diff(result{Stderr: announced(1, 2, 1, "1s")}, container{args: flags.Args(), clone: clone}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A command that can't be started will not be there the next time: it is the Pod that must be corrected.
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

// longRetries is more tries than a test has time for.
const longRetries = 100

// Whoever ends the container or the sequence while the command runs wants no further try, however the command then ends.
func TestNoRetriesAfterTheCommandWasToldToEnd(t *testing.T) {
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
				flags := info.trying(longRetries, `trap 'exit 7' TERM INT QUIT; echo ready; while :; do read line; done`)
				flags.Grace = noGrace
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

// A signal that may mean something else, to read a configuration again, say, keeps the retries. But the next try waits until the container
// would be gone if that was its stop signal.
func TestRetriesAfterAnotherSignal(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	flags := trying(t, 1, `[ $n = 2 ] && exit 0; trap 'exit 7' HUP; echo ready; while :; do read line; done`)
	flags.Grace = time.Second
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	p.signal(unix.SIGHUP)
	if diff := cmp.Diff(result{Stdout: "ready\n", Stderr: announced(1, 2, 7, "3s")}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// In a pause there is no command to tell. The agent ends, at once, with the exit code of the try before, and says why there is no other.
func TestNoRetriesAfterAPauseThatWasCutShort(t *testing.T) {
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
				flags := info.trying(longRetries, `exit 42`)
				p := container{args: flags.Args(), clone: clone}.start(t)
				// The third pause is 4 s: long enough to come in time.
				third := announced(3, longRetries+1, 42, "4s")
				eventually(t, "the third pause", func() bool { return strings.Contains(p.stderr.String(), third) })
				tc.tell(p, info)
				want := result{Code: 42, Stderr: announced(1, longRetries+1, 42, "1s") + announced(2, longRetries+1, 42, "2s") + third}
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

// Each try has the terminal: a command that reads from one that belongs to another process group is stopped, for ever.
func TestRetriesAtATerminal(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			flags := trying(t, 1, `echo ready $n >&2; read line; test "$line" = again`)
			p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { atTerminal(cmd, slave) }}.start(t)
			for try, line := range []string{"first\n", "again\n"} {
				ready := fmt.Sprintf("ready %d\n", try+1)
				eventually(t, ready, func() bool { return strings.Contains(p.stderr.String(), ready) })
				_, err := master.WriteString(line)
				must(t, err)
			}
			want := result{Stderr: "ready 1\n" + announced(1, 2, 1, "1s") + "ready 2\n"}
			if diff := cmp.Diff(want, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
