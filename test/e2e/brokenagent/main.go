// Command brokenagent is the agent with its gate taken out: it runs the step's command at once. With it, the tests that prove
// the order of steps must fail (TestBrokenGateIsSeen).
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

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
	path, err := exec.LookPath(flags.Command[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, flags.Command, os.Environ())
}
