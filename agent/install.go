//go:build linux

package agent

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// installedMode lets every user run the agent, and only root change it.
const installedMode = 0o555

// self is the running program, even if its path no longer exists, or never existed in this container.
const self = "/proc/self/exe"

func runInstall(args []string, log logger) int {
	err := errors.New("install takes one argument, the path to install the agent at")
	if len(args) == 1 {
		err = Install(args[0])
	}
	if err != nil {
		log.say(err.Error())
		return contract.ExitAgentFailure
	}
	return 0
}

// Install copies the running program to dest, whose directory must exist. It replaces an existing file in one rename: a process that executes
// dest always gets a complete program, and Install may be called again.
func Install(dest string) (err error) {
	defer func() {
		if err != nil {
			err = errors.New("installing the agent at " + strconv.Quote(dest) + ": " + err.Error())
		}
	}()

	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(dest), ".agent-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // after the rename there is nothing to remove
	defer temp.Close()

	_, err = temp.Write(program)
	// Close comes before the rename, because a program that is open for writing can't be executed (ETXTBSY in execve(2)).
	if err := cmp.Or(err, temp.Chmod(installedMode), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), dest)
}
