//go:build linux

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// installedMode lets a step run the agent under any user, and change it under none but root.
const installedMode = 0o555

// self is the running program, also where its path no longer exists or was never in this container.
const self = "/proc/self/exe"

// Install copies the running program to dest, whose directory must exist. It replaces what is there
// in one rename: whoever starts dest gets a whole program, and a repeated call does no harm.
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

	if _, err := temp.Write(program); err != nil {
		return err
	}
	if err := temp.Chmod(installedMode); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	// Before the rename: a program that is open for writing can't be run (ETXTBSY, execve(2)).
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), dest)
}
