//go:build linux

package agent

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// enterOrMake makes dir the working directory of this process, and so of the commands that it starts. It creates a missing directory when the
// step is released, as the step's user: a container runtime would create it as root, before the earlier steps have run. It resolves the path
// for each run of the command, because the run before may have replaced the directory.
func enterOrMake(dir string) error {
	err := unix.Chdir(dir)
	if errors.Is(err, unix.ENOENT) {
		if err = makeAll(dir); err == nil {
			err = unix.Chdir(dir)
		}
	}
	if err == nil {
		return nil
	}
	return workDirError{dir, err}
}

// makeAll makes a directory and those around it, as mkdir -p does. If there is something else at the path, entering it fails.
func makeAll(dir string) error {
	const mode = 0o777 // minus the umask
	err := unix.Mkdir(dir, mode)
	if outer := strings.TrimRight(dir, "/"); errors.Is(err, unix.ENOENT) && outer != "" {
		if err = makeAll(outer[:strings.LastIndexByte(outer, '/')+1]); err == nil {
			err = unix.Mkdir(dir, mode)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// workDirError reports that the agent can't enter a working directory.
type workDirError struct {
	dir string
	err error
}

func (e workDirError) Error() string {
	return "entering the working directory " + strconv.Quote(e.dir) + ": " + e.err.Error() +
		"; check workingDir, and as which user an earlier step creates the directory"
}

func (e workDirError) Unwrap() error { return e.err }

// enter runs a probe or hook in the working directory of the step. It does not create the directory.
func enter(args []string, signals Signals, log logger) int {
	if len(args) < 2 {
		log.say(contract.EnterCommand + " takes a directory and a command")
		return contract.ExitAgentFailure
	}
	return become(args[0], args[1:], signals, log)
}
