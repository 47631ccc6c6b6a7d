package contract

import (
	"errors"
	"slices"
	"strconv"
	"time"
)

// The forms in which the agent is called, beside the form that runs a step.
const (
	// InstallCommand copies the agent's binary: "agent install DESTINATION". The init container AgentContainer runs it.
	InstallCommand = "install"
	// StartedCommand is a step's startupProbe: "agent started FLAGS [--command PROBE...]" succeeds once the step is released and the probe,
	// if there is one, succeeds.
	StartedCommand = "started"
	// EnterCommand runs the probes and hooks of a step that has AgentFlags.WorkDir: "agent enter DIRECTORY COMMAND..." enters the directory
	// and executes the command.
	EnterCommand = "enter"
)

// EnterArgs returns the command line of EnterCommand, without the agent's own path.
func EnterArgs(directory string, command []string) []string {
	return append([]string{EnterCommand, directory}, command...)
}

// OutStdout is the only value of AgentFlags.Out: the command writes to the container's own streams.
const OutStdout = "stdout"

// Values of AgentFlags.AfterFailure.
const (
	// AfterFailureStop ends the sequence: the step never runs.
	AfterFailureStop = "stop"
	// AfterFailureContinue releases the step.
	AfterFailureContinue = "continue"
	// AfterFailureWait keeps the step waiting, because the kubelet restarts the predecessor: it may still succeed.
	AfterFailureWait = "wait"
)

// Values of AgentFlags.OnError.
const (
	// OnErrorContinue lets the successors of the step run although it failed, and its container exit with 0: a Job must not take its Pod for
	// failed.
	OnErrorContinue = "continue"
	// OnErrorFailAtEnd lets the successors of the step run although it failed.
	OnErrorFailAtEnd = "fail-at-end"
)

// DefaultGrace is the default of AgentFlags.Grace: the default of a Pod's terminationGracePeriodSeconds.
const DefaultGrace = 30 * time.Second

// DefaultTerminationLog is the default of a container's terminationMessagePath (corev1.TerminationMessagePathDefault, which the agent
// can't import).
const DefaultTerminationLog = "/dev/termination-log"

// AgentFlags is the agent's command line. The webhook writes it with Args, and the agent reads it with ParseAgentFlags.
type AgentFlags struct {
	// Wait is the file with the released order: the projected OrderAnnotation. Required.
	Wait string
	// WaitContent is the step's number, from 1. The step is released when the order is at least this number. Required.
	WaitContent int
	// Halt is the file with the reason for a halt: the projected HaltAnnotation. If it has content, a step that still waits never runs.
	// Default: no file.
	Halt string
	// Run is the run directory. Default: none.
	Run string
	// ControllerOnly lets only the files Wait and Halt decide: the records in Run release no step.
	ControllerOnly bool
	// AfterFailure is what a failure of the predecessor means for the step. Default: AfterFailureStop.
	AfterFailure string
	// RestartsOnFailure runs the command again if the kubelet restarts the container after a failure. A step that succeeded never runs again.
	RestartsOnFailure bool
	// Out is where the output of the command goes. Default: OutStdout.
	Out string
	// TerminationLog is the container's terminationMessagePath. Default: DefaultTerminationLog.
	TerminationLog string
	// FallbackToLogs is set if the container's terminationMessagePolicy is FallbackToLogsOnError. The agent then writes no record for a command
	// that failed, because the record would replace the end of the log.
	FallbackToLogs bool
	// Timeout limits each run of the command. Default: 0, no limit.
	Timeout time.Duration
	// Grace is the time from SIGTERM to SIGKILL after a timeout or a halt. Default: DefaultGrace.
	Grace time.Duration
	// StopSignal is the container's lifecycle.stopSignal, such as SIGUSR1. Default: not known.
	StopSignal string
	// Retries is how often a command that fails runs again in the same container. Default: 0.
	Retries int
	// ProbeDelay is how long StartedCommand fails after the command has started. Default: 0.
	ProbeDelay time.Duration
	// WorkDir is the directory in which the command runs. The agent enters it when the step is released, and creates it if it is missing.
	// Default: the directory in which the container runtime starts the agent.
	WorkDir string
	// Mounts are the mountPaths whose directories an earlier step can remove or replace: if one did, the step fails. ":SUBPATH" follows a
	// mountPath if only an earlier step can have created that subPath; a mountPath has no colon.
	Mounts []string
	// Step is the number by which the run directory knows the step: its place in the list, from 1. Default: WaitContent, which is the step's
	// stage. In a plain sequence, both are the same.
	Step int
	// After are the numbers of the predecessors. Default: WaitContent minus 1, if that is above 0.
	After []int
	// Work is the number of steps that are not final, whose records the step looks at before it starts: none may have ended the sequence, and
	// the first final step starts without the controller only if all have passed. Default: 0, only the records of the predecessors.
	Work int
	// IsFinal is set for a final step.
	IsFinal bool
	// OnError is what a failure of the step means for its own record and exit code: OnErrorContinue or OnErrorFailAtEnd. Default: a failure.
	OnError string
	// ExitCodes are rules for exit codes, as ExitCodeRule.String returns them.
	ExitCodes []string
	// When are conditions, as Condition.String returns them. If one does not hold, the command does not run.
	When []string
	// Inputs are environment variables of the command, as Input.String returns them.
	Inputs []string
	// Cancel is the file with the reason to end the command (CancelAnnotation). Default: Halt.
	Cancel string
	// Outcome is the file with the Outcome. Default: no file.
	Outcome string
	// DefaultWorkDir is the directory in which the command runs if WorkDir is not set and the container runtime starts the agent in /, which means
	// that the image has no working directory. Default: none.
	DefaultWorkDir string
	// Command is the step's command with its arguments, verbatim. Required.
	Command []string
}

