package agent_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The agent sits in every step of every Pod: each dependency would be paid for there, in megabytes
// and in what must be trusted. So this is the whole list; a new entry is a decision.
func TestDependencies(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"golang.org/x/sys/",
		"github.com/taskflow/taskflow-operator/agent",
		"github.com/taskflow/taskflow-operator/contract",
		"github.com/taskflow/taskflow-operator/cmd/agent",
	}

	const notStandard = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", notStandard, "../cmd/agent")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	packages := strings.Fields(string(out))
	if len(packages) == 0 {
		t.Fatal("go list names no package, not even the agent's own")
	}
	for _, path := range packages {
		if !permitted(path, allowed) {
			t.Errorf("the agent depends on %s", path)
		}
	}
}

// permitted compares whole paths, except for what ends in a slash.
func permitted(path string, allowed []string) bool {
	for _, entry := range allowed {
		if path == entry || strings.HasSuffix(entry, "/") && strings.HasPrefix(path, entry) {
			return true
		}
	}
	return false
}
