package contract

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Outcome is how the steps have ended by the word of the kubelet, for what an agent can't tell from the records: a step that was killed together
// with its agent leaves none. It is the value of OutcomeAnnotation.
type Outcome struct {
	// Status is what the final steps are told about the others: Succeeded, Failed or Cancelled. It is empty while they are not over.
	Status string
	// FailedStep is the name of the step because of which Status is Failed, if there is one.
	FailedStep string
	// Steps are the ends of steps, by their numbers. Steps that have not ended are left out.
	Steps map[int]End
}

// Cancelled is the Status of an Outcome if the steps were cancelled.
const Cancelled = "Cancelled"

// End is how a step has ended.
type End struct {
	// State is Succeeded, Failed or Skipped.
	State string
	// ExitCode of the command; -1 if there is none.
	ExitCode int
}

// Marshal returns the value of OutcomeAnnotation.
func (o Outcome) Marshal() string {
	steps := make(map[int]string, len(o.Steps))
	for number, end := range o.Steps {
		steps[number] = end.State + " " + strconv.Itoa(end.ExitCode)
	}
	content, err := json.Marshal(struct {
		Status     string         `json:"status,omitempty"`
		FailedStep string         `json:"failedStep,omitempty"`
		Steps      map[int]string `json:"steps,omitempty"`
	}{o.Status, o.FailedStep, steps})
	if err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return string(content)
}

// ParseOutcome parses the value of OutcomeAnnotation. It returns false for a value that is none, such as an empty one.
func ParseOutcome(value string) (Outcome, bool) {
	fields, rest := members(value)
	if rest != "}" {
		return Outcome{}, false
	}
	o := Outcome{Status: unquote(fields["status"]), FailedStep: unquote(fields["failedStep"]), Steps: map[int]End{}}
	steps, _ := members(fields["steps"])
	for number, end := range steps {
		n, err := strconv.Atoi(number)
		state, code, _ := strings.Cut(unquote(end), " ")
		exitCode, codeErr := strconv.Atoi(code)
		if err != nil || codeErr != nil {
			return Outcome{}, false
		}
		o.Steps[n] = End{State: state, ExitCode: exitCode}
	}
	return o, true
}