// commandFlag ends the agent's own flags: everything after it is the command.
const commandFlag = "--command"

// agentFlag is a flag of the agent. It has no value if its field is a bool, and is repeated if its field is a list.
type agentFlag struct {
	name  string
	field any
	unset string // beside the zero value, a value that the command line leaves out
}

// flags lists the flags in the order in which they stand on a command line. Package flag would do, but links fmt: the agent would be
// 11 % larger (2.13 MB instead of 1.93 MB), and every step has one.
func (f *AgentFlags) flags() []agentFlag {
	return []agentFlag{
		{name: "--wait", field: &f.Wait},
		{name: "--waitcontent", field: &f.WaitContent},
		{name: "--out", field: &f.Out},
		{name: "--halt", field: &f.Halt},
		{name: "--run", field: &f.Run},
		{name: "--alone", field: &f.ControllerOnly},
		{name: "--after-failure", field: &f.AfterFailure, unset: AfterFailureStop},
		{name: "--again", field: &f.RestartsOnFailure},
		{name: "--delay", field: &f.ProbeDelay},
		{name: "--termination-log", field: &f.TerminationLog, unset: DefaultTerminationLog},
		{name: "--timeout", field: &f.Timeout},
		{name: "--grace", field: &f.Grace, unset: DefaultGrace.String()},
		{name: "--retries", field: &f.Retries},
		{name: "--stop-signal", field: &f.StopSignal},
		{name: "--fallback-to-logs", field: &f.FallbackToLogs},
		{name: "--workdir", field: &f.WorkDir},
		{name: "--mount", field: &f.Mounts},
		{name: "--step", field: &f.Step},
		{name: "--after", field: &f.After},
		{name: "--work", field: &f.Work},
		{name: "--final", field: &f.IsFinal},
		{name: "--on-error", field: &f.OnError},
		{name: "--exit-code", field: &f.ExitCodes},
		{name: "--when", field: &f.When},
		{name: "--input", field: &f.Inputs},
		{name: "--cancel", field: &f.Cancel},
		{name: "--outcome", field: &f.Outcome},
		{name: "--default-workdir", field: &f.DefaultWorkDir},
	}
}

// Number returns the number by which the run directory knows the step.
func (f AgentFlags) Number() int {
	if f.Step > 0 {
		return f.Step
	}
	return f.WaitContent
}

// Predecessors returns the numbers of the step's predecessors.
func (f AgentFlags) Predecessors() []int {
	if len(f.After) == 0 && f.WaitContent > 1 {
		return []int{f.WaitContent - 1}
	}
	return f.After
}

// Args returns the command line without the agent's own path. It leaves out defaults, except "--out stdout", which Pods of the first
// release have.
func (f AgentFlags) Args() []string {
	f.Out, f.ProbeDelay = OutStdout, 0
	return f.args()
}

// StartedArgs returns the command line of the step's startupProbe, without the agent's own path. The probe may be empty.
func (f AgentFlags) StartedArgs(probe []string) []string {
	started := AgentFlags{
		Wait: f.Wait, WaitContent: f.WaitContent, Run: f.Run, ControllerOnly: f.ControllerOnly, AfterFailure: f.AfterFailure,
		ProbeDelay: f.ProbeDelay, Command: probe, Step: f.Step, After: f.After, Work: f.Work, IsFinal: f.IsFinal,
	}
	if len(probe) > 0 {
		started.WorkDir = f.WorkDir
	}
	return append([]string{StartedCommand}, started.args()...)
}

