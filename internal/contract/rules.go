package contract

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// What an exit code means: values of ExitCodeRule.Then.
const (
	// ThenSucceed: the step has succeeded.
	ThenSucceed = "Succeed"
	// ThenFinish: the step has succeeded, and ends the sequence well.
	ThenFinish = "Finish"
	// ThenFail: the step has failed, and is not retried.
	ThenFail = "Fail"
	// ThenRetry: the step has failed, and only exit codes with this meaning are retried.
	ThenRetry = "Retry"
)

// ExitCodeRule says what some exit codes of a command mean.
type ExitCodeRule struct {
	In   []int  `json:"in"`
	Then string `json:"then"`
}

// String returns the rule as AgentFlags.ExitCodes has it: "2,3=Succeed".
func (r ExitCodeRule) String() string {
	codes := make([]string, len(r.In))
	for i, code := range r.In {
		codes[i] = strconv.Itoa(code)
	}
	return strings.Join(codes, ",") + "=" + r.Then
}

// ParseExitCodeRule parses what String returns.
func ParseExitCodeRule(text string) (ExitCodeRule, error) {
	codes, then, _ := strings.Cut(text, "=")
	r := ExitCodeRule{Then: then}
	for code := range strings.SplitSeq(codes, ",") {
		n, err := strconv.Atoi(code)
		if err != nil {
			return ExitCodeRule{}, err
		}
		r.In = append(r.In, n)
	}
	if !slices.Contains([]string{ThenSucceed, ThenFinish, ThenFail, ThenRetry}, then) {
		return ExitCodeRule{}, errors.New(strconv.Quote(then) + " is unknown: set it to Succeed, Finish, Fail or Retry")
	}
	return r, nil
}

// MeaningOf returns what an exit code means by the rules, or "": 0 is success, and all others are failures.
func MeaningOf(code int, rules []ExitCodeRule) string {
	for _, r := range rules {
		if slices.Contains(r.In, code) {
			return r.Then
		}
	}
	return ""
}

// IsRetried reports whether a command that failed with an exit code may run again.
func IsRetried(code int, rules []ExitCodeRule) bool {
	switch MeaningOf(code, rules) {
	case ThenRetry:
		return true
	case "":
		return !slices.ContainsFunc(rules, func(r ExitCodeRule) bool { return r.Then == ThenRetry })
	}
	return false
}

// What a Condition tests: values of Condition.Of.
const (
	OfState    = "state"
	OfExitCode = "exitCode"
	OfOutput   = "output"
)

// How a step has ended, as a Condition of OfState has it. They are the states in the status of a Task.
const (
	Succeeded = "Succeeded"
	Failed    = "Failed"
	Skipped   = "Skipped"
)

// Condition tests how a step has ended. Either In or NotIn is set.
type Condition struct {
	// Step is the name of the tested step.
	Step string `json:"step"`
	// Number is its number. Only AgentFlags.When has it.
	Number int `json:"number,omitempty"`
	// Of is OfState, OfExitCode or OfOutput.
	Of string `json:"of"`
	// Output is the key for OfOutput.
	Output string `json:"output,omitempty"`
	// In are the values with which the condition holds. Exit codes are decimal.
	In []string `json:"in,omitempty"`
	// NotIn are the values with which it doesn't hold.
	NotIn []string `json:"notIn,omitempty"`
}

// Holds reports whether the condition holds. IsKnown means that the step has such a value: a skipped step has no exit code, and a step may have
// no output of the key. Without a value, a condition with In doesn't hold, and one with NotIn does if it is about an output.
func (c Condition) Holds(value string, isKnown bool) bool {
	switch {
	case !isKnown:
		return len(c.In) == 0 && c.Of == OfOutput
	case len(c.In) > 0:
		return slices.Contains(c.In, value)
	}
	return !slices.Contains(c.NotIn, value)
}

// String returns the condition as AgentFlags.When has it, in JSON.
func (c Condition) String() string {
	text := `{"step":` + quote(c.Step) + `,"number":` + strconv.Itoa(c.Number) + `,"of":` + quote(c.Of)
	if c.Output != "" {
		text += `,"output":` + quote(c.Output)
	}
	if len(c.In) > 0 {
		text += `,"in":` + quoteAll(c.In)
	}
	if len(c.NotIn) > 0 {
		text += `,"notIn":` + quoteAll(c.NotIn)
	}
	return text + "}"
}

// ParseCondition parses what String returns.
func ParseCondition(text string) (Condition, error) {
	fields, rest := members(text)
	number, err := strconv.Atoi(fields["number"])
	c := Condition{
		Step: unquote(fields["step"]), Number: number, Of: unquote(fields["of"]), Output: unquote(fields["output"]),
		In: unquoteAll(fields["in"]), NotIn: unquoteAll(fields["notIn"]),
	}
	if err != nil || number < 1 || rest != "}" || !slices.Contains([]string{OfState, OfExitCode, OfOutput}, c.Of) {
		return Condition{}, errors.New(strconv.Quote(text) + " is no condition")
	}
	return c, nil
}

// Input is an environment variable of a command with an output of an earlier step.
type Input struct {
	// Name is the name of the variable.
	Name string `json:"name"`
	// Step is the name of the step with the output.
	Step string `json:"step"`
	// Number is its number. Only AgentFlags.Inputs has it.
	Number int `json:"number,omitempty"`
	// Output is the key of the output.
	Output string `json:"output"`
	// Default is the value if there is no such output. nil: the command does not run, and the step fails.
	Default *string `json:"default,omitempty"`
}

// String returns the input as AgentFlags.Inputs has it, in JSON.
func (i Input) String() string {
	text := `{"name":` + quote(i.Name) + `,"step":` + quote(i.Step) + `,"number":` + strconv.Itoa(i.Number) + `,"output":` + quote(i.Output)
	if i.Default != nil {
		text += `,"default":` + quote(*i.Default)
	}
	return text + "}"
}

// ParseInput parses what String returns.
func ParseInput(text string) (Input, error) {
	fields, rest := members(text)
	number, err := strconv.Atoi(fields["number"])
	i := Input{Name: unquote(fields["name"]), Step: unquote(fields["step"]), Number: number, Output: unquote(fields["output"])}
	if value, ok := fields["default"]; ok {
		value = unquote(value)
		i.Default = &value
	}
	if err != nil || number < 1 || rest != "}" || i.Name == "" || i.Output == "" {
		return Input{}, errors.New(strconv.Quote(text) + " is no input")
	}
	return i, nil
}
