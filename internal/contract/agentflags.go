package contract

import (
	"errors"
	"slices"
	"strconv"
	"time"
)

// OutStdout is the only value of AgentFlags.Out: the command has the container's own standard
// streams, nothing is copied.
const OutStdout = "stdout"

// InstallCommand is the agent's other form of call: "agent install DESTINATION" copies the agent's own
// binary to DESTINATION. The init container AgentContainer runs it.
const InstallCommand = "install"

// StartedCommand is the agent's third form of call: "agent started --wait FILE --waitcontent N [more flags] [--command PROBE...]" succeeds once
// the step is released and, where there is a probe, the probe does. It is the step's startupProbe.
const StartedCommand = "started"

// EnterCommand is a form of call: "agent enter DIRECTORY COMMAND..." enters the directory and becomes the command. It stands before the
// commands of probes and hooks of a step whose working directory the agent enters.
const EnterCommand = "enter"

// EnterArgs is the command line of EnterCommand, without the agent's own path.
func EnterArgs(directory string, command []string) []string {
	return append([]string{EnterCommand, directory}, command...)
}

// What the failure of the step before means for a step: the values of AgentFlags.AfterFailure.
const (
	// AfterFailureStop ends the sequence: the step never runs.
	AfterFailureStop = "stop"
	// AfterFailureContinue releases the step.
	AfterFailureContinue = "continue"
	// AfterFailureWait is for a step before that the kubelet starts again when it has failed: it may still end well.
	AfterFailureWait = "wait"
)

// DefaultGrace is AgentFlags.Grace where that is zero: the terminationGracePeriodSeconds of a Pod that sets none.
const DefaultGrace = 30 * time.Second

// DefaultTerminationLog is the terminationMessagePath of a container that sets none
// (corev1.TerminationMessagePathDefault, which the agent can't import).
const DefaultTerminationLog = "/dev/termination-log"

// AgentFlags is the agent's command line. The webhook writes it with Args, the agent reads it with
// ParseAgentFlags.
type AgentFlags struct {
	// Wait is the file with the released order: the projected OrderAnnotation. Required.
	Wait string
	// WaitContent is the step's number, counted from 1: the gate opens when the number in Wait is at
	// least this. Required.
	WaitContent int
	// Halt is the file with the reason to stop: the projected HaltAnnotation. Once it has content,
	// a gate that is not yet open never opens. Empty: there is no such file.
	Halt string
	// Run is the run directory. Empty: there is none.
	Run string
	// ControllerOnly keeps the step to the files Wait and Halt: the records of others in Run release nothing.
	ControllerOnly bool
	// AfterFailure says what the record of a failure of the step before means. Default: AfterFailureStop.
	AfterFailure string
	// RestartsOnFailure says that the kubelet starts the container again after a failure, and means the command to run again: what the step's
	// own record says of a failure is then no reason not to. A step that has ended well is never run again.
	RestartsOnFailure bool
	// Out says where the command's output goes. Only OutStdout, which is the default.
	Out string
	// TerminationLog is the container's terminationMessagePath. Default: DefaultTerminationLog.
	TerminationLog string
	// FallbackToLogs says that the container's terminationMessagePolicy is FallbackToLogsOnError: the
	// agent then leaves no record of a command that failed, since a record would take the place of the
	// end of the log.
	FallbackToLogs bool
	// Timeout bounds each run of the command. 0: no bound.
	Timeout time.Duration
	// Grace is how long the command has from SIGTERM to SIGKILL after a timeout or a halt. Default: DefaultGrace.
	Grace time.Duration
	// StopSignal is the name of the signal that the container runtime stops the container with, such as SIGUSR1, if the container
	// names one (lifecycle.stopSignal). Empty: it is not known.
	StopSignal string
	// Retries is how often the command is run again after it has failed. Default: 0.
	Retries int
	// ProbeDelay is how long after the start of the command StartedCommand still says no. Default: 0.
	ProbeDelay time.Duration
	// WorkDir is the directory in which the command runs. The agent enters it at the step's turn, and makes it if it is missing. Empty: the
	// directory in which the container runtime starts the agent.
	WorkDir string
	// Mounts are the mountPaths whose directories an earlier step can remove or replace: the step fails if one did. A colon and the subPath
	// follow if nothing else than an earlier step can have made it; no mountPath has a colon.
	Mounts []string
	// Command is the step's command and its arguments, verbatim. At least one.
	Command []string
}

// commandFlag ends the agent's own flags: all that follows it is the command.
const commandFlag = "--command"

// Args is the command line without the agent's own path. Values that are their default are left out,
// except those that the first release's form shows: --wait, --waitcontent, --out, --command.
func (f AgentFlags) Args() []string {
	args := make([]string, 0, 12+len(f.Command)) // most steps have no more flags
	args = append(args, "--wait", f.Wait, "--waitcontent", strconv.Itoa(f.WaitContent), "--out", OutStdout)
	if f.Halt != "" {
		args = append(args, "--halt", f.Halt)
	}
	args = append(args, f.runArgs()...)
	if f.RestartsOnFailure {
		args = append(args, "--again")
	}
	if f.TerminationLog != "" && f.TerminationLog != DefaultTerminationLog {
		args = append(args, "--termination-log", f.TerminationLog)
	}
	if f.Timeout != 0 {
		args = append(args, "--timeout", f.Timeout.String())
	}
	if f.Grace != 0 && f.Grace != DefaultGrace {
		args = append(args, "--grace", f.Grace.String())
	}
	if f.Retries != 0 {
		args = append(args, "--retries", strconv.Itoa(f.Retries))
	}
	if f.StopSignal != "" {
		args = append(args, "--stop-signal", f.StopSignal)
	}
	if f.FallbackToLogs {
		args = append(args, "--fallback-to-logs")
	}
	if f.WorkDir != "" {
		args = append(args, "--workdir", f.WorkDir)
	}
	for _, path := range f.Mounts {
		args = append(args, "--mount", path)
	}
	return append(append(args, commandFlag), f.Command...)
}

