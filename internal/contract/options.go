package contract

import (
	"encoding/json"
	"fmt"
	"time"
)

// Options are the options of steps, by the steps' names; those of a step without any are left out.
type Options map[string]StepOptions

// StepOptions are what a step has beyond its container. The zero value is the default.
type StepOptions struct {
	// Timeout bounds each run of the command, in nanoseconds. 0: no bound.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Retries is how often the command is run again after it has failed.
	Retries int `json:"retries,omitempty"`
	// ContinueOnError says that the next step is released although this one has failed.
	ContinueOnError bool `json:"continueOnError,omitempty"`
}

// Marshal returns the value of OptionsAnnotation; empty where no step has an option.
func (o Options) Marshal() string {
	if len(o) == 0 {
		return ""
	}
	content, err := json.Marshal(o)
	if err != nil {
		panic(err) // there are only strings, numbers and booleans in it
	}
	return string(content)
}

// ParseOptions reads the value of OptionsAnnotation.
func ParseOptions(value string) (Options, error) {
	var o Options
	if value == "" {
		return o, nil
	}
	if err := json.Unmarshal([]byte(value), &o); err != nil {
		return nil, fmt.Errorf("%s is not what taskflow writes there: %w", OptionsAnnotation, err)
	}
	return o, nil
}
