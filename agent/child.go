//go:build linux

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

var (
	errNotInPath   = errors.New("not found in PATH")
	errInterpreter = errors.New("the file exists, but not the interpreter or loader that it names")
)

// start starts the command and returns its process ID. It calls syscall.ForkExec instead of os/exec, because only reap may wait for children.
// The child inherits the streams, working directory and umask. ForkExec restores the signal dispositions, the signal mask and the soft
// RLIMIT_NOFILE, which the Go runtime changes for itself.
func start(argv, env []string) (pid int, err error) {
	path, err := lookPath(argv[0], valueOf(env, "PATH"))
	if err != nil {
		return 0, err
	}
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   ownGroup(),
	})
	if errors.Is(err, unix.ENOENT) {
		// execve(2) also returns ENOENT for a missing "#!" interpreter, which is hard to understand.
		if unix.Stat(path, new(unix.Stat_t)) == nil {
			return 0, errInterpreter
		}
	}
	return pid, err
}

// become executes a program in place of the agent, in the directory dir, which must exist; "" is the current one. It returns only if that
// fails, or if a signal came that the program should have had: then it returns the exit code of the process.
func become(dir string, argv []string, signals Signals, log logger) int {
	if dir != "" {
		if err := unix.Chdir(dir); err != nil {
			log.say(workDirError{dir, err}.Error())
			return startFailure(err)
		}
	}
	path, err := lookPath(argv[0], os.Getenv("PATH"))
	if err == nil {
		select {
		case got := <-signals.forward:
			if sig := got.(syscall.Signal); endsWait(sig, unix.SIGTERM) {
				return contract.ExitSignal + int(sig)
			}
		default:
		}
		err = syscall.Exec(path, argv, environ(dir))
	}
	log.say("starting " + strconv.Quote(argv[0]) + ": " + err.Error())
	return startFailure(err)
}

// ownGroup makes the child the leader of a process group, like the first process of a container: "kill 0" in a script must not reach the
// agent, which would forward the signal. If the agent has the terminal, the child gets it, because reading from it would otherwise stop the
// child (tini does the same in isolate_child, src/tini.c). For a retry, the terminal still belongs to the group of the previous run, which
// has no processes left.
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

// lookPath finds a program as execvp(3) does. A name with a slash is a path. For other names it returns the first executable file in PATH, or
// EACCES if there are only files that can't be executed. exec.LookPath reports those as not found, and refuses relative entries of PATH.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil // execve reports errors
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

// startFailure returns a shell's exit code for a command that start or become can't start.
func startFailure(err error) int {
	missing := []error{errNotInPath, errInterpreter, unix.ENOENT, unix.ENOTDIR}
	if slices.ContainsFunc(missing, func(missing error) bool { return errors.Is(err, missing) }) {
		return contract.ExitNotFound
	}
	return contract.ExitNotExecutable
}
