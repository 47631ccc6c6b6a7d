//go:build linux

package agent

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/taskflow/taskflow-operator/contract"
)

// notStarted is the exit code of a probe of a step that still waits.
const notStarted = 1

// started is a step's startupProbe: it fails until the step is released. Where there is a probe of the user's, it becomes
// that; it returns only if it doesn't.
func started(args []string, stderr io.Writer) int {
	flags, err := contract.ParseStartedFlags(args)
	if err != nil {
		fmt.Fprintf(stderr, "agent: %v\n", err)
		return contract.ExitAgentFailure
	}
	if halt, decided := gateOf(flags).read(); !decided || halt != "" {
		fmt.Fprintln(stderr, "agent: the step still waits for its turn")
		return notStarted
	}
	if len(flags.Command) == 0 {
		return 0
	}
	path, err := lookPath(flags.Command[0], os.Getenv("PATH"))
	if err == nil {
		err = syscall.Exec(path, flags.Command, os.Environ())
	}
	fmt.Fprintf(stderr, "agent: starting the probe %q: %v\n", flags.Command[0], err)
	return startFailure(err)
}
