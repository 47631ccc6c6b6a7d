//go:build linux

package agent

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step delays its end only if its record releases a step that waits.
func TestHasReleased(t *testing.T) {
	dir := t.TempDir()
	const steps = 3
	for n := 1; n <= steps; n++ {
		if err := os.Mkdir(contract.StepDir(dir, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		flags  contract.AgentFlags
		record contract.Record
		want   bool
	}{
		"another step waits":           {contract.AgentFlags{WaitContent: 1}, contract.Record{}, true},
		"the last step":                {contract.AgentFlags{WaitContent: steps}, contract.Record{}, false},
		"only the controller releases": {contract.AgentFlags{WaitContent: 1, ControllerOnly: true}, contract.Record{}, false},
		"failed":                       {contract.AgentFlags{WaitContent: 1}, contract.Record{ExitCode: 3}, false},
		"stopped":                      {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonStopped}, false},
		"by its own number":            {contract.AgentFlags{WaitContent: 1, Step: steps}, contract.Record{}, false},
		"its stage is elsewhere":       {contract.AgentFlags{WaitContent: steps, Step: 2}, contract.Record{}, true},
		"failed, and passes":           {contract.AgentFlags{WaitContent: 1}, contract.Record{ExitCode: 3, Passes: true}, true},
		"a condition":                  {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonWhenFalse}, true},
		"finished":                     {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonFinished}, false},
		"skipped":                      {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonSkipped}, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.flags.Run = dir
			if diff := cmp.Diff(tc.want, step{flags: tc.flags}.hasReleased(tc.record)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
