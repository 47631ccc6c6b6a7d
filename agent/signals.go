//go:build linux

package agent

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lastSignal is SIGRTMAX on all of Go's platforms except MIPS, which has more that are not in use.
const lastSignal = syscall.Signal(64)

// Signals receives the signals of this process.
type Signals struct {
	// forward has all signals except SIGCHLD and those that can't be forwarded: Go does not deliver SIGPROF and 32 to 34, which its profiler
	// and the C libraries use (runtime/sigtab_linux_generic.go).
	forward <-chan os.Signal
	// child wakes its reader after one or more SIGCHLD. The channel is separate, so that many ending children never displace a SIGTERM.
	child <-chan os.Signal
}

// Notify starts to receive signals. Before, Go exits with code 2 on SIGTERM, so main calls Notify first.
func Notify() Signals {
	var forwarded []os.Signal
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP: // can't be caught
		case unix.SIGCHLD: // ours
		case unix.SIGURG: // Go's scheduler preempts threads with it
		default:
			forwarded = append(forwarded, sig)
		}
	}

	// The kernel and Go merge a pending signal with an equal one. With room for each number twice, no signal is lost while the command starts.
	forward := make(chan os.Signal, 2*lastSignal)
	signal.Notify(forward, forwarded...)
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	return Signals{forward: forward, child: child}
}

// stopSignal returns the signal with a name such as SIGTERM or SIGRTMIN+3 (Signal in Kubernetes' core/v1), or 0 for an unknown name.
func stopSignal(name string) syscall.Signal {
	for base, number := range map[string]int{"SIGRTMIN": 34, "SIGRTMAX": 64} { // in the C libraries
		if offset, ok := strings.CutPrefix(name, base); ok {
			n, err := strconv.Atoi(offset)
			if err != nil && offset != "" {
				return 0
			}
			return syscall.Signal(number + n)
		}
	}
	return unix.SignalNum(name)
}

// endsByDefault reports whether a signal ends a process that has no handler for it. signal(7) lists the exceptions. SIGPIPE is one here,
// because only the agent's own writes cause it.
func endsByDefault(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, unix.SIGPIPE:
		return false
	}
	return true
}

// endsWait reports whether a signal ends an agent whose command does not run. It is not only SIGTERM, because the container runtime stops a
// container with the signal that its image or lifecycle.stopSignal names: SIGQUIT for nginx, SIGRTMIN+3 for systemd, SIGWINCH for httpd. The
// kernel sends SIGWINCH when a terminal changes its size, so in a container with a terminal it is not a stop signal.
func endsWait(sig, stop syscall.Signal) bool {
	return sig == stop || endsByDefault(sig) || sig == unix.SIGWINCH && !hasTerminal()
}

// hasTerminal reports whether one of the standard streams is the terminal of this process.
func hasTerminal() bool {
	for stream := range 3 {
		if _, err := unix.IoctlGetInt(stream, unix.TIOCGPGRP); err == nil {
			return true
		}
	}
	return false
}

// asksToEnd reports whether a signal that arrives while the command runs means that the container is being stopped.
func asksToEnd(sig, stop syscall.Signal) bool {
	return sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGQUIT || sig == stop
}

// mayAskToEnd reports whether a signal that arrives while the command runs may be the image's stop signal, which the agent does not know. It
// may be SIGWINCH: after a change of the terminal's size, the kernel sends that to the command, and not to the agent.
func mayAskToEnd(sig syscall.Signal) bool {
	return endsByDefault(sig) || sig == unix.SIGWINCH
}

// after returns a channel that receives something when the time is over. The channel of time.After has times, which would link how package time
// formats them, with the time zones.
func after(d time.Duration) <-chan struct{} {
	over := make(chan struct{}, 1)
	time.AfterFunc(d, func() { over <- struct{}{} })
	return over
}
