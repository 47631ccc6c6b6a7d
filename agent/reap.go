//go:build linux

package agent

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// initPID is the process that inherits all orphans of a pid namespace. In a container that is the
// agent, except where the Pod's containers share a namespace (shareProcessNamespace, hostPID).
const initPID = 1

// adoptOrphans makes this process the new parent of all descendants that lose theirs, as process 1 is
// already. Where a kernel or sandbox refuses, orphans go to process 1 of the Pod: no harm to the step.
func adoptOrphans() {
	if os.Getpid() != initPID {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
}

// reap collects all children that have ended, adopted ones among them. It returns the status of the
// child with that pid if it was one of them, and whether any child is left.
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

// killLeftovers kills what the command left running, as the kernel would where the command is process
// 1: nothing of a step may overlap the next one. It returns when all of it is gone or after the limit.
//
// Orphans come to us before the death of their parent can be collected, so once there is no child
// there is no descendant either.
func killLeftovers(child <-chan os.Signal, limit time.Duration) {
	deadline := time.After(limit)
	for {
		if _, _, left := reap(0); !left {
			return
		}
		if os.Getpid() == initPID {
			_ = unix.Kill(-1, unix.SIGKILL) // the whole pid namespace
		} else {
			killChildren()
		}
		select {
		case <-child:
		case <-deadline:
			return
		}
	}
}

// killChildren kills the direct children; their own become ours, for the next call. Going one
// generation at a time is safe in a pid namespace that others use too: the number of a child can't
// pass to another process before we reap it.
func killChildren() {
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	self := os.Getpid()
	for _, entry := range proc {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && parent(pid) == self {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// parent reads "pid (name) state ppid ..." from proc_pid_stat(5); the name may hold anything. It is 0
// for a process that is gone.
func parent(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	stat := string(b)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
