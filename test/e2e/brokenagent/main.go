// Command brokenagent is the agent with its gate taken out: it runs the step's command at once. With it, the tests that prove
// the order of steps must fail (TestBrokenGateIsSeen). In a step with the environment variable IGNORED_EDGE, it is the agent, except that it
// ignores the last of several predecessors (TestIgnoredEdgeIsSeen).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/taskflow/taskflow-operator/agent"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "brokenagent: %v\n", err)
		os.Exit(contract.ExitAgentFailure)
	}
}

func run(args []string) error {
	if args[0] == contract.InstallCommand {
		return agent.Install(args[1])
	}
	flags, err := contract.ParseAgentFlags(args)
	if err != nil {
		return err
	}
	if _, ok := os.LookupEnv("IGNORED_EDGE"); ok {
		if n := len(flags.After); n > 1 {
			flags.After = flags.After[:n-1]
		}
		os.Exit(agent.Run(flags.Args(), agent.Notify(), time.Now, os.Stderr))
	}
	path, err := exec.LookPath(flags.Command[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, flags.Command, os.Environ())
}
