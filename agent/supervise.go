//go:build linux

package agent

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// limits are what ends a command before it ends by itself.
type limits struct {
	// timeout of the command; 0 is none.
	timeout time.Duration
	// halted has the reason once the sequence is halted.
	halted <-chan string
	// grace is the time between SIGTERM and SIGKILL.
	grace time.Duration
	// stop is the stop signal of the container, if it is known.
	stop syscall.Signal
}

// stopMargin is how much later than a Pod's grace period the container runtime may send SIGKILL.
const stopMargin = 2 * time.Second

// ending is how a command has ended.
type ending struct {
	status unix.WaitStatus
	// reason is ReasonTimedOut or ReasonCancelled where the agent has ended it, and empty otherwise.
	reason string
	// halt is why the sequence was halted while the command ran, also where the timeout came first.
	halt string
	// terminated says that somebody else has asked it to end, as the kubelet does.
	terminated bool
	// stopping is how long the container may still be in its grace period, after a signal that was or may have been its stop signal. 0: it
	// is not being stopped.
	stopping time.Duration
}

// supervise passes signals on to the child and reaps, until the child itself has ended; it ends the child when a limit is
// reached. One goroutine does all of it, so no signal goes to a process id that has been given to another process.
func (s Signals) supervise(pid int, l limits) ending {
	var e ending
	var timedOut, kill <-chan time.Time
	if l.timeout > 0 {
		timedOut = time.After(l.timeout)
	}
	var graceEnds time.Time // of the container, if it is being stopped
	stopping := func() time.Duration {
		if graceEnds.IsZero() {
			return 0
		}
		return max(0, time.Until(graceEnds))
	}
	// Errors of kill(2) tell of a child that has become another user: there is nobody to tell.
	end := func(reason string) {
		if e.reason == "" {
			e.reason = reason
			_ = unix.Kill(pid, unix.SIGTERM)
			kill = time.After(l.grace)
		}
	}
	for {
		select {
		case got := <-s.forward:
			sig := got.(syscall.Signal)
			e.terminated = e.terminated || asksToEnd(sig, l.stop)
			if asksToEnd(sig, l.stop) || l.stop == 0 && mayAskToEnd(sig) {
				graceEnds = time.Now().Add(l.grace + stopMargin)
			}
			_ = unix.Kill(pid, sig)
		case <-timedOut:
			// A command that is being stopped uses its grace period, whatever its timeout; one that goes on after it was not.
			if left := stopping(); left > 0 && e.reason == "" {
				timedOut = time.After(left)
				continue
			}
			end(contract.ReasonTimedOut)
		case e.halt = <-l.halted:
			l.halted = nil
			end(contract.ReasonCancelled)
		case <-kill:
			_ = unix.Kill(pid, unix.SIGKILL)
		case <-s.child:
			if status, ended, _ := reap(pid); ended {
				e.status, e.stopping = status, stopping()
				return e
			}
		}
	}
}

// exitCode is what the container ends with: what a shell reports for the command (POSIX.1-2024, Shell Command Language, 2.8.2);
// what timeout(1) does after a timeout; and never success for a command that was cancelled.
func (e ending) exitCode() int {
	code := e.status.ExitStatus()
	if e.status.Signaled() {
		code = contract.ExitSignal + int(e.status.Signal())
	}
	switch {
	case e.reason == contract.ReasonTimedOut:
		return contract.ExitTimeout
	case e.reason == contract.ReasonCancelled && code == 0:
		return contract.ExitSignal + int(unix.SIGTERM)
	}
	return code
}
