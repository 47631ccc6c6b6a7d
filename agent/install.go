//go:build linux

package agent

import (
	"cmp"
	"errors"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

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
func Install(dest string) error {
	if err := install(dest); err != nil {
		return errors.New("installing the agent at " + strconv.Quote(dest) + ": " + err.Error())
	}
	return nil
}

// install calls the kernel itself: package os would have the time zones and more in the memory of every agent.
func install(dest string) error {
	program, ok := read(self, 0, math.MaxInt)
	if !ok {
		return errors.New(self + " can't be read")
	}
	temp := filepath.Join(filepath.Dir(dest), ".agent-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Unlink(temp) //nolint:errcheck // after the rename there is nothing to remove
	for len(program) > 0 && err == nil {
		var n int
		n, err = unix.Write(fd, program)
		program = program[max(n, 0):]
	}
	// Close comes before the rename, because a program that is open for writing can't be executed (ETXTBSY in execve(2)).
	if err := cmp.Or(err, unix.Fchmod(fd, installedMode), unix.Fsync(fd), unix.Close(fd)); err != nil {
		return err
	}
	return unix.Rename(temp, dest)
}
