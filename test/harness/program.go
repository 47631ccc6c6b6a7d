package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BuildProgram builds the main package in a directory as a static binary, and returns the binary.
func BuildProgram(dir string) ([]byte, error) {
	folder, err := os.MkdirTemp("", "program-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	binary := filepath.Join(folder, "program")
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, dir)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w: %s", dir, err, output)
	}
	return os.ReadFile(binary)
}
