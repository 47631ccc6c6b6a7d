//go:build linux

package agent

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// notStarted is the exit code of a probe of a step that still waits, or has just begun.
const notStarted = 1

// markStart writes down that the command of step n starts now. Where it can't, a probe with a delay goes on failing, and the probes
// behind it don't run.
func markStart(runDir string, n int) {
	const mode = 0o644
	fd, err := unix.Open(startedFile(runDir, n), unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err == nil {
		_ = unix.Close(fd)
	}
}

func startedFile(runDir string, n int) string {
	return filepath.Join(contract.StepDir(runDir, n), contract.StartedFile)
}

// startedFor says for how long the command has been started, and 0 where it hasn't.
func startedFor(flags contract.AgentFlags) time.Duration {
	info, err := os.Stat(startedFile(flags.Run, flags.WaitContent))
	if err != nil {
		return 0
	}
	return time.Since(info.ModTime())
}

// started is a step's startupProbe: it fails until the step is released, and for the delay after that. Where there is a probe of the
// user's, it becomes that; it returns only if it doesn't.
func started(args []string, stderr io.Writer) int {
	flags, err := contract.ParseStartedFlags(args)
	if err != nil {
		say(stderr, err.Error())
		return contract.ExitAgentFailure
	}
	if !gateOf(flags).read().released {
		say(stderr, "the step still waits for its turn")
		return notStarted
	}
	if flags.ProbeDelay > 0 && startedFor(flags) < flags.ProbeDelay {
		say(stderr, "the command started less than "+flags.ProbeDelay.String()+" ago")
		return notStarted
	}
	if len(flags.Command) == 0 {
		return 0
	}
	if flags.WorkDir != "" {
		return enter(append([]string{flags.WorkDir}, flags.Command...), stderr)
	}
	path, err := lookPath(flags.Command[0], os.Getenv("PATH"))
	if err == nil {
		err = syscall.Exec(path, flags.Command, os.Environ())
	}
	say(stderr, "starting the probe "+strconv.Quote(flags.Command[0])+": "+err.Error())
	return startFailure(err)
}
