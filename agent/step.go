//go:build linux

package agent

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/contract"
)

// leftoverLimit bounds the wait for killed processes to be gone. Nearly all are in milliseconds; one
// that hangs in the kernel (a dead NFS server) never is.
const leftoverLimit = time.Second

// step is one run of a step's command behind its gate.
type step struct {
	flags   contract.AgentFlags
	signals Signals
	now     func() time.Time
	stderr  io.Writer
}

// run returns the exit code of the container.
func (s step) run() int {
	record := s.waitAndExecute()
	if s.flags.FallbackToLogs && record.ExitCode != 0 {
		return record.ExitCode
	}
	// The command's result stands, whether or not it can be written down.
	_ = leave(s.flags.TerminationLog, record)
	return record.ExitCode
}

func (s step) waitAndExecute() contract.Record {
	adoptOrphans()

	halt, told := s.wait()
	switch {
	case told != 0:
		return contract.Record{
			FinishedAt: s.now(),
			ExitCode:   contract.ExitSignal + int(told),
			Reason:     contract.ReasonTerminated,
			Message:    unix.SignalName(told) + " came before the step was released",
		}
	case halt != "":
		return contract.Record{FinishedAt: s.now(), Reason: contract.ReasonSkipped, Message: halt}
	}
	return s.execute()
}

// wait returns when the step is released, with why it must not run if the gate has closed, or at once
// with the signal that tells the container to stop.
func (s step) wait() (halt string, told syscall.Signal) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	decided := make(chan string, 1)
	go func() {
		g := gate{orderFile: s.flags.Wait, order: s.flags.WaitContent, haltFile: s.flags.Halt}
		if halt, err := g.wait(ctx); err == nil {
			decided <- halt
		}
	}()

	for {
		select {
		case halt := <-decided:
			return halt, 0
		case got := <-s.signals.forward:
			if sig := got.(syscall.Signal); endsByDefault(sig) {
				return "", sig
			}
		case <-s.signals.child: // what a probe or "kubectl exec" left behind
			reap(0)
		}
	}
}

// execute runs the command to its end, and until nothing that it started is left.
func (s step) execute() contract.Record {
	startedAt := s.now()
	pid, err := start(s.flags.Command, os.Environ())
	if err != nil {
		err = fmt.Errorf("starting %q: %w", s.flags.Command[0], err)
		fmt.Fprintf(s.stderr, "agent: %v\n", err)
		return contract.Record{
			FinishedAt: s.now(),
			ExitCode:   startFailure(err),
			Reason:     contract.ReasonStartError,
			Message:    err.Error(),
		}
	}

	status := s.signals.superviseUntilEnd(pid)
	finishedAt := s.now()
	killLeftovers(s.signals.child, leftoverLimit)
	return contract.Record{StartedAt: &startedAt, FinishedAt: finishedAt, ExitCode: exitCode(status)}
}

// exitCode is what a shell reports for the command (POSIX.1-2024, Shell Command Language, 2.8.2).
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return contract.ExitSignal + int(status.Signal())
	}
	return status.ExitStatus()
}
