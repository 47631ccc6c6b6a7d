package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every step of every Pod has an agent, so each dependency costs memory and trust there. This is the complete list: a new entry is a decision.
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
		t.Fatal("go list names no packages")
	}
	for _, path := range packages {
		if !permitted(path, allowed) {
			t.Errorf("the agent depends on %s", path)
		}
	}
}

// The linker drops functions that the agent never calls, so this looks at the binary. It must not contain fmt, and so neither encoding/json
// nor flag, which use fmt: they were a fifth of the agent, on disk and in the memory of each step that waits.
func TestNothingOfFmtIsLinked(t *testing.T) {
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
		t.Fatal("nm does not list main.main")
	}
	for line := range strings.Lines(symbols) {
		if strings.Contains(line, " fmt.") {
			t.Fatalf("the agent contains a part of fmt: %s", line)
		}
	}
}

// permitted compares complete paths. An entry that ends in a slash allows all paths below it.
func permitted(path string, allowed []string) bool {
	for _, entry := range allowed {
		if path == entry || strings.HasSuffix(entry, "/") && strings.HasPrefix(path, entry) {
			return true
		}
	}
	return false
}
