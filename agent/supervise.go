//go:build linux

package agent

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// limits are the reasons for which the agent ends a command.
type limits struct {
	// timeout of the command; 0 is none.
	timeout time.Duration
	// halted receives the reason for a halt.
	halted <-chan string
	// grace is the time between SIGTERM and SIGKILL.
	grace time.Duration
	// stop is the container's stop signal, if it is known.
	stop syscall.Signal
}

// stopMargin is how long after a Pod's grace period the container runtime may send SIGKILL.
const stopMargin = 2 * time.Second

// ending is how a command ended.
type ending struct {
	status unix.WaitStatus
	// reason is ReasonTimedOut or ReasonCancelled if the agent ended the command, and otherwise empty.
	reason string
	// halt is the reason for a halt that came while the command ran, even if the timeout came first.
	halt string
	// isTerminated reports whether the container was told to stop while the command ran.
	isTerminated bool
	// graceLeft is how much of its grace period the container may have left, after a signal that was or may have been its stop signal. 0: the
	// container is not being stopped.
	graceLeft time.Duration
}

// supervise forwards signals to the command and reaps children until the command ends. It ends the command when it exceeds a limit. One
// goroutine does all of this, so no signal goes to a process ID that the kernel has reused.
func (s Signals) supervise(pid int, l limits, log logger) ending {
	var e ending
	var timedOut, kill <-chan struct{}
	if l.timeout > 0 {
		timedOut = after(l.timeout)
	}
	var graceEnds time.Time // of the container, if it is being stopped
	graceLeft := func() time.Duration { return max(0, time.Until(graceEnds)) }
	// Errors of kill(2) are ignored: they mean that the command runs as another user now, and nothing can be done.
	end := func(reason string) {
		if e.reason == "" {
			log.debug("ending the command (", reason, "): SIGTERM now, and SIGKILL after ", l.grace)
			e.reason = reason
			_ = unix.Kill(pid, unix.SIGTERM)
			kill = after(l.grace)
		}
	}
	for {
		select {
		case got := <-s.forward:
			sig := got.(syscall.Signal)
			log.debug("forwarding ", sig, " to the command")
			e.isTerminated = e.isTerminated || asksToEnd(sig, l.stop)
			if asksToEnd(sig, l.stop) || l.stop == 0 && mayAskToEnd(sig) {
				graceEnds = time.Now().Add(l.grace + stopMargin)
			}
			_ = unix.Kill(pid, sig)
		case <-timedOut:
			// A command whose container is being stopped may use its grace period. If it runs longer, the container was not being stopped.
			if left := graceLeft(); left > 0 && e.reason == "" {
				timedOut = after(left)
				continue
			}
			end(contract.ReasonTimedOut)
		case e.halt = <-l.halted:
			l.halted = nil
			end(contract.ReasonCancelled)
		case <-kill:
			log.debug("killing the command")
			_ = unix.Kill(pid, unix.SIGKILL)
		case <-s.child:
			if status, ended, _ := reap(pid); ended {
				e.status, e.graceLeft = status, graceLeft()
				return e
			}
		}
	}
}

// exitCode returns the exit code of the container: what a shell reports for the command (POSIX.1-2024, Shell Command Language, 2.8.2), what
// timeout(1) reports after a timeout, and never success for a command that was cancelled.
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
