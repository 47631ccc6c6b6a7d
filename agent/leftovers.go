//go:build linux

package agent

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// leftoverLimit limits how long the agent waits for killed processes to end. Nearly all end in milliseconds, and in seconds on a very busy
// machine. A process that hangs in the kernel, for example on a dead NFS server, never ends.
const leftoverLimit = 5 * time.Second

// killLeftovers kills the processes that the command left behind, as the kernel does if the command is process 1: steps must not overlap.
// It returns when all have ended, or after leftoverLimit.
//
// The kernel makes orphans our children before we can reap their parent. So if there are no children, there are no descendants.
func killLeftovers(child <-chan os.Signal, log logger) {
	deadline := after(leftoverLimit)
	for isFirst := true; ; isFirst = false {
		if _, _, left := reap(0); !left {
			return
		}
		if isFirst {
			log.debug("killing the processes that the command left behind")
		}
		if os.Getpid() == initPID {
			_ = unix.Kill(-1, unix.SIGKILL) // the whole PID namespace
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

// killChildren kills the direct children. Their own children become ours, for the next call. Killing by process ID is safe, even in a PID
// namespace that others share: the kernel does not reuse the ID of a child before we reap it.
func killChildren() {
	self := os.Getpid()
	for _, name := range names("/proc") {
		if pid, err := strconv.Atoi(name); err == nil && parent(pid) == self {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// names returns the names in a directory, as far as they can be read. It calls the kernel itself, as read does.
func names(dir string) []string {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var names []string
	buffer := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(fd, buffer)
		if err != nil || n <= 0 {
			return names
		}
		_, _, names = unix.ParseDirent(buffer[:n], -1, names)
	}
}

// parent returns the parent of a process, from "pid (name) state ppid ..." in proc_pid_stat(5), where the name may have any character. It
// returns 0 if the process has ended.
func parent(pid int) int {
	const limit = 4 << 10
	b, _ := read("/proc/"+strconv.Itoa(pid)+"/stat", 0, limit)
	stat := string(b)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}
