//go:build linux

package agent

import (
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// applyRules changes the record of a command that ran as the rules for its exit code say.
func applyRules(record *contract.Record, rules []contract.ExitCodeRule) {
	code, meaning := record.ExitCode, contract.MeaningOf(record.ExitCode, rules)
	switch {
	case code != 0 && (meaning == contract.ThenSucceed || meaning == contract.ThenFinish):
		record.CommandExitCode, record.ExitCode = &code, 0
	case code == 0 && (meaning == contract.ThenFail || meaning == contract.ThenRetry):
		const failure = 1
		record.CommandExitCode, record.ExitCode = &code, failure
	}
	// A command that was stopped did not end by itself, so it does not end the sequence. After a signal that may have been the stop signal, the
	// record for the other steps says so (forOthers).
	if meaning == contract.ThenFinish && !contract.IsInterrupted(record.Reason) {
		record.Reason, record.Message = contract.ReasonFinished, ""
	}
}

// addOutputs adds the outputs of the command to its record. A command that succeeded fails if they are invalid.
func (s step) addOutputs(record *contract.Record) {
	if s.flags.Run == "" {
		return
	}
	all, err := readOutputs(s.flags.Run, s.flags.Number(), "")
	switch {
	case err == nil:
		record.OutputKeys, record.Outputs = all.keys, all.values
	case record.ExitCode != 0 || contract.IsInterrupted(record.Reason):
		s.log.say("the outputs don't count: " + err.Error())
	default:
		s.log.say(err.Error())
		record.ExitCode, record.CommandExitCode = contract.ExitAgentFailure, nil
		record.Reason, record.Message = contract.ReasonOutputInvalid, err.Error()
	}
}

// cancelReason returns the sentence for the value of contract.CancelAnnotation, in the words that the halt has in a plain sequence.
func cancelReason(value string) string {
	switch value {
	case contract.CancelCancelled:
		return "spec.cancel of the Task is true"
	case contract.CancelDeadlineExceeded:
		return "the Task took longer than spec.timeout"
	}
	return value
}

// passOn applies AgentFlags.OnError to a step that failed. It changes nothing if the container is or may be being stopped.
func (s step) passOn(end outcome) outcome {
	isInterrupted := contract.IsInterrupted(end.Reason) || end.Reason == contract.ReasonSignaled || end.graceLeft > 0
	if s.flags.OnError == "" || end.ExitCode == 0 || isInterrupted {
		return end
	}
	end.Passes = true
	if s.flags.OnError == contract.OnErrorContinue {
		end.CommandExitCode, end.ExitCode = new(end.Code()), 0
	}
	return end
}
