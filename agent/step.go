//go:build linux

package agent

import (
	"errors"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// headStart is longer than a command takes to start, also on a slow machine.
const headStart = 20 * time.Millisecond

// step is one run of a step's container.
type step struct {
	flags   contract.AgentFlags
	signals Signals
	now     func() time.Time
	log     logger
	// haltLimit limits how long the step waits for the halt that confirms the predecessor's record.
	haltLimit time.Duration
	// terminationLog is the open file for the termination message, or -1.
	terminationLog int
	// What some of the flags say.
	exitCodes  []contract.ExitCodeRule
	conditions []contract.Condition
	inputs     []contract.Input
	// added are the variables that the agent adds to the environment of the command.
	added []variable
}

// newStep parses the step's command line. The container runtime has started the agent in the working directory of the image.
func newStep(args []string, signals Signals, now func() time.Time, log logger) (s step, err error) {
	s = step{signals: signals, now: now, log: log, haltLimit: haltLimit}
	if s.flags, err = contract.ParseAgentFlags(args); err != nil {
		return s, err
	}
	for _, text := range s.flags.ExitCodes {
		rule, err := contract.ParseExitCodeRule(text)
		if err != nil {
			return s, errors.New("--exit-code: " + err.Error())
		}
		s.exitCodes = append(s.exitCodes, rule)
	}
	for _, text := range s.flags.When {
		condition, err := contract.ParseCondition(text)
		if err != nil {
			return s, errors.New("--when: " + err.Error())
		}
		s.conditions = append(s.conditions, condition)
	}
	for _, text := range s.flags.Inputs {
		input, err := contract.ParseInput(text)
		if err != nil {
			return s, errors.New("--input: " + err.Error())
		}
		s.inputs = append(s.inputs, input)
	}
	if s.flags.WorkDir == "" && s.flags.DefaultWorkDir != "" {
		if dir, err := unix.Getwd(); err == nil && dir == "/" {
			s.flags.WorkDir = s.flags.DefaultWorkDir
		}
	}
	return s, nil
}

// run runs the step and returns the exit code of the container. The command's result counts, even if the agent can't write the record.
func (s step) run() int {
	s.terminationLog = openTerminationLog(s.flags.TerminationLog)
	if record, ok := s.endedBefore(); ok {
		s.log.say("the step ended at " + contract.FormatTime(record.FinishedAt.Truncate(time.Second)) + " with exit code " + strconv.Itoa(record.ExitCode) + ", and is not run again")
		if all, err := readOutputs(s.flags.Run, s.flags.Number(), ""); err == nil {
			record.OutputKeys, record.Outputs = all.keys, all.values
		}
		s.report(record)
		return record.ExitCode
	}
	end := s.passOn(s.waitAndExecute())
	// While there is a process that can't be killed, the container can't end either, and the next step must wait.
	if _, _, left := reap(0); !left && s.flags.Run != "" {
		record := end.forOthers()
		if published, err := publish(s.flags.Run, s.flags.Number(), record); err != nil {
			s.log.debug("publishing the record in ", s.flags.Run, ": ", err.Error())
		} else {
			s.log.debug("published the record in ", s.flags.Run)
			s.yieldToNext(record)
			defer published.sync()
		}
	}
	s.report(end.Record)
	s.log.debug("ending with exit code ", end.ExitCode)
	return end.ExitCode
}

// outcome is how a step ended.
type outcome struct {
	contract.Record
	// graceLeft is how much of its grace period the container may have left, if it may be being stopped.
	graceLeft time.Duration
}

// forOthers returns the record for the other steps. It releases no step while the container may be being stopped, even if the command ended for
// another reason before.
func (o outcome) forOthers() contract.Record {
	record := o.Record
	record.OutputKeys, record.Outputs = nil, nil
	if o.graceLeft > 0 && !contract.IsInterrupted(record.Reason) {
		record.Reason = contract.ReasonSignaled
	}
	return record
}

// yieldToNext delays the end of this container until the command that the record released has started. After the end, the container runtime
// cleans up with several processes, which compete with that start for the CPU: on two slow cores, a hop took 9 ms without the delay, and takes
// 6 ms with it (docs/benchmarks.md). A signal that stops the container ends the delay.
func (s step) yieldToNext(record contract.Record) {
	if s.hasReleased(record) {
		_, _ = receive[any](s, nil, after(headStart))
	}
}

// hasReleased reports whether the record may release another step, and the container of a later step exists: the kubelet creates its directory
// just before it. Which steps follow does not matter, because the delay costs nothing. After a failure that does not pass it returns false,
// because only the next step knows whether the failure releases it.
func (s step) hasReleased(record contract.Record) bool {
	state, onError := judge(record, s.flags.AfterFailure)
	passes := state == sequence.Succeeded || state == sequence.WhenFalse || state == sequence.Failed && onError != sequence.Stop
	return passes && !s.flags.ControllerOnly && isDir(contract.StepDir(s.flags.Run, s.flags.Number()+1))
}

// endedBefore returns the record of an earlier container of the step, if the step must not run again. A kubelet that loses a container starts
// another one, whatever the restart policy. That a condition did not hold is tested again, because the command can have forged such a record.
func (s step) endedBefore() (record contract.Record, ok bool) {
	if s.flags.Run == "" {
		return record, false
	}
	record, ok = readRecord(s.flags.Run, s.flags.Number())
	return record, ok && record.Reason != contract.ReasonWhenFalse && (record.ExitCode == 0 || !s.flags.RestartsOnFailure)
}

// report writes the record as the termination message, unless the kubelet is to take the end of the log instead. The log of a command that
// never ran is empty.
func (s step) report(record contract.Record) {
	takesLog := s.flags.FallbackToLogs && record.ExitCode != 0 && record.Reason != contract.ReasonTerminated
	writeTerminationMessage(s.terminationLog, record, takesLog)
}

func (s step) waitAndExecute() outcome {
	adoptOrphans()
	s.warmUp()
	roots := noteMounts(s.flags.Mounts)

	w := &watcher{inotify: -1}
	seen, sig := s.wait(w)
	switch {
	case sig != 0:
		return s.notRun(contract.ExitSignal+int(sig), contract.ReasonTerminated, "received "+signalName(sig)+" before the step was released")
	case seen.halt != "":
		return s.notRun(0, contract.ReasonSkipped, seen.halt)
	case !seen.released:
		return s.haltMissing(seen)
	}
	s.log.debug("released by the ", seen.by)
	if lost := roots.lost(s.flags.Mounts); lost != "" {
		return s.startError(contract.ExitNotExecutable, lost)
	}
	inputs, end := s.prepare()
	if end != nil {
		return *end
	}
	s.added = s.variables(inputs)
	return s.execute(w)
}

// prepare checks the conditions of the step and reads its inputs. If the command must not run, it returns the outcome.
func (s step) prepare() (inputs []variable, end *outcome) {
	sentence, err := s.unmet()
	switch {
	case err != nil:
		s.log.say(err.Error())
		return nil, new(s.notRun(contract.ExitAgentFailure, contract.ReasonAgentError, err.Error()))
	case sentence != "":
		return nil, new(s.notRun(0, contract.ReasonWhenFalse, sentence))
	}
	if inputs, err = s.readInputs(); err != nil {
		s.log.say(err.Error())
		return nil, new(s.notRun(contract.ExitAgentFailure, contract.ReasonInputInvalid, err.Error()))
	}
	return inputs, nil
}

// notRun returns the outcome of a step whose command did not run.
func (s step) notRun(code int, reason, message string) outcome {
	s.log.debug("the command does not run (", reason, "): ", message)
	return outcome{Record: contract.Record{FinishedAt: s.now(), ExitCode: code, Reason: reason, Message: message}}
}

// startError returns the outcome of a command that can't be started, and logs the reason.
func (s step) startError(code int, message string) outcome {
	s.log.say(message)
	return s.notRun(code, contract.ReasonStartError, message)
}

// haltMissing returns the outcome of a step that ends because of its predecessor's record. Without a halt it is a failure: a step must not make
// a Pod succeed whose later steps have not run.
func (s step) haltMissing(seen verdict) outcome {
	message := seen.claim
	if !seen.final {
		message += ", but the controller did not halt the sequence within " + s.haltLimit.String()
	}
	s.log.say(message)
	return s.notRun(contract.ExitAgentFailure, contract.ReasonHaltMissing, message)
}

// warmUp looks up the command before the release, so that the environment is parsed and the directories of PATH are in the kernel's cache by
// then. The result does not count: an earlier step may still create the command.
func (s step) warmUp() {
	_, _ = lookPath(s.flags.Command[0], os.Getenv("PATH"))
}

// wait returns the gate's verdict, or immediately the signal that stops the container.
func (s step) wait(w *watcher) (seen verdict, sig syscall.Signal) {
	g := gateOf(s.flags)
	s.log.debug("waiting for order ", g.stage, " in ", g.orderFile, g.siblings.String())
	decided := make(chan verdict, 1)
	go func() { decided <- g.wait(w, s.haltLimit, s.log) }()
	return receive(s, decided, nil)
}

// receive waits while the command does not run. It returns the value that the channel receives, or the signal that stops the container, or
// neither when the time is over.
func receive[T any](s step, from <-chan T, over <-chan struct{}) (value T, sig syscall.Signal) {
	for {
		select {
		case value := <-from:
			return value, 0
		case <-over:
			return value, 0
		case got := <-s.signals.forward:
			if sig := got.(syscall.Signal); endsWait(sig, stopSignal(s.flags.StopSignal)) {
				return value, sig
			}
		case <-s.signals.child: // left behind by a probe or "kubectl exec"
			reap(0)
		}
	}
}

// firstPause and longestPause limit the pause before a retry. It doubles each time.
const (
	firstPause   = time.Second
	longestPause = time.Minute
)

// execute runs the command to its end, with retries.
func (s step) execute(w *watcher) outcome {
	halted := s.watchHalt(w)

	startedAt := s.now()
	pause := firstPause
	for retry := 0; ; retry++ {
		end, canRetry := s.runCommand(retry, halted)
		end.Retries = retry
		if end.Reason != contract.ReasonStartError {
			end.StartedAt = &startedAt
		}
		if !canRetry || retry == s.flags.Retries {
			return end
		}
		// If the container is being stopped, it ends before the next run.
		wait := max(pause, (end.graceLeft + time.Second - 1).Truncate(time.Second))
		s.log.say("the command failed with exit code " + strconv.Itoa(end.ExitCode) +
			"; retry " + strconv.Itoa(retry+1) + " of " + strconv.Itoa(s.flags.Retries) + " starts in " + wait.String())
		switch halt, sig := receive(s, halted, after(wait)); {
		case sig != 0:
			end.Reason, end.Message = contract.ReasonStopped, ""
			return end
		case halt != "":
			end.Reason, end.Message = contract.ReasonCancelled, halt
			return end
		}
		pause = min(2*pause, longestPause)
	}
}

// runCommand runs the command once, and kills what it leaves behind. It reports whether a retry may change the result.
func (s step) runCommand(retry int, halted <-chan string) (result outcome, canRetry bool) {
	if s.flags.WorkDir != "" {
		if err := enterOrMake(s.flags.WorkDir); err != nil {
			return s.startError(startFailure(err), err.Error()), false
		}
	}
	env := environ(s.flags.WorkDir)
	for _, v := range s.added {
		env = setVariable(env, v.name, v.value)
	}
	if s.flags.Run != "" {
		removeOutputs(s.flags.Run, s.flags.Number())
	}
	pid, err := start(s.flags.Command, env)
	if err != nil {
		return s.startError(startFailure(err), "starting "+strconv.Quote(s.flags.Command[0])+": "+err.Error()), false
	}
	s.log.debug("started ", s.flags.Command[0], " as process ", pid)
	// After the start, because the mark may have to wait for the disk.
	if retry == 0 && s.flags.Run != "" {
		markStart(s.flags.Run, s.flags.Number())
	}
	end := s.signals.supervise(pid, limits{
		timeout: s.flags.Timeout, halted: halted, grace: s.flags.Grace, stop: stopSignal(s.flags.StopSignal),
	}, s.log)
	record := contract.Record{FinishedAt: s.now(), ExitCode: end.exitCode(), Reason: end.reason, Message: end.halt}
	switch {
	case end.reason == contract.ReasonTimedOut:
		record.Message = "took longer than its timeout of " + s.flags.Timeout.String()
	case end.reason == "" && end.isTerminated:
		record.Reason = contract.ReasonStopped
	case end.reason == "" && end.graceLeft > 0:
		record.Reason = contract.ReasonSignaled
	}
	killLeftovers(s.signals.child, s.log)
	canRetry = end.halt == "" && !end.isTerminated && contract.IsRetried(record.ExitCode, s.exitCodes)
	if end.halt == "" {
		applyRules(&record, s.exitCodes)
	}
	canRetry = canRetry && record.ExitCode != 0
	s.addOutputs(&record)
	return outcome{Record: record, graceLeft: end.graceLeft}, canRetry
}

// watchHalt returns a channel that receives the reason to end the command, once: a halt or, of a step beside others, only a cancel. It starts to watch when the command has started, which needs the CPU.
func (s step) watchHalt(w *watcher) <-chan string {
	halted := make(chan string, 1)
	file := s.flags.Halt
	if s.flags.Cancel != "" {
		file = s.flags.Cancel
	}
	if file == "" {
		return halted
	}
	g := gate{orderFile: s.flags.Wait, haltFile: file, stage: math.MaxInt} // the order never reaches it
	go func() {
		time.Sleep(headStart)
		reason := g.wait(w, s.haltLimit, s.log).halt
		if s.flags.Cancel != "" {
			reason = cancelReason(reason)
		}
		halted <- reason
	}()
	return halted
}
