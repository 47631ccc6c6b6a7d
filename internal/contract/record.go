package contract

import (
	"strconv"
	"strings"
	"time"
)

// Reasons of a Record. Empty: the command ran and ended by itself.
const (
	// ReasonSkipped: a halt came before the step was released. The command did not run.
	ReasonSkipped = "Skipped"
	// ReasonTerminated: the container was told to stop before the step was released. The command did not run.
	ReasonTerminated = "Terminated"
	// ReasonStartError: the command was not found or can't be executed.
	ReasonStartError = "StartError"
	// ReasonTimedOut: the agent ended the command because it exceeded its timeout.
	ReasonTimedOut = "TimedOut"
	// ReasonCancelled: the agent ended the command because of a halt.
	ReasonCancelled = "Cancelled"
	// ReasonStopped: the container was told to stop while the command ran, for example because its Pod was deleted or evicted. The record
	// releases no step, whatever the exit code: the kubelet stops all containers of the Pod, and may tell the next one later.
	ReasonStopped = "Stopped"
	// ReasonSignaled: the command ended soon after a signal that may have been the stop signal of its container. The agent can't tell, so
	// the record releases no step. The controller decides, because it knows whether the Pod is terminating.
	ReasonSignaled = "Signaled"
	// ReasonHaltMissing: according to the predecessor's record the sequence has ended, but the controller did not confirm it with a halt in
	// time. The command did not run.
	ReasonHaltMissing = "HaltMissing"
	// ReasonWhenFalse: a condition of the step did not hold. The command did not run.
	ReasonWhenFalse = "WhenFalse"
	// ReasonFinished: the exit code of the command ends the sequence well. The container exits with 0.
	ReasonFinished = "Finished"
	// ReasonInputInvalid: an input is missing, or too large for the environment. The command did not run.
	ReasonInputInvalid = "InputInvalid"
	// ReasonOutputInvalid: the command succeeded, and its outputs can't be read.
	ReasonOutputInvalid = "OutputInvalid"
	// ReasonAgentError: the agent failed before it could run the command.
	ReasonAgentError = "AgentError"
)

// Record is how a step ended. The agent writes it to the run directory, for the other agents of the Pod. It also writes it as the
// container's termination message, for the controllers, unless the command has left a message.
//
// A termination message may be cut, so the most important fields come first.
type Record struct {
	// FinishedAt is when the command ended, or when the agent gave up.
	FinishedAt time.Time
	// ExitCode is the container's exit code.
	ExitCode int
	// CommandExitCode is the command's exit code, if the container exits with another one: a rule for exit codes says so, or onError: Continue.
	CommandExitCode *int
	// Passes means that the step failed, and lets its successors run nevertheless: onError: Continue or FailAtEnd.
	Passes bool
	// Reason is one of the Reason constants, or empty.
	Reason string
	// StartedAt is when the command first started; nil if it did not run.
	StartedAt *time.Time
	// Retries is how often the command ran again.
	Retries int
	// OutputKeys are the keys of Outputs, also of those that were cut.
	OutputKeys []string
	// Outputs are the outputs of the step. Only the termination message has them: other agents read OutputFile.
	Outputs map[string]string
	// Message is one sentence for people.
	Message string
}

// Code returns the exit code of the command.
func (r Record) Code() int {
	if r.CommandExitCode != nil {
		return *r.CommandExitCode
	}
	return r.ExitCode
}

// IsInterrupted reports whether a Reason means that the step did not end by itself, or never ran because the container was told to stop or
// a halt is missing. Such a step releases no other step, even with AfterFailureContinue.
func IsInterrupted(reason string) bool {
	switch reason {
	case ReasonTerminated, ReasonCancelled, ReasonStopped, ReasonHaltMissing:
		return true
	}
	return false
}

// opening distinguishes a record from a command's message that happens to be JSON.
const opening = `{"taskflow":`

// Marshal returns the record as a termination message.
func (r Record) Marshal() string {
	message := opening + `{"finishedAt":` + quote(FormatTime(r.FinishedAt)) + `,"exitCode":` + strconv.Itoa(r.ExitCode)
	if r.CommandExitCode != nil {
		message += `,"commandExitCode":` + strconv.Itoa(*r.CommandExitCode)
	}
	if r.Passes {
		message += `,"passes":true`
	}
	if r.Reason != "" {
		message += `,"reason":` + quote(r.Reason)
	}
	if r.StartedAt != nil {
		message += `,"startedAt":` + quote(FormatTime(*r.StartedAt))
	}
	if r.Retries != 0 {
		message += `,"retries":` + strconv.Itoa(r.Retries)
	}
	if r.Message != "" {
		message += `,"message":` + quote(r.Message)
	}
	if len(r.OutputKeys) > 0 {
		message += `,"outputKeys":` + quoteAll(r.OutputKeys)
		var outputs []string
		for _, key := range r.OutputKeys { // a list, because whole elements survive a cut
			if value, ok := r.Outputs[key]; ok {
				outputs = append(outputs, key+"="+value)
			}
		}
		message += `,"outputs":` + quoteAll(outputs)
	}
	return message + "}}"
}

// IsRecord reports whether a termination message is a record, even if so much was cut that ParseRecord can't read it.
func IsRecord(message string) bool { return strings.HasPrefix(strings.TrimSpace(message), opening) }

// ParseRecord parses a termination message. It returns false for a message that is not a record: a record always has FinishedAt and
// ExitCode.
//
// The kubelet cuts the messages of a Pod to 12 KiB divided by the number of its containers (MaxPodTerminationMessageLogLength,
// normalizeStatus in pkg/kubelet/status/status_manager.go). From a record that was cut, ParseRecord returns the complete fields.
func ParseRecord(message string) (Record, bool) {
	object, ours := strings.CutPrefix(strings.TrimSpace(message), opening)
	fields, rest := members(object)
	finishedAt := parseTime(fields["finishedAt"])
	exitCode, err := strconv.Atoi(fields["exitCode"])
	if !ours || finishedAt == nil || err != nil || rest != "" && !strings.HasSuffix(rest, "}") {
		return Record{}, false
	}
	retries, _ := strconv.Atoi(fields["retries"])
	var commandExitCode *int
	if code, err := strconv.Atoi(fields["commandExitCode"]); err == nil {
		commandExitCode = &code
	}
	return Record{
		FinishedAt:      *finishedAt,
		ExitCode:        exitCode,
		CommandExitCode: commandExitCode,
		Passes:          fields["passes"] == "true",
		Reason:          unquote(fields["reason"]),
		StartedAt:       parseTime(fields["startedAt"]),
		Retries:         retries,
		OutputKeys:      unquoteAll(fields["outputKeys"]),
		Outputs:         parseOutputs(fields["outputs"]),
		Message:         unquote(fields["message"]),
	}, true
}

// parseOutputs returns nil for a value that is not a list of outputs.
func parseOutputs(value string) map[string]string {
	all := unquoteAll(value)
	if len(all) == 0 {
		return nil
	}
	outputs := make(map[string]string, len(all))
	for _, output := range all {
		key, value, _ := strings.Cut(output, "=")
		outputs[key] = value
	}
	return outputs
}
