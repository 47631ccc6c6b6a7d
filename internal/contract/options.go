package contract

import (
	"encoding/json"
	"fmt"
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
	// ContinueOnError releases the next step even if this step fails.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

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
