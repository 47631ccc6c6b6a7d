//go:build linux

package agent

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// notStarted is the exit code of a startupProbe that fails because the command has not started, or started too recently.
const notStarted = 1

// markStart marks that the command of step n starts now. Best effort: without the mark, a startupProbe with a delay fails, and so the other
// probes don't run.
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

// started is a step's startupProbe: it fails until the step is released, and for ProbeDelay after the start of the command. Then it executes
// the user's probe, if there is one.
func started(args []string, signals Signals, log logger) int {
	flags, err := contract.ParseStartedFlags(args)
	if err != nil {
		log.say(err.Error())
		return contract.ExitAgentFailure
	}
	// The mark is there in any case once the command has started. The gate alone could close again: another step fails, and the records say so.
	var mark unix.Stat_t
	hasStarted := flags.Run != "" && unix.Stat(startedFile(flags.Run, flags.Number()), &mark) == nil
	if !hasStarted && !gateOf(flags).read().released {
		log.say("the step is not released yet")
		return notStarted
	}
	if flags.ProbeDelay > 0 && (!hasStarted || time.Since(time.Unix(mark.Mtim.Unix())) < flags.ProbeDelay) {
		log.say("the command started less than " + flags.ProbeDelay.String() + " ago")
		return notStarted
	}
	if len(flags.Command) == 0 {
		return 0
	}
	return become(flags.WorkDir, flags.Command, signals, log)
}
