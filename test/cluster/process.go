package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a daemon that the cluster started. Its start time distinguishes it from a later process with the same id.
type process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // field 22 of /proc/PID/stat: clock ticks since boot
}

// alive reports whether the process still runs. It is false for a daemon that ended before its start time was read.
func (p process) alive() bool {
	return p.PID > 0 && p.Started != "" && startTime(p.PID) == p.Started
}

// startTime returns "" for a process that doesn't exist, or that has ended and isn't reaped.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return parseStartTime(string(stat))
}

// parseStartTime reads /proc/PID/stat, whose second field is a name in parentheses that may itself hold spaces and
// parentheses (proc_pid_stat(5)).
func parseStartTime(stat string) string {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// start runs a daemon in the cluster's network namespace, with its output in a file.
func start(command []string, logFile string) (process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return process{}, err
	}
	defer log.Close()
	args := inNamespace(command...)
	daemon := exec.Command(args[0], args[1:]...) //nolint:noctx // it outlives this process
	daemon.Stdout, daemon.Stderr = log, log
	daemon.Dir = "/"
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // outlives this command and its terminal
	// The daemon must not inherit open files of the caller, such as a lock.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return process{}, err
	}
	if err := daemon.Start(); err != nil {
		return process{}, err
	}
	p := process{PID: daemon.Process.Pid, Started: startTime(daemon.Process.Pid)}
	go func() { _ = daemon.Wait() }() // reaps it, so that its death is seen while this process waits for it
	return p, nil
}

// stop ends a process with SIGTERM, and with SIGKILL after the grace period.
func (p process) stop(grace time.Duration) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if poll(context.Background(), grace, func() bool { return !p.alive() }) {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if !poll(context.Background(), grace, func() bool { return !p.alive() }) {
		return fmt.Errorf("process %d doesn't end, not even by SIGKILL", p.PID)
	}
	return nil
}

// poll repeats a check until it is true, the time is over or the context ends.
func poll(ctx context.Context, limit time.Duration, yes func() bool) bool {
	deadline := time.Now().Add(limit)
	for !yes() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// clusterProcesses returns all processes in the cluster's network namespace (its daemons, the shims, Pods with hostNetwork) and in its
// cgroups (its containers).
func clusterProcesses() ([]int, error) {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return nil, err
	}
	pids, err := cgroupProcesses(hierarchies)
	if err != nil {
		return nil, err
	}
	namespaceInode := inode(namespacePath())
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && namespaceInode != 0 && inode(filepath.Join("/proc", entry.Name(), "ns/net")) == namespaceInode {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return slices.DeleteFunc(slices.Compact(pids), func(pid int) bool { return pid == os.Getpid() }), nil
}

// cgroupProcesses returns the processes in the cluster's cgroups, once for each hierarchy that has them. It reads the groups and not
// /proc/PID/cgroup, which names a group as its reader's cgroup namespace does (cgroup_namespaces(7)).
func cgroupProcesses(hierarchies []string) ([]int, error) {
	var pids []int
	for _, dir := range clusterCgroups(hierarchies) {
		content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue // the group is gone
		}
		if err != nil {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(content)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("reading the processes of the cgroup %s: %w", dir, err)
			}
			if pid > 0 { // 0: a process of another PID namespace (cgroups(7))
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// inode returns 0 if the file doesn't exist.
func inode(file string) uint64 {
	var stat syscall.Stat_t
	if syscall.Stat(file, &stat) != nil {
		return 0
	}
	return stat.Ino
}
