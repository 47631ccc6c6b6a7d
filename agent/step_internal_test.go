//go:build linux

package agent

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Only a step that another one has waited for gives way to it: nothing else ends later than it has to.
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
		"another step waits":              {contract.AgentFlags{WaitContent: 1}, contract.Record{}, true},
		"it is the last one":              {contract.AgentFlags{WaitContent: 2}, contract.Record{}, false},
		"the controller alone releases":   {contract.AgentFlags{WaitContent: 1, ControllerOnly: true}, contract.Record{}, false},
		"it has failed":                   {contract.AgentFlags{WaitContent: 1}, contract.Record{ExitCode: 3}, false},
		"it was told to stop, and did":    {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonStopped}, false},
		"it was skipped, as the next one": {contract.AgentFlags{WaitContent: 1}, contract.Record{Reason: contract.ReasonSkipped}, false},
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
