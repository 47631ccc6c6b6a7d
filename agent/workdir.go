//go:build linux

package agent

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// enterOrMake makes dir the working directory of this process, and so of the commands that it starts. A container runtime makes a missing
// one when the container starts, before the earlier steps have run, and as root. This makes it at the step's turn, as the step's user. The
// path is resolved each time: an earlier try may have replaced the directory.
func enterOrMake(dir string) error {
	err := unix.Chdir(dir)
	if errors.Is(err, unix.ENOENT) {
		const mode = 0o777 // less the umask, as mkdir -p has it
		made := os.MkdirAll(dir, mode)
		err = unix.Chdir(dir)
		if made != nil && !errors.Is(made, unix.EEXIST) && errors.Is(err, unix.ENOENT) {
			err = made
		}
	}
	if err == nil {
		return nil
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok { // without the path, which the sentence has
		err = errno
	}
	return workDirError{dir, err}
}

// workDirError says that a working directory can't be entered.
type workDirError struct {
	dir string
	err error
}

func (e workDirError) Error() string {
	return "entering the working directory " + strconv.Quote(e.dir) + ": " + e.err.Error() + "; check workingDir, and which user an earlier step makes it for"
}

func (e workDirError) Unwrap() error { return e.err }

// environ returns the environment of a command that runs in dir. A container runtime that sets PWD has set it to the directory of the agent.
func environ(dir string) []string {
	env := os.Environ()
	if dir == "" {
		return env
	}
	for i, variable := range env {
		if strings.HasPrefix(variable, "PWD=") {
			env[i] = "PWD=" + dir
		}
	}
	return env
}

// enter becomes a command in a directory, which must exist. It stands before the command of a probe or a hook, and returns only if it
// can't become it.
func enter(args []string, stderr io.Writer) int {
	if len(args) < 2 {
		say(stderr, contract.EnterCommand+" takes a directory and a command")
		return contract.ExitAgentFailure
	}
	dir, command := args[0], args[1:]
	if err := unix.Chdir(dir); err != nil {
		say(stderr, workDirError{dir, err}.Error())
		return startFailure(err)
	}
	path, err := lookPath(command[0], os.Getenv("PATH"))
	if err == nil {
		err = syscall.Exec(path, command, environ(dir))
	}
	say(stderr, "starting "+strconv.Quote(command[0])+": "+err.Error())
	return startFailure(err)
}
