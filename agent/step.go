//go:build linux

package agent

import (
	"io"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// leftoverLimit bounds the wait for killed processes to be gone. Nearly all are in milliseconds, on a very busy
// machine in seconds; one that hangs in the kernel (a dead NFS server) never is.
const leftoverLimit = 5 * time.Second

// headStart is longer than a command takes to start, on a slow machine too.
const headStart = 20 * time.Millisecond

// step is one run of a step's command behind its gate.
type step struct {
	flags   contract.AgentFlags
	signals Signals
	now     func() time.Time
	stderr  io.Writer
	// haltLimit bounds the wait for the halt that confirms what the record of the step before claims.
	haltLimit time.Duration
}

// run returns the exit code of the container. The command's result stands, whether or not it can be written down.
func (s step) run() int {
	if record, over := s.endedBefore(); over {
		say(s.stderr, "the step ended at "+record.FinishedAt.Format(time.RFC3339)+" with exit code "+strconv.Itoa(record.ExitCode)+", and is not run again")
		s.leave(record)
		return record.ExitCode
	}
	end := s.waitAndExecute()
	// Where something of the step can't be killed, the container can't end either, and the next step waits for that.
	if _, _, left := reap(0); !left && s.flags.Run != "" {
		record := end.forNext()
		if published, err := publish(s.flags.Run, s.flags.WaitContent, record); err == nil {
			s.yieldToNext(record)
			defer published.sync()
		}
	}
	s.leave(end.Record)
	return end.ExitCode
}

// outcome is how a step has ended.
type outcome struct {
	contract.Record
	// stopping is how long the container may still be in its grace period.
	stopping time.Duration
}

// forNext returns the record for the next step. It releases no step while the container may be being stopped, although what ended the
// command came first.
func (o outcome) forNext() contract.Record {
	record := o.Record
	if o.stopping > 0 && !contract.IsInterrupted(record.Reason) {
		record.Reason = contract.ReasonSignaled
	}
	return record
}

// yieldToNext lets the command that the record has released start before this container ends. Behind a container, its runtime cleans up with
// several processes, which take the CPU from that start: on two slow cores, a hop took 9 ms without this, and takes 6 (docs/benchmarks.md).
// Whoever stops the container doesn't wait.
func (s step) yieldToNext(record contract.Record) {
	if s.hasReleased(record) {
		_, _ = s.pause(headStart, nil)
	}
}

// hasReleased says that the next step is there, and that the record lets its command run: not so where the annotation alone does. Whether a
// failure may be is for the next step to know, and taken for no here. The kubelet makes the directory of a step just before its container.
func (s step) hasReleased(record contract.Record) bool {
	succeeded := predecessor{}.state(record) == sequence.Succeeded
	return succeeded && !s.flags.ControllerOnly && isDir(contract.StepDir(s.flags.Run, s.flags.WaitContent+1))
}

// endedBefore returns the record of an earlier container of the step, if it is the step's last word. A kubelet that loses sight of a
// container starts another one, whatever the restart policy.
func (s step) endedBefore() (record contract.Record, over bool) {
	if s.flags.Run == "" {
		return record, false
	}
	record, ok := readRecord(s.flags.Run, s.flags.WaitContent)
	return record, ok && (record.ExitCode == 0 || !s.flags.RestartsOnFailure)
}

// leave leaves the record as the termination message, where that is its place. Of a command that never ran, there is no log to fall back to.
func (s step) leave(record contract.Record) {
	if !s.flags.FallbackToLogs || record.ExitCode == 0 || record.Reason == contract.ReasonTerminated {
		_ = leave(s.flags.TerminationLog, record)
	}
}

func (s step) waitAndExecute() outcome {
	adoptOrphans()
	s.warmUp()
	roots := noteMounts(s.flags.Mounts)

	w := newWatcher()
	seen, told := s.wait(w)
	switch {
	case told != 0:
		return outcome{Record: contract.Record{
			FinishedAt: s.now(),
			ExitCode:   contract.ExitSignal + int(told),
			Reason:     contract.ReasonTerminated,
			Message:    unix.SignalName(told) + " came before the step was released",
		}}
	case seen.halt != "":
		return outcome{Record: contract.Record{FinishedAt: s.now(), Reason: contract.ReasonSkipped, Message: seen.halt}}
	case !seen.released:
		return outcome{Record: s.haltMissing(seen)}
	}
	if lost := roots.lost(s.flags.Mounts); lost != "" {
		return s.startError(contract.ExitNotExecutable, lost)
	}
	return s.execute(w)
}

// haltMissing returns the record of a step that ends because the step before claims the end of the sequence. Without the controller's word
// it is a failure: a step must not make a Pod succeed whose later steps have not run.
func (s step) haltMissing(seen verdict) contract.Record {
	message := seen.claim
	if !seen.final {
		message += ", but the controller did not halt the sequence within " + s.haltLimit.String()
	}
	say(s.stderr, message)
	return contract.Record{FinishedAt: s.now(), ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing, Message: message}
}

// warmUp looks for the command ahead of the release, so that the environment has been taken apart and the directories of PATH have been read
// by then. What it finds doesn't count: an earlier step may have made the command.
func (s step) warmUp() {
	_, _ = lookPath(s.flags.Command[0], os.Getenv("PATH"))
}

// wait returns the gate's verdict, or at once the signal that tells the container to stop.
func (s step) wait(w *watcher) (seen verdict, told syscall.Signal) {
	decided := make(chan verdict, 1)
	go func() { decided <- gateOf(s.flags).wait(w, s.haltLimit) }()

	for {
		select {
		case seen := <-decided:
			return seen, 0
		case got := <-s.signals.forward:
			if sig := got.(syscall.Signal); s.endsWait(sig) {
				return verdict{}, sig
			}
		case <-s.signals.child: // what a probe or "kubectl exec" left behind
			reap(0)
		}
	}
}

func (s step) endsWait(sig syscall.Signal) bool { return endsWait(sig, stopSignal(s.flags.StopSignal)) }

// firstPause and longestPause bound the wait before a command is run again; it doubles each time.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// execute runs the command to its end, and until nothing that it started is left; again where it fails and has retries.
func (s step) execute(w *watcher) outcome {
	halted := s.watchHalt(w)

	startedAt := s.now()
	pause := firstPause
	for try := 0; ; try++ {
		end, again := s.try(try, halted)
		end.Retries = try
		if end.Reason != contract.ReasonStartError {
			end.StartedAt = &startedAt
		}
		if !again || try == s.flags.Retries {
			return end
		}
		// If the container is being stopped, it is gone before the next try.
		wait := max(pause, (end.stopping + time.Second - 1).Truncate(time.Second))
		say(s.stderr, "try "+strconv.Itoa(try+1)+" of "+strconv.Itoa(s.flags.Retries+1)+
			" ended with exit code "+strconv.Itoa(end.ExitCode)+"; the next is in "+wait.String())
		if reason, halt := s.pause(wait, halted); reason != "" {
			end.Reason, end.Message = reason, halt
			return end
		}
		pause = min(2*pause, longestPause)
	}
}

// try runs the command for the nth time, from 0, and says whether it makes sense to run it again.
func (s step) try(n int, halted <-chan string) (result outcome, again bool) {
	if s.flags.WorkDir != "" {
		if err := enterOrMake(s.flags.WorkDir); err != nil {
			return s.startError(startFailure(err), err.Error()), false
		}
	}
	pid, err := start(s.flags.Command, environ(s.flags.WorkDir))
	if err != nil {
		return s.startError(startFailure(err), "starting "+strconv.Quote(s.flags.Command[0])+": "+err.Error()), false
	}
	// Behind the start and not before it, which would wait for the disk.
	if n == 0 && s.flags.Run != "" {
		markStart(s.flags.Run, s.flags.WaitContent)
	}
	end := s.signals.supervise(pid, limits{
		timeout: s.flags.Timeout, halted: halted, grace: s.flags.Grace, stop: stopSignal(s.flags.StopSignal),
	})
	record := contract.Record{FinishedAt: s.now(), ExitCode: end.exitCode(), Reason: end.reason, Message: end.halt}
	switch {
	case end.reason == contract.ReasonTimedOut:
		record.Message = "took longer than its timeout of " + s.flags.Timeout.String()
	case end.reason == "" && end.terminated:
		record.Reason = contract.ReasonStopped
	case end.reason == "" && end.stopping > 0:
		record.Reason = contract.ReasonSignaled
	}
	killLeftovers(s.signals.child, leftoverLimit)
	return outcome{Record: record, stopping: end.stopping}, record.ExitCode != 0 && end.halt == "" && !end.terminated
}

// startError returns the outcome of a command that could not be started, and says why in the log.
func (s step) startError(code int, message string) outcome {
	say(s.stderr, message)
	return outcome{Record: contract.Record{FinishedAt: s.now(), ExitCode: code, Reason: contract.ReasonStartError, Message: message}}
}

// watchHalt sends the reason once when the sequence is halted. It begins to look when the command has started, whose CPU it would take.
func (s step) watchHalt(w *watcher) <-chan string {
	halted := make(chan string, 1)
	if s.flags.Halt == "" {
		return halted
	}
	g := gate{orderFile: s.flags.Wait, haltFile: s.flags.Halt, number: math.MaxInt} // the order never reaches it
	go func() {
		time.Sleep(headStart)
		halted <- g.wait(w, s.haltLimit).halt
	}()
	return halted
}

// pause returns a reason when there is to be no further try: the container is told to stop, or the sequence has been halted.
func (s step) pause(length time.Duration, halted <-chan string) (reason, halt string) {
	over := time.After(length)
	for {
		select {
		case <-over:
			return "", ""
		case halt := <-halted:
			return contract.ReasonCancelled, halt
		case got := <-s.signals.forward:
			if s.endsWait(got.(syscall.Signal)) {
				return contract.ReasonStopped, ""
			}
		case <-s.signals.child:
			reap(0)
		}
	}
}
