package contract

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// Options are the options of steps, by the steps' names. Steps without options are left out.
type Options map[string]StepOptions

// StepOptions is what a step has beyond its container. The zero value is the default.
type StepOptions struct {
	// Timeout bounds each run of the command, in nanoseconds. 0 means no bound.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Retries is how often the agent runs the command again after it failed.
	Retries int `json:"retries,omitempty"`
	// ContinueOnError releases the next step even if this step fails: onError: Continue.
	ContinueOnError bool `json:"continueOnError,omitempty"`
	// FailAtEnd releases the next step even if this step fails, and the sequence fails when it is over: onError: FailAtEnd.
	FailAtEnd bool `json:"failAtEnd,omitempty"`
	// ExitCodes are the rules for exit codes. The first one that names the code applies.
	ExitCodes []ExitCodeRule `json:"exitCodes,omitempty"`
	// DependsOn names the steps that must pass before this one runs. nil means the step before it in the list, and an empty list means none.
	DependsOn []string `json:"dependsOn,omitzero"`
	// When are the conditions of the step. All must hold.
	When []Condition `json:"when,omitempty"`
	// Inputs are environment variables with outputs of earlier steps.
	Inputs []Input `json:"inputs,omitempty"`
	// Finally makes the step a final step.
	Finally bool `json:"finally,omitempty"`
	// DefaultWorkDir is the directory in which the command runs if neither the container nor its image sets one. Empty means the root.
	DefaultWorkDir string `json:"defaultWorkDir,omitempty"`
}

// IsZero reports whether all options have their defaults.
func (o StepOptions) IsZero() bool { return reflect.ValueOf(o).IsZero() }

// Marshal returns the value of OptionsAnnotation. It is empty if no step has options.
func (o Options) Marshal() string {
	if len(o) == 0 {
		return ""
	}
	content, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings, numbers and booleans can always be encoded
	}
	return string(content)
}

// ParseOptions parses the value of OptionsAnnotation.
func ParseOptions(value string) (Options, error) {
	var o Options
	if value == "" {
		return o, nil
	}
	if err := json.Unmarshal([]byte(value), &o); err != nil {
		return nil, fmt.Errorf("%s is invalid: %w", OptionsAnnotation, err)
	}
	return o, nil
}