func (f AgentFlags) args() []string {
	var args []string
	for _, flag := range f.flags() {
		var value string
		switch field := flag.field.(type) {
		case *bool:
			if *field {
				args = append(args, flag.name)
			}
		case *[]string:
			for _, value := range *field {
				args = append(args, flag.name, value)
			}
		case *[]int:
			for _, value := range *field {
				args = append(args, flag.name, strconv.Itoa(value))
			}
		case *string:
			value = *field
		case *int:
			if *field != 0 {
				value = strconv.Itoa(*field)
			}
		case *time.Duration:
			if *field != 0 {
				value = field.String()
			}
		}
		if value != "" && value != flag.unset {
			args = append(args, flag.name, value)
		}
	}
	if len(f.Command) > 0 {
		args = append(append(args, commandFlag), f.Command...)
	}
	return args
}

// ParseStartedFlags parses what StartedArgs returns, without StartedCommand. AgentFlags.Command is the probe.
func ParseStartedFlags(args []string) (AgentFlags, error) {
	own, command := args, []string(nil)
	if i := slices.Index(args, commandFlag); i >= 0 {
		own, command = args[:i], args[i+1:]
	}
	f := AgentFlags{AfterFailure: AfterFailureStop, Out: OutStdout, TerminationLog: DefaultTerminationLog, Grace: DefaultGrace, Command: command}
	if err := f.parse(own); err != nil {
		return AgentFlags{}, err
	}
	if err := f.validate(); err != nil {
		return AgentFlags{}, err
	}
	return f, nil
}

// ParseAgentFlags parses what Args returns. It fails, with one sentence, if a flag is unknown, a required flag is missing, or a value is
// out of range.
func ParseAgentFlags(args []string) (AgentFlags, error) {
	f, err := ParseStartedFlags(args)
	if err == nil && len(f.Command) == 0 {
		return AgentFlags{}, errors.New(commandFlag + " is missing: put the step's command after it")
	}
	return f, err
}

// parse sets the fields that the agent's own flags name.
func (f *AgentFlags) parse(args []string) error {
	flags := f.flags()
	for len(args) > 0 {
		name := args[0]
		i := slices.IndexFunc(flags, func(flag agentFlag) bool { return flag.name == name })
		if i < 0 {
			return errors.New("unexpected argument " + strconv.Quote(name) + ": the step's command goes after " + commandFlag)
		}
		if on, ok := flags[i].field.(*bool); ok {
			*on, args = true, args[1:]
			continue
		}
		if len(args) == 1 {
			return errors.New(name + " has no value")
		}
		if err := flags[i].set(args[1]); err != nil {
			return errors.New(name + ": " + err.Error())
		}
		args = args[2:]
	}
	return nil
}

func (flag agentFlag) set(value string) (err error) {
	switch field := flag.field.(type) {
	case *string:
		*field = value
	case *[]string:
		*field = append(*field, value)
	case *[]int:
		var number int
		number, err = strconv.Atoi(value)
		*field = append(*field, number)
	case *int:
		*field, err = strconv.Atoi(value)
	case *time.Duration:
		*field, err = time.ParseDuration(value)
	}
	return err
}

// validate returns an error for a required flag that is missing, or a value that is out of range.
func (f *AgentFlags) validate() error {
	switch {
	case f.Wait == "":
		return errors.New("--wait is missing: set it to the file that holds the order")
	case f.WaitContent < 1:
		return errors.New("--waitcontent is missing or below 1: set it to the step's number")
	case f.Out != OutStdout:
		return errors.New("--out " + strconv.Quote(f.Out) + " is unknown: set it to " + OutStdout)
	case !slices.Contains([]string{AfterFailureStop, AfterFailureContinue, AfterFailureWait}, f.AfterFailure):
		return errors.New("--after-failure " + strconv.Quote(f.AfterFailure) + " is unknown: set it to " +
			AfterFailureStop + ", " + AfterFailureContinue + " or " + AfterFailureWait)
	case f.Timeout < 0:
		return errors.New("--timeout " + f.Timeout.String() + " is below 0: leave it out for no timeout")
	case f.Grace <= 0:
		return errors.New("--grace " + f.Grace.String() + " must be above 0")
	case f.ProbeDelay < 0:
		return errors.New("--delay " + f.ProbeDelay.String() + " is below 0: leave it out for no delay")
	case f.OnError != "" && f.OnError != OnErrorContinue && f.OnError != OnErrorFailAtEnd:
		return errors.New("--on-error " + strconv.Quote(f.OnError) + " is unknown: set it to " + OnErrorContinue + " or " + OnErrorFailAtEnd)
	case f.Retries < 0:
		return errors.New("--retries " + strconv.Itoa(f.Retries) + " is below 0: leave it out for no retries")
	}
	return nil
}
