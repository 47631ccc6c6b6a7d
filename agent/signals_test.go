//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The command receives each signal to the container once: it may have handlers for all of them.
func TestSignalsAreForwarded(t *testing.T) {
	signals := []syscall.Signal{
		unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGWINCH, unix.SIGCONT, unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGIO, unix.SIGSYS,
		35,      // the first real-time signal that Go can catch
		34 + 3,  // SIGRTMIN+3, which stops systemd
		34 + 13, // SIGRTMIN+13
		64,      // SIGRTMAX
	}
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			flags := released(t, child(childCatch, strconv.Itoa(len(signals)))...)
			p := container{args: flags.Args(), clone: clone}.start(t)
			want := "ready\n"
			p.awaitOutput(want)
			for _, sig := range signals {
				p.signal(sig)
				want += fmt.Sprintln(int(sig))
				p.awaitOutput(want)
			}
			if diff := cmp.Diff(result{Stdout: want}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A command may handle SIGTERM, and its exit code is the result. A command without a handler ends; as process 1 it would survive until SIGKILL.
func TestSIGTERMWhileTheCommandRuns(t *testing.T) {
	tests := map[string]struct {
		script string
		want   int
	}{
		"handled":      {`trap 'exit 7' TERM; echo ready; while :; do read line; done`, 7},
		"exits with 0": {`trap 'exit 0' TERM; echo ready; while :; do read line; done`, 0},
		"not handled":  {`echo ready; read line`, 128 + 15},
		"handed down":  {`exec 2>/dev/null; sleep 60 & trap 'kill $!; wait $!; exit $?' TERM; echo ready; wait $!`, 128 + 15},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				input, _ := pipe(t)
				flags := released(t, shell(tc.script)...)
				p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
				p.awaitOutput("ready")
				p.signal(unix.SIGTERM)
				if diff := cmp.Diff(result{Code: tc.want, Stdout: "ready\n"}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				want := contract.Record{ExitCode: tc.want, Reason: contract.ReasonStopped}
				if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// A command that ends after SIGTERM does not release the next step, whatever its exit code: the kubelet may tell the next container to stop a
// moment later. If only this container is to stop, the order releases the next step.
func TestSIGTERMReleasesNoStep(t *testing.T) {
	tests := map[string]struct {
		script string
		after  string
	}{
		"exits with 0":    {`trap 'exit 0' TERM; echo ready; while :; do read line; done`, contract.AfterFailureStop},
		"fails, Continue": {`echo ready; read line`, contract.AfterFailureContinue},
		"fails":           {`echo ready; read line`, contract.AfterFailureStop},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			second := info.sharing(runDir, 2)
			second.AfterFailure, second.Command = tc.after, shell("echo second has run")
			waiting := container{args: second.Args()}.start(t)
			info.awaitRejection() // it is ready for a signal
			input, _ := pipe(t)
			first := info.sharing(runDir, 1)
			first.Command = shell(tc.script)
			p := container{args: first.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("ready")
			p.signal(unix.SIGTERM)
			p.wait()
			if got := recordOf(t, runDir, 1).Reason; got != contract.ReasonStopped {
				t.Errorf("the reason of the first step is %q", got)
			}
			info.write(order("1"))
			info.awaitRejection() // the second step has read the record
			waiting.signal(unix.SIGTERM)
			if diff := cmp.Diff(result{Code: 128 + 15}, waiting.wait()); diff != "" {
				t.Errorf("the second step (-want +got):\n%s", diff)
			}
		})
	}
}

// A waiting step has nothing to finish: the stop signal of any image ends it immediately. The record has the signal.
func TestSignalsWhileTheStepWaits(t *testing.T) {
	tests := map[string]struct {
		sig  syscall.Signal
		name string
	}{
		"the usual":       {unix.SIGTERM, "SIGTERM"},
		"from a terminal": {unix.SIGINT, "SIGINT"},
		"of nginx":        {unix.SIGQUIT, "SIGQUIT"},
		"of a web server": {unix.SIGUSR1, "SIGUSR1"},
		"of httpd":        {unix.SIGWINCH, "SIGWINCH"},
		"of systemd":      {34 + 3, "signal 37"}, // SIGRTMIN+3
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.step(2)
				p := container{args: flags.Args(), clone: clone}.start(t)
				info.awaitRejection()
				p.signal(tc.sig)
				code := 128 + int(tc.sig)
				if diff := cmp.Diff(result{Code: code}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				want := contract.Record{
					ExitCode: code,
					Reason:   contract.ReasonTerminated,
					Message:  "received " + tc.name + " before the step was released",
				}
				if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// Signals that do not end a process by default do not end a waiting step.
func TestHarmlessSignalsWhileTheStepWaits(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(order("1"))
			p := container{args: info.step(2).Args(), clone: clone}.start(t)
			info.awaitRejection()
			for _, sig := range []syscall.Signal{
				unix.SIGCHLD, unix.SIGURG, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPIPE,
			} {
				p.signal(sig)
			}
			info.write(order("1"))
			info.awaitRejection()
			info.write(order("2"))
			if diff := cmp.Diff(ran, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// "kill 0" in a script is for the script and its children. In the same process group, the agent would receive the signal and forward it.
func TestCommandHasItsOwnProcessGroup(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			p := container{
				args:  released(t, shell("echo ready; read line")...).Args(),
				clone: clone,
				edit:  func(cmd *exec.Cmd) { cmd.Stdin = input },
			}.start(t)
			p.awaitOutput("ready")
			children := childrenOf(t, p.cmd.Process.Pid)
			if len(children) != 1 {
				t.Fatalf("the agent has children %v, want one", children)
			}
			group, err := unix.Getpgid(children[0])
			must(t, err)
			if group != children[0] {
				t.Errorf("the command %d is in the process group %d, want one of its own", children[0], group)
			}
			must(t, finish.Close())
			p.wait()
		})
	}
}

// In a container with a terminal (tty: true) the command can read from it, which the kernel allows only one process group, and receives signals
// from the keyboard, such as Ctrl-C.
func TestCommandGetsTheTerminal(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			master, slave := terminal(t)
			const script = `read line; test "$line" = hello || exit 1; trap 'exit 9' INT; echo ready >&2; while :; do read line; done`
			flags := released(t, shell(script)...)
			p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { atTerminal(cmd, slave) }}.start(t)
			_, err := master.WriteString("hello\n")
			must(t, err)
			eventually(t, "the line is read", func() bool { return strings.Contains(p.stderr.String(), "ready") })
			const interrupt = "\x03"
			_, err = master.WriteString(interrupt)
			must(t, err)
			if diff := cmp.Diff(result{Code: 9, Stderr: "ready\n"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// atTerminal gives a program a session of its own with the terminal, like a container runtime.
func atTerminal(cmd *exec.Cmd, slave *os.File) {
	cmd.Stdin, cmd.Stdout = slave, slave
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Setctty = true // of file 0
}

func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = master.Close() })
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}
