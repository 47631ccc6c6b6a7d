//go:build linux

package agent_test

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// untilTold returns a script that exits with the code when it receives the signal.
func untilTold(sig string, code int) string {
	return fmt.Sprintf(`trap 'exit %d' %s; echo ready; while :; do read line; done`, code, sig)
}

// A command that ends after the container's stop signal, or a signal that may be the stop signal, does not release the next step, whatever its
// exit code: the kubelet may tell the next container to stop a moment later. The controller knows whether the Pod is terminating.
func TestStopSignalReleasesNoStep(t *testing.T) {
	tests := map[string]struct {
		sig    syscall.Signal
		trap   string
		stop   string // --stop-signal
		reason string
	}{
		"of httpd":                      {unix.SIGWINCH, "WINCH", "", contract.ReasonSignaled},
		"of uwsgi":                      {unix.SIGUSR1, "USR1", "", contract.ReasonSignaled},
		"of systemd":                    {34 + 3, "RTMIN+3", "", contract.ReasonSignaled},
		"named: SIGUSR1":                {unix.SIGUSR1, "USR1", "SIGUSR1", contract.ReasonStopped},
		"named: SIGWINCH":               {unix.SIGWINCH, "WINCH", "SIGWINCH", contract.ReasonStopped},
		"named: SIGRTMIN+3":             {34 + 3, "RTMIN+3", "SIGRTMIN+3", contract.ReasonStopped},
		"named: SIGRTMAX-2":             {64 - 2, "RTMAX-2", "SIGRTMAX-2", contract.ReasonStopped},
		"SIGTERM, another one is named": {unix.SIGTERM, "TERM", "SIGUSR1", contract.ReasonStopped},
		"named, but unknown":            {unix.SIGUSR1, "USR1", "SIGNONE", contract.ReasonSignaled},
	}
	for name, tc := range tests {
		for code, after := range map[int]string{0: contract.AfterFailureStop, 9: contract.AfterFailureContinue} {
			t.Run(fmt.Sprintf("%s, exit code %d", name, code), func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 2)
				info.write(order("1"))
				second := late(info.sharing(runDir, 2))
				second.AfterFailure = after
				waiting := container{args: second.Args()}.start(t)
				info.awaitRejection()
				input, _ := pipe(t)
				first := info.sharing(runDir, 1)
				first.StopSignal = tc.stop
				first.Command = shell(untilTold(tc.trap, code))
				if strings.HasPrefix(tc.trap, "RT") {
					first.Command[0] = "bash" // sh has no names for them; bash is only for these, because its read continues after SIGWINCH
				}
				p := container{args: first.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
				p.awaitOutput("ready")
				p.signal(tc.sig)
				if diff := cmp.Diff(result{Code: code, Stdout: "ready\n"}, p.wait()); diff != "" {
					t.Errorf("the first step: -want +got:\n%s", diff)
				}
				want := contract.Record{ExitCode: code, Reason: tc.reason}
				checkRecords(t, want, first)
				info.write(order("1"))
				info.awaitRejection() // the second step has read the record
				info.write(order("2"))
				if diff := cmp.Diff(result{Stdout: "2"}, waiting.wait()); diff != "" {
					t.Errorf("the second step: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// A signal is not the stop signal if the container names another one, or if the command runs on after the grace period. Then the record releases
// the next step.
func TestOtherSignalsRelease(t *testing.T) {
	tests := map[string]struct {
		script string
		edit   func(*contract.AgentFlags)
	}{
		"another one is named": {untilTold("HUP", 0), func(f *contract.AgentFlags) { f.StopSignal = "SIGUSR1" }},
		"the grace period is over": {
			`trap 'sleep 4; exit 0' HUP; echo ready; while :; do read line; done`, func(f *contract.AgentFlags) { f.Grace = time.Second },
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			runDir := newRunDir(t, 1)
			flags := released(t, shell(tc.script)...)
			flags.Run = runDir
			tc.edit(&flags)
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("ready")
			p.signal(unix.SIGHUP)
			if diff := cmp.Diff(result{Stdout: "ready\n"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(contract.Record{}, recordOf(t, runDir, 1), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// There is no retry while the container is being stopped, whatever its stop signal is.
func TestNoRetriesInTheGracePeriod(t *testing.T) {
	tests := map[string]struct {
		stop  string
		said  string
		wants contract.Record
	}{
		"a signal that may be the stop signal": {"", announced(1, 3, 7, "32s"), contract.Record{ExitCode: 7, Reason: contract.ReasonStopped}},
		"the stop signal":                      {"SIGUSR1", "", contract.Record{ExitCode: 7, Reason: contract.ReasonStopped}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			flags := retrying(t, 3, untilTold("USR1", 7))
			flags.StopSignal = tc.stop
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("ready")
			p.signal(unix.SIGUSR1)
			if tc.stop == "" {
				eventually(t, "the announcement", func() bool { return strings.Contains(p.stderr.String(), tc.said) })
				p.signal(unix.SIGUSR1) // ends the pause
			}
			if diff := cmp.Diff(result{Code: 7, Stdout: "ready\n", Stderr: tc.said}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.wants, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// The first cause counts: a command that uses its grace period has not timed out, even if its timeout passes meanwhile.
func TestStopBeforeTheTimeout(t *testing.T) {
	tests := map[string]struct {
		sig    syscall.Signal
		trap   string
		reason string
	}{
		"SIGTERM": {unix.SIGTERM, "TERM", contract.ReasonStopped},
		"SIGUSR1": {unix.SIGUSR1, "USR1", contract.ReasonSignaled},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			runDir := newRunDir(t, 1)
			flags := released(t, shell(fmt.Sprintf(`trap 'echo told; sleep 4; exit 3' %s; echo ready; while :; do read line; done`, tc.trap))...)
			flags.Run, flags.Timeout = runDir, shortTimeout
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("ready")
			p.signal(tc.sig)
			if diff := cmp.Diff(result{Code: 3, Stdout: "ready\ntold\n"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			want := contract.Record{ExitCode: 3, Reason: tc.reason}
			checkRecords(t, want, flags)
		})
	}
}

// A command whose container is told to stop after the timeout has timed out. Its record for the next step releases no step.
func TestTimeoutBeforeTheStop(t *testing.T) {
	t.Parallel()
	input, finish := pipe(t)
	runDir := newRunDir(t, 1)
	flags := released(t, shell(slowToObey)...)
	flags.Run, flags.Timeout, flags.Grace = runDir, shortTimeout, longGrace
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("told\n")
	p.signal(unix.SIGTERM)
	p.awaitOutput("told\ntold\n")
	_, err := fmt.Fprintln(finish)
	must(t, err)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "ready\ntold\ntold\n"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want := timedOut()
	if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record in the message: -want +got:\n%s", diff)
	}
	want.Reason = contract.ReasonSignaled
	if diff := cmp.Diff(want, recordOf(t, runDir, 1), ignoreTimes); diff != "" {
		t.Errorf("record in the run directory: -want +got:\n%s", diff)
	}
}

// If a SIGTERM does not stop the container, the timeout still applies, a grace period later.
func TestTimeoutAfterAStraySignal(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	flags := released(t, shell(ignores)...)
	flags.Timeout, flags.Grace = shortTimeout, shortGrace
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	p.signal(unix.SIGTERM)
	if diff := cmp.Diff(result{Code: contract.ExitTimeout, Stdout: "ready\n"}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(timedOut(), readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}

// A change of the terminal's size does not end a waiting step, unless the container names SIGWINCH as its stop signal.
func TestResizeWhileTheStepWaits(t *testing.T) {
	for name, named := range map[string]bool{"a resize": false, "the stop signal": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			info := newPodinfo(t)
			info.write(order("1"))
			flags := info.step(2)
			flags.Command = shell("exit 3")
			want := 3
			if named {
				flags.StopSignal, want = "SIGWINCH", 128+int(unix.SIGWINCH)
			}
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { atTerminal(cmd, slave) }}.start(t)
			info.awaitRejection()
			must(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 100}))
			if !named {
				info.write(order("1"))
				info.awaitRejection()
				info.write(order("2"))
			}
			if diff := cmp.Diff(result{Code: want}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
