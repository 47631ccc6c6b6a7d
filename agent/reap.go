//go:build linux

package agent

import (
	"os"

	"golang.org/x/sys/unix"
)

// initPID is the process that inherits the orphans of a PID namespace. In a container it is the agent, unless the containers of the Pod share
// a PID namespace (shareProcessNamespace, hostPID).
const initPID = 1

// adoptOrphans makes this process the parent of all orphaned descendants, as process 1 always is. Best effort: if a kernel or sandbox refuses,
// orphans go to the Pod's process 1, which does not harm the step.
func adoptOrphans() {
	if os.Getpid() != initPID {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
}

// reap collects all children that have ended, including adopted ones. It returns the status of the child with that process ID, if it has
// ended, and reports whether any children are left.
func reap(pid int) (status unix.WaitStatus, ended, left bool) {
	for {
		var s unix.WaitStatus
		got, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // ECHILD
			return status, ended, false
		case got == 0:
			return status, ended, true
		case got == pid:
			status, ended = s, true
		}
	}
}
