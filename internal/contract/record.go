package contract

import (
	"strconv"
	"strings"
	"time"
)

// Exit codes of the agent where they are not the command's own. 126, 127 and 128+n are the shell's
// (POSIX.1-2024, Shell Command Language, 2.8.2); 125 is what container tools use for themselves.
const (
	ExitTimeout       = 124 // the command was ended since it took too long, as timeout(1) says it
	ExitAgentFailure  = 125 // the agent itself failed
	ExitNotExecutable = 126 // the command was found and could not be executed
	ExitNotFound      = 127 // the command was not found
	ExitSignal        = 128 // plus the number of the signal that ended the command
)

// Reasons of a Record. Empty: the command ran and ended by itself.
const (
	// ReasonSkipped: the gate closed before the step was released; the command did not run.
	ReasonSkipped = "Skipped"
	// ReasonTerminated: the container was told to stop before the step was released; the command did
	// not run.
	ReasonTerminated = "Terminated"
	// ReasonStartError: the command was not found or could not be executed.
	ReasonStartError = "StartError"
	// ReasonTimedOut: the command was ended since it took longer than its timeout.
	ReasonTimedOut = "TimedOut"
	// ReasonCancelled: the command was ended since the sequence was halted while it ran.
	ReasonCancelled = "Cancelled"
	// ReasonStopped: the container was told to stop while the command ran, as when its Pod is deleted or evicted. Whatever the exit
	// code, the record releases no step: the containers of the Pod are being stopped side by side, and the next may be told later.
	ReasonStopped = "Stopped"
	// ReasonSignaled: the container received a signal that may have been its stop signal, and the command ended soon after it. The agent
	// can't tell, so the record releases no step: the controller decides, because it knows whether the Pod is being stopped.
	ReasonSignaled = "Signaled"
	// ReasonHaltMissing: the record of the step before says that the sequence has ended, but the controller did not confirm it with a
	// halt in time. The command did not run.
	ReasonHaltMissing = "HaltMissing"
	// ReasonAgentError: the agent failed before it could run the command.
	ReasonAgentError = "AgentError"
)

// Record is how a step has ended. The agent leaves it in the run directory, for the agents of its Pod; and as the
// container's termination message, for the controllers, where the command itself left none.
//
// A termination message may be cut short, so what matters most comes first.
type Record struct {
	// FinishedAt is when the command ended, or when the agent gave up.
	FinishedAt time.Time
	// ExitCode is the container's exit code.
	ExitCode int
	// Reason is one of the Reason constants, or empty.
	Reason string
	// StartedAt is when the command was started, for the first time; nil where it was not.
	StartedAt *time.Time
	// Retries is how often the command was run again.
	Retries int
	// Message is one sentence for people.
	Message string
}

// IsInterrupted reports whether a Reason means that the step did not end by itself, or that its turn never came: nothing follows it, even
// if its failure would not matter.
func IsInterrupted(reason string) bool {
	switch reason {
	case ReasonTerminated, ReasonCancelled, ReasonStopped, ReasonHaltMissing:
		return true
	}
	return false
}

// opening tells the agent's record from a message of the user's that happens to be JSON.
const opening = `{"taskflow":`

// Marshal returns the record as a termination message.
func (r Record) Marshal() string {
	message := opening + `{"finishedAt":` + quote(r.FinishedAt.Format(time.RFC3339Nano)) + `,"exitCode":` + strconv.Itoa(r.ExitCode)
	if r.Reason != "" {
		message += `,"reason":` + quote(r.Reason)
	}
	if r.StartedAt != nil {
		message += `,"startedAt":` + quote(r.StartedAt.Format(time.RFC3339Nano))
	}
	if r.Retries != 0 {
		message += `,"retries":` + strconv.Itoa(r.Retries)
	}
	if r.Message != "" {
		message += `,"message":` + quote(r.Message)
	}
	return message + "}}"
}

// IsRecord reports whether a termination message is the agent's, even if so much of it was cut that ParseRecord can't read it.
func IsRecord(message string) bool { return strings.HasPrefix(strings.TrimSpace(message), opening) }

// ParseRecord reads a termination message. It returns false for one that the agent did not write; the
// agent never leaves FinishedAt and ExitCode out.
//
// The kubelet cuts the messages of a Pod to 12 KiB divided by the number of its containers (MaxPodTerminationMessageLogLength,
// normalizeStatus in pkg/kubelet/status/status_manager.go). Of a record that was cut, the fields that are whole count.
func ParseRecord(message string) (Record, bool) {
	object, ours := strings.CutPrefix(strings.TrimSpace(message), opening)
	fields, rest := members(object)
	finishedAt := parseTime(fields["finishedAt"])
	exitCode, err := strconv.Atoi(fields["exitCode"])
	if !ours || finishedAt == nil || err != nil || rest != "" && !strings.HasSuffix(rest, "}") {
		return Record{}, false
	}
	retries, _ := strconv.Atoi(fields["retries"])
	return Record{
		FinishedAt: *finishedAt,
		ExitCode:   exitCode,
		Reason:     unquote(fields["reason"]),
		StartedAt:  parseTime(fields["startedAt"]),
		Retries:    retries,
		Message:    unquote(fields["message"]),
	}, true
}

// parseTime returns nil for what isn't a time.
func parseTime(value string) *time.Time {
	t, err := time.Parse(time.RFC3339, unquote(value))
	if err != nil || t.IsZero() {
		return nil
	}
	return &t
}
