package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
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
		"github.com/taskflow/taskflow-operator/internal/contract",
		"github.com/taskflow/taskflow-operator/internal/sequence",
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

// The linker drops what the agent never calls, so this looks at what it has kept: of fmt nothing, and so nothing of encoding/json and
// flag, which are built on it. They were a fifth of the agent on disk and in the memory of each step that waits.
func TestLinked(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "agent")
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", program, "../cmd/agent")
	symbols := run("go", "tool", "nm", program)
	if !strings.Contains(symbols, " main.main\n") {
		t.Fatal("nm doesn't even name main.main")
	}
	for line := range strings.Lines(symbols) {
		if strings.Contains(line, " fmt.") {
			t.Fatalf("the agent has a part of fmt: %s", line)
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
