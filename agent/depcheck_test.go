package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

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
