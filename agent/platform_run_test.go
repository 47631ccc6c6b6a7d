//go:build linux

package agent_test

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A step whose image has different commands on different platforms runs the command for this machine, with the arguments, streams and exit code
// of a step.
func TestPlatformCommandOfThisMachine(t *testing.T) {
	tests := map[string]struct {
		argv []string
		args []string
		want result
	}{
		"exit code and args": {
			[]string{"/bin/sh", "-c"},
			[]string{`echo "$0 $1"; exit 42`, "a b", "$(c)"}, result{Code: 42, Stdout: "a b $(c)\n"},
		},
		"signal":    {[]string{"/bin/sh", "-c", "kill -TERM $$"}, nil, result{Code: 143}},
		"not found": {[]string{"/no/such/program"}, nil, result{Code: 127, Stderr: "agent: starting \"/no/such/program\": no such file or directory\n"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			commands := contract.PlatformCommands{
				{Platform: contract.Platform{Architecture: "another"}, Argv: []string{"/bin/false"}},
				{Platform: contract.Platform{Architecture: runtime.GOARCH}, Argv: tc.argv},
			}
			command := append([]string{filepath.Join(programs, agentName), contract.PlatformCommand, commands.Marshal()}, tc.args...)
			got := container{args: released(t, command...).Args()}.run(t)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
