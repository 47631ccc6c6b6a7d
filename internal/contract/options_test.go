package contract_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestOptionsRoundTrip proves that the webhook and the controllers read back what the Task controller writes.
func TestOptionsRoundTrip(t *testing.T) {
	tests := map[string]contract.Options{
		"no options": nil,
		"a timeout":  {"build": {Timeout: 90 * time.Second}},
		"retries":    {"build": {Retries: 3}},
		"continue":   {"build": {ContinueOnError: true}},
		"all of several steps": {
			"build": {Timeout: time.Millisecond, Retries: 1, ContinueOnError: true},
			"test":  {Timeout: 24 * time.Hour},
		},
		"a step with the default": {"build": {}},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := contract.ParseOptions(want.Marshal())
			if err != nil {
				t.Fatalf("ParseOptions(%q): %v", want.Marshal(), err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseOptions(Marshal()): -want +got:\n%s", diff)
			}
		})
	}
}

// TestOptionsForm proves that the form stays the one of Pods in flight.
func TestOptionsForm(t *testing.T) {
	tests := map[string]struct {
		options contract.Options
		want    string
	}{
		"none":         {nil, ""},
		"an empty map": {contract.Options{}, ""},
		"all, sorted by name": {
			contract.Options{"b": {Retries: 2}, "a": {Timeout: time.Second, ContinueOnError: true}},
			`{"a":{"timeout":1000000000,"continueOnError":true},"b":{"retries":2}}`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.options.Marshal()); diff != "" {
				t.Errorf("Marshal: -want +got:\n%s", diff)
			}
		})
	}
}

// TestDefaultOptions proves that a step without options has the defaults, even if no step has options.
func TestDefaultOptions(t *testing.T) {
	options, err := contract.ParseOptions("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contract.StepOptions{}, options["build"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestParseOptionsIgnoresUnknownFields proves that this release reads the options of a later one, which may have more.
func TestParseOptionsIgnoresUnknownFields(t *testing.T) {
	got, err := contract.ParseOptions(`{"build":{"retries":2,"parallel":true}}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contract.Options{"build": {Retries: 2}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestParseOptionsErrors proves that the error names the annotation and the mistake.
func TestParseOptionsErrors(t *testing.T) {
	tests := map[string]struct{ value, want string }{
		"no JSON":                    {"retries: 3", "invalid character 'r' looking for beginning of value"},
		"a list":                     {"[]", "json: cannot unmarshal array into Go value of type contract.Options"},
		"a number for a step":        {`{"build":3}`, "json: cannot unmarshal number into Go value of type contract.StepOptions"},
		"a timeout that is a string": {`{"build":{"timeout":"5m"}}`, "json: cannot unmarshal string into Go struct field StepOptions.timeout of type time.Duration"},
		"JSON that was cut":          {`{"build":{`, "unexpected end of JSON input"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := contract.ParseOptions(tc.value)
			if err == nil {
				t.Fatalf("ParseOptions(%q) = %v, want an error", tc.value, got)
			}
			if diff := cmp.Diff(contract.OptionsAnnotation+" is invalid: "+tc.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got != nil {
				t.Errorf("ParseOptions(%q) = %v with an error, want nil", tc.value, got)
			}
		})
	}
}
