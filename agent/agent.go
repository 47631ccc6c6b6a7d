//go:build linux

package agent

import (
	"io"
	"time"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Run executes a command line of the agent, without the program's name, and returns the exit code of the process. The signals come from
// Notify, which the caller must call first.
func Run(args []string, signals Signals, now func() time.Time, stderr io.Writer) int {
	log := newLogger(stderr)
	if len(args) > 0 {
		switch args[0] {
		case contract.StartedCommand:
			return started(args[1:], signals, log)
		case contract.EnterCommand:
			return enter(args[1:], signals, log)
		case contract.PlatformCommand:
			return runPlatform(args[1:], signals, log)
		case contract.InstallCommand:
			return runInstall(args[1:], log)
		}
	}

	s, err := newStep(args, signals, now, log)
	if err != nil {
		log.say(err.Error())
		// The path is among the flags that can't be parsed: the default is the best guess.
		s.terminationLog = openTerminationLog(contract.DefaultTerminationLog)
		s.report(s.notRun(contract.ExitAgentFailure, contract.ReasonAgentError, err.Error()).Record)
		return contract.ExitAgentFailure
	}
	return s.run()
}
