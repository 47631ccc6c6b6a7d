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
	for n := 1; n <= 2; n++ {
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
		"the last step":                {contract.AgentFlags{WaitContent: 2}, contract.Record{}, false},
		"only the controller releases": {contract.AgentFlags{WaitContent: 1, ControllerOnly: true}, contract.Record{}, false},
		"failed":                       {contract.AgentFlags{WaitContent: 1}, contract.Record{ExitCode: 3}, false},
		"stopped":                      {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonStopped}, false},
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