// runArgs are the flags that say what releases the step, beside the order.
func (f AgentFlags) runArgs() []string {
	var args []string
	if f.Run != "" {
		args = append(args, "--run", f.Run)
	}
	if f.ControllerOnly {
		args = append(args, "--alone")
	}
	if f.AfterFailure != "" && f.AfterFailure != AfterFailureStop {
		args = append(args, "--after-failure", f.AfterFailure)
	}
	return args
}

// StartedArgs is the command line of the step's startupProbe, without the agent's own path; the probe may be empty.
func (f AgentFlags) StartedArgs(probe []string) []string {
	args := []string{StartedCommand, "--wait", f.Wait, "--waitcontent", strconv.Itoa(f.WaitContent)}
	args = append(args, f.runArgs()...)
	if f.ProbeDelay != 0 {
		args = append(args, "--delay", f.ProbeDelay.String())
	}
	if len(probe) > 0 {
		if f.WorkDir != "" {
			args = append(args, "--workdir", f.WorkDir)
		}
		args = append(append(args, commandFlag), probe...)
	}
	return args
}

// ParseStartedFlags reads what StartedArgs wrote, after StartedCommand. Command is the probe.
func ParseStartedFlags(args []string) (AgentFlags, error) { return parseFlags(args) }

// ParseAgentFlags reads what Args wrote. It fails, with one sentence, on an unknown flag, on a missing
// required one, and on a value out of its range.
func ParseAgentFlags(args []string) (AgentFlags, error) {
	f, err := parseFlags(args)
	if err == nil && len(f.Command) == 0 {
		return AgentFlags{}, errors.New(commandFlag + " is missing: put the step's command after it")
	}
	return f, err
}

func parseFlags(args []string) (AgentFlags, error) {
	own, command := args, []string(nil)
	if i := slices.Index(args, commandFlag); i >= 0 {
		own, command = args[:i], args[i+1:]
	}

	f := AgentFlags{
		AfterFailure:   AfterFailureStop,
		Out:            OutStdout,
		TerminationLog: DefaultTerminationLog,
		Grace:          DefaultGrace,
		Command:        command,
	}
	if err := f.set(own); err != nil {
		return AgentFlags{}, err
	}
	if problem := f.problem(); problem != "" {
		return AgentFlags{}, errors.New(problem)
	}
	return f, nil
}

// set reads the agent's own flags.
func (f *AgentFlags) set(args []string) error {
	fields := map[string]any{
		"--wait":             &f.Wait,
		"--waitcontent":      &f.WaitContent,
		"--halt":             &f.Halt,
		"--run":              &f.Run,
		"--alone":            &f.ControllerOnly,
		"--after-failure":    &f.AfterFailure,
		"--again":            &f.RestartsOnFailure,
		"--out":              &f.Out,
		"--termination-log":  &f.TerminationLog,
		"--timeout":          &f.Timeout,
		"--grace":            &f.Grace,
		"--retries":          &f.Retries,
		"--stop-signal":      &f.StopSignal,
		"--delay":            &f.ProbeDelay,
		"--fallback-to-logs": &f.FallbackToLogs,
		"--workdir":          &f.WorkDir,
		"--mount":            &f.Mounts,
	}
	for len(args) > 0 {
		name := args[0]
		args = args[1:]
		field, known := fields[name]
		if !known {
			return errors.New("unexpected argument " + strconv.Quote(name) + ": the step's command goes after " + commandFlag)
		}
		if on, ok := field.(*bool); ok {
			*on = true
			continue
		}
		if len(args) == 0 {
			return errors.New(name + " has no value")
		}
		value := args[0]
		args = args[1:]
		var err error
		switch field := field.(type) {
		case *string:
			*field = value
		case *[]string:
			*field = append(*field, value)
		case *int:
			*field, err = strconv.Atoi(value)
		case *time.Duration:
			*field, err = time.ParseDuration(value)
		}
		if err != nil {
			return errors.New(name + ": " + err.Error())
		}
	}
	return nil
}

// problem is what is missing, or out of its range.
func (f *AgentFlags) problem() string {
	switch {
	case f.Wait == "":
		return "--wait is missing: set it to the file that holds the order"
	case f.WaitContent < 1:
		return "--waitcontent is missing or below 1: set it to the step's number"
	case f.Out != OutStdout:
		return "--out " + strconv.Quote(f.Out) + " is unknown: set it to " + OutStdout
	case !slices.Contains([]string{AfterFailureStop, AfterFailureContinue, AfterFailureWait}, f.AfterFailure):
		return "--after-failure " + strconv.Quote(f.AfterFailure) + " is unknown: set it to " +
			AfterFailureStop + ", " + AfterFailureContinue + " or " + AfterFailureWait
	case f.Timeout < 0:
		return "--timeout " + f.Timeout.String() + " is below 0: leave it out for none"
	case f.Grace <= 0:
		return "--grace " + f.Grace.String() + " must be above 0"
	case f.ProbeDelay < 0:
		return "--delay " + f.ProbeDelay.String() + " is below 0: leave it out for none"
	case f.Retries < 0:
		return "--retries " + strconv.Itoa(f.Retries) + " is below 0: leave it out for none"
	}
	return ""
}
