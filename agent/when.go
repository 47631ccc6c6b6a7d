//go:build linux

package agent

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// told returns what the controller tells about the other steps.
func (s step) told() contract.Outcome {
	told, _ := contract.ParseOutcome(content(s.flags.Outcome))
	return told
}

// endOf returns how a step ended: by its record or, if there is none or it leaves that to the controller, by what the controller tells.
func endOf(runDir string, number int, told contract.Outcome) (end contract.End, isKnown bool) {
	record, hasRecord := readRecord(runDir, number)
	state, _ := judge(record, contract.AfterFailureStop)
	end, isTold := told.Steps[number]
	if !hasRecord || state == sequence.Running && isTold {
		return end, isTold
	}
	switch {
	case state == sequence.Skipped, state == sequence.WhenFalse:
		return contract.End{State: contract.Skipped, ExitCode: -1}, true
	case record.ExitCode == 0 && !record.Passes:
		return contract.End{State: contract.Succeeded, ExitCode: record.Code()}, true
	}
	return contract.End{State: contract.Failed, ExitCode: record.Code()}, true
}

// unmet returns a sentence about the first condition that does not hold, or "". It fails if the end of a step is not known.
func (s step) unmet() (sentence string, err error) {
	told := s.told()
	for _, c := range s.conditions {
		end, isKnown := endOf(s.flags.Run, c.Number, told)
		if !isKnown {
			return "", errors.New("how step " + strconv.Quote(c.Step) + " ended is not known: its agent left no record, and the controller tells nothing")
		}
		value, hasValue := "", true
		switch c.Of {
		case contract.OfState:
			value = end.State
		case contract.OfExitCode:
			value, hasValue = strconv.Itoa(end.ExitCode), end.ExitCode >= 0
		case contract.OfOutput:
			value, hasValue = s.outputOf(c.Number, c.Step, c.Output, end)
		}
		if !c.Holds(value, hasValue) {
			return describe(c, value, hasValue), nil
		}
	}
	return "", nil
}

// describe returns a sentence about a condition that does not hold.
func describe(c contract.Condition, value string, hasValue bool) string {
	subject, name := "the "+c.Of+" of step "+strconv.Quote(c.Step), "no "+c.Of
	switch c.Of {
	case contract.OfExitCode:
		subject, name = "the exit code of step "+strconv.Quote(c.Step), "no exit code"
	case contract.OfOutput:
		subject, name = "the output "+c.Output+" of step "+strconv.Quote(c.Step), "no output "+c.Output
	}
	switch {
	case !hasValue:
		return "step " + strconv.Quote(c.Step) + " has " + name
	case len(c.In) > 0:
		return subject + " is " + shown(value) + ", not " + either(c.In)
	}
	return subject + " is " + shown(value)
}

// shown returns the value of a condition as a sentence has it.
func shown(value string) string {
	const longest = 64
	if len(value) > longest {
		value = strings.ToValidUTF8(value[:longest], "") + "…"
	}
	if value == "" || strings.ContainsAny(value, " \t\n,") {
		return strconv.Quote(value)
	}
	return value
}

func either(values []string) string {
	texts := slices.Clone(values)
	for i := range texts {
		texts[i] = shown(texts[i])
	}
	return strings.Join(texts, " or ")
}

// outputOf returns an output of a step. A step that failed may have left invalid ones, which don't count.
func (s step) outputOf(number int, name, key string, end contract.End) (value string, ok bool) {
	if end.State == contract.Skipped {
		return "", false
	}
	all, err := readOutputs(s.flags.Run, number, key)
	if err != nil {
		s.log.say("the outputs of step " + strconv.Quote(name) + " don't count: " + err.Error())
	}
	value, ok = all.values[key]
	return value, ok
}

// maxVariable is the size of the longest environment variable, with its name and the zero at its end (MAX_ARG_STRLEN in the kernel's
// include/uapi/linux/binfmts.h, with pages of 4 KiB).
const maxVariable = 128 << 10

// readInputs returns the variables for the inputs of the step.
func (s step) readInputs() ([]variable, error) {
	var variables []variable
	told := s.told()
	for _, input := range s.inputs {
		end, _ := endOf(s.flags.Run, input.Number, told)
		value, ok := s.outputOf(input.Number, input.Step, input.Output, end)
		what := "input " + input.Name + ": "
		switch {
		case !ok && input.Default == nil:
			return nil, errors.New(what + "step " + strconv.Quote(input.Step) + " has no output " + input.Output +
				"; write " + input.Output + "=VALUE to $" + contract.OutputVariable + " there, or set a default")
		case !ok:
			value = *input.Default
		}
		if longest := maxVariable - len(input.Name) - len("=") - 1; len(value) > longest {
			return nil, errors.New(what + "the output " + input.Output + " of step " + strconv.Quote(input.Step) + " has " + strconv.Itoa(len(value)) +
				" bytes, and the variable can have " + strconv.Itoa(longest) + "; write the value to a volume, and its path as the output")
		}
		variables = append(variables, variable{input.Name, value})
	}
	return variables, nil
}
