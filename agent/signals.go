//go:build linux

package agent

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// lastSignal is SIGRTMAX on all of Go's platforms but MIPS, which has more that nobody sends.
const lastSignal = syscall.Signal(64)

// Signals are the signals that come in for this process.
type Signals struct {
	// forward has all but SIGCHLD and what can't be forwarded: Go hands out neither SIGPROF nor 32 to 34,
	// which it keeps for its profiler and for the C libraries (runtime/sigtab_linux_generic.go).
	forward <-chan os.Signal
	// child wakes its reader after any number of SIGCHLD. They have a channel of their own so that
	// many ending children never push a SIGTERM out of the other one.
	child <-chan os.Signal
}

// Notify starts to receive signals. Until it is called SIGTERM ends the process in Go's way, with
// exit code 2, so main calls it first.
func Notify() Signals {
	var forwarded []os.Signal
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		switch sig {
		case unix.SIGKILL, unix.SIGSTOP: // nobody can catch them
		case unix.SIGCHLD: // ours
		case unix.SIGURG: // Go's own: its scheduler preempts threads with it
		default:
			forwarded = append(forwarded, sig)
		}
	}

	// The kernel and Go merge a signal with an equal one that is still pending; room for each number
	// twice makes sure that the channel drops none while the command is being started.
	forward := make(chan os.Signal, 2*lastSignal)
	signal.Notify(forward, forwarded...)
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	return Signals{forward: forward, child: child}
}

// stopSignal returns the signal that a name such as SIGTERM or SIGRTMIN+3 stands for (Signal in Kubernetes' core/v1), and 0 for none.
func stopSignal(name string) syscall.Signal {
	const realTime = "SIGRTM"
	const first, last = 34, 64 // of the C libraries
	base, offset := name, 0
	if strings.HasPrefix(name, realTime) {
		if i := strings.IndexAny(name, "+-"); i >= 0 {
			n, err := strconv.Atoi(name[i:])
			if err != nil {
				return 0
			}
			base, offset = name[:i], n
		}
	}
	switch base {
	case "SIGRTMIN":
		return syscall.Signal(first + offset)
	case "SIGRTMAX":
		return syscall.Signal(last + offset)
	}
	return unix.SignalNum(name)
}

// endsByDefault says whether the signal ends a process that has not arranged otherwise. While the
// gate is closed all of these end the agent, not just SIGTERM: the container runtime stops a
// container with the signal that its image names (STOPSIGNAL, or lifecycle.stopSignal), which is
// SIGQUIT for nginx and SIGRTMIN+3 for systemd. See signal(7) for the exceptions; SIGPIPE is one
// because only our own writes cause it.
func endsByDefault(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, unix.SIGPIPE:
		return false
	}
	return true
}

// endsWait reports whether the signal ends an agent whose command does not run. The kernel sends SIGWINCH only to processes with a terminal,
// when that changes its size; to others, somebody sends it on purpose: it is the stop signal of the image httpd.
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

// asksToEnd reports whether a signal to a command that runs means that the container is to stop.
func asksToEnd(sig, stop syscall.Signal) bool {
	return sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGQUIT || sig == stop
}

// mayAskToEnd reports whether a signal to a command that runs may be the stop signal that the image names, which the agent does not know. A
// change of the terminal's size reaches the command itself, which has the terminal, and not the agent.
func mayAskToEnd(sig syscall.Signal) bool {
	return endsByDefault(sig) || sig == unix.SIGWINCH
}
