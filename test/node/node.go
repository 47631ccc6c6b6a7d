// Package node inspects processes on the test cluster's node, which is the machine that runs the tests.
package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// FindProcess returns the process of the Pod with this UID whose command line contains the part.
func FindProcess(pod types.UID, part string) (pid int, err error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, process := range processes {
		command, _ := os.ReadFile(process + "/cmdline") // it may have ended
		cgroup, _ := os.ReadFile(process + "/cgroup")
		if strings.Contains(string(command), part) && strings.Contains(string(cgroup), "pod"+string(pod)) {
			return strconv.Atoi(filepath.Base(process))
		}
	}
	return 0, fmt.Errorf("the Pod has no process with %q", part)
}

// ForgetPeak resets PeakMemory to the memory that the process uses now (proc_pid_clear_refs(5)).
func ForgetPeak(pid int) error { return os.WriteFile(proc(pid, "clear_refs"), []byte("5"), 0) }

// PeakMemory returns the maximum resident memory of the process, in bytes. It fails if the process has ended.
func PeakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(proc(pid, "status"))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(status)); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "VmHWM:" {
			kibibytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kibibytes << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no peak of its memory", pid)
}

// ticksPerSecond is USER_HZ, the unit of the times in /proc: the same on every architecture that Go knows.
const ticksPerSecond = 100

// CPUTime returns the CPU time that the process has used.
func CPUTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, may have spaces; utime and stime are the 12th and 13th fields after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

func proc(pid int, file string) string { return filepath.Join("/proc", strconv.Itoa(pid), file) }
