package contract_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestParseSteps proves that white space and stray commas don't matter, because users write the annotation by hand, too.
func TestParseSteps(t *testing.T) {
	tests := map[string]struct {
		value string
		want  []string
	}{
		"one name":             {"a", []string{"a"}},
		"names in their order": {"c,a,b", []string{"c", "a", "b"}},
		"white space":          {" a ,\tb\n, c", []string{"a", "b", "c"}},
		"stray commas":         {",a,,b,", []string{"a", "b"}},
		"a name twice":         {"a,b,a", []string{"a", "b", "a"}},
		"empty":                {"", nil},
		"only commas":          {" , ,", nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, contract.ParseSteps(tc.value)); diff != "" {
				t.Errorf("ParseSteps(%q): -want +got:\n%s", tc.value, diff)
			}
		})
	}
}

// TestFormatStepsRoundTrip proves that the webhook and the controllers read back what the Task controller writes.
func TestFormatStepsRoundTrip(t *testing.T) {
	for value, names := range map[string][]string{
		"":                nil,
		"build":           {"build"},
		"build,test,push": {"build", "test", "push"},
	} {
		if diff := cmp.Diff(value, contract.FormatSteps(names)); diff != "" {
			t.Errorf("FormatSteps(%q): -want +got:\n%s", names, diff)
		}
		if diff := cmp.Diff(names, contract.ParseSteps(value)); diff != "" {
			t.Errorf("ParseSteps(%q): -want +got:\n%s", value, diff)
		}
	}
}
