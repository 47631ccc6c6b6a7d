//go:build linux

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

var (
	errNotInPath   = errors.New("not found in PATH")
	errInterpreter = errors.New("the file is there, but not the interpreter or loader that it names")
)

// start runs the command and returns its process id, without waiting for it. It is syscall.ForkExec
// and not os/exec because reap collects all children: nobody else may wait for this one. The child
// has our streams, working directory and umask; ForkExec gives back the default signal dispositions,
// the signal mask and the soft RLIMIT_NOFILE that Go raised for itself.
func start(argv, env []string) (pid int, err error) {
	path, err := lookPath(argv[0], os.Getenv("PATH"))
	if err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   ownGroup(),
	})
	if errors.Is(err, unix.ENOENT) {
		// execve(2) says this of a missing "#!" interpreter too, which puzzles everybody.
		if _, statErr := os.Stat(path); statErr == nil {
			return 0, errInterpreter
		}
	}
	return pid, err
}

// ownGroup makes the child the leader of a process group, as a container's first process is one: a
// script's "kill 0" must not reach the agent, which would send it back. Where the agent has the
// terminal, the child gets it, as a shell would hand it over (and as tini does, isolate_child in
// src/tini.c): else reading from it would stop the child. A command that is run again finds the
// terminal with the group of its predecessor, of which nobody is left.
func ownGroup() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	const stdin = 0
	foreground, err := unix.IoctlGetInt(stdin, unix.TIOCGPGRP)
	if err == nil && (foreground == unix.Getpgrp() || unix.Kill(-foreground, 0) == unix.ESRCH) {
		attr.Foreground = true
		attr.Ctty = stdin
	}
	return attr
}

// lookPath finds the program as execvp(3) does: a name with a slash is a path, and for another one
// the first executable in PATH counts, with what may not be executed remembered as the reason. It is
// not exec.LookPath because that takes "may not be executed" for "not found" and refuses relative
// entries of PATH.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // execve finds out
	}
	failure := errNotInPath
	if name == "" {
		return "", failure
	}
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "." // POSIX: an empty entry is the working directory
		}
		candidate := dir + "/" + name
		err := unix.Access(candidate, unix.X_OK)
		if err == nil && isDir(candidate) {
			err = unix.EACCES
		}
		if err == nil {
			return candidate, nil
		}
		if err == unix.EACCES {
			failure = err
		}
	}
	return "", failure
}

func isDir(path string) bool {
	var info unix.Stat_t
	return unix.Stat(path, &info) == nil && info.Mode&unix.S_IFMT == unix.S_IFDIR
}

// startFailure is the exit code for an error of start, as shells choose it.
func startFailure(err error) int {
	for _, missing := range []error{errNotInPath, errInterpreter, unix.ENOENT, unix.ENOTDIR} {
		if errors.Is(err, missing) {
			return contract.ExitNotFound
		}
	}
	return contract.ExitNotExecutable
}
