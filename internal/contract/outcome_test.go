package contract_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

func TestOutcomeRoundTrip(t *testing.T) {
	tests := map[string]struct {
		outcome contract.Outcome
		want    string
	}{
		"nothing":   {contract.Outcome{}, `{}`},
		"succeeded": {contract.Outcome{Status: contract.Succeeded}, `{"status":"Succeeded"}`},
		"failed":    {contract.Outcome{Status: contract.Failed, FailedStep: "lint"}, `{"status":"Failed","failedStep":"lint"}`},
		"only ends": {
			contract.Outcome{Steps: map[int]contract.End{
				1: {State: contract.Succeeded}, 2: {State: contract.Failed, ExitCode: 137}, 10: {State: contract.Skipped, ExitCode: -1},
			}},
			`{"steps":{"1":"Succeeded 0","10":"Skipped -1","2":"Failed 137"}}`,
		},
		"all": {
			contract.Outcome{Status: contract.Cancelled, FailedStep: "a", Steps: map[int]contract.End{100: {State: contract.Failed, ExitCode: 1}}},
			`{"status":"Cancelled","failedStep":"a","steps":{"100":"Failed 1"}}`,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.outcome.Marshal()); diff != "" {
				t.Errorf("Marshal: -want +got:\n%s", diff)
			}
			if tc.outcome.Steps == nil {
				tc.outcome.Steps = map[int]contract.End{}
			}
			got, ok := contract.ParseOutcome(tc.want)
			if diff := cmp.Diff(tc.outcome, got); diff != "" || !ok {
				t.Errorf("ParseOutcome(Marshal()) is %t, -want +got:\n%s", ok, diff)
			}
		})
	}
}

func TestParseOutcomeRejects(t *testing.T) {
	for _, value := range []string{
		"", " ", "null", "[]", "Failed", `{"status":"Failed"`, `{"status":"Failed"} x`, `{"steps":{"a":"Failed 1"}}`, `{"steps":{"1":"Failed"}}`, `{"steps":{"1":"Failed x"}}`, `{"steps":{"1":7}}`,
	} {
		if got, ok := contract.ParseOutcome(value); ok || !cmp.Equal(contract.Outcome{}, got) {
			t.Errorf("ParseOutcome(%q) = %+v, %t, want nothing and false", value, got, ok)
		}
	}
}

// FuzzOutcome proves that no value of the annotation makes the agent panic, and that what it accepts is written and read alike.
func FuzzOutcome(f *testing.F) {
	f.Add(`{"status":"Failed","failedStep":"lint","steps":{"1":"Succeeded 0","2":"Failed 137"}}`)
	f.Add(`{"steps":{"1":"Skipped -1"}}`)
	f.Add(`{"status":"\u0041`)
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := contract.ParseOutcome(value)
		if !ok {
			return
		}
		once, ok := contract.ParseOutcome(got.Marshal()) // without what is not UTF-8
		twice, again := contract.ParseOutcome(once.Marshal())
		if diff := cmp.Diff(once, twice); diff != "" || !ok || !again {
			t.Errorf("ParseOutcome(%q) = %+v: -once +twice:\n%s", value, got, diff)
		}
	})
}
