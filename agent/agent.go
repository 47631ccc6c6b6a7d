//go:build linux

package agent

import (
	"errors"
	"io"
	"time"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Run does what the command line asks for and returns the process's exit code. The arguments are
// those after the program's name; signals come from Notify, which is to be called first.
func Run(args []string, signals Signals, now func() time.Time, stderr io.Writer) int {
	if len(args) > 0 && args[0] == contract.StartedCommand {
		return started(args[1:], stderr)
	}
	if len(args) > 0 && args[0] == contract.EnterCommand {
		return enter(args[1:], stderr)
	}
	if len(args) > 0 && args[0] == contract.PlatformCommand {
		return runPlatform(args[1:], signals, stderr)
	}
	if len(args) > 0 && args[0] == contract.InstallCommand {
		if err := install(args[1:]); err != nil {
			say(stderr, err.Error())
			return contract.ExitAgentFailure
		}
		return 0
	}

	flags, err := contract.ParseAgentFlags(args)
	if err != nil {
		// Where the record belongs is among what could not be read: the default is the best guess.
		say(stderr, err.Error())
		record := contract.Record{
			FinishedAt: now(),
			ExitCode:   contract.ExitAgentFailure,
			Reason:     contract.ReasonAgentError,
			Message:    err.Error(),
		}
		_ = leave(contract.DefaultTerminationLog, record) // the exit code and the log have said it
		return contract.ExitAgentFailure
	}
	return step{flags: flags, signals: signals, now: now, stderr: stderr, haltLimit: haltLimit}.run()
}

// say writes a sentence for people, on the container's log.
func say(stderr io.Writer, sentence string) {
	_, _ = io.WriteString(stderr, "agent: "+sentence+"\n")
}

func install(args []string) error {
	if len(args) != 1 {
		return errors.New("install takes one argument, the path to install the agent at")
	}
	return Install(args[0])
}
