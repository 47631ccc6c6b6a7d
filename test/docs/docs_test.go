// Package docs checks what the documents promise that a program can check.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var readmes = []string{"README.md", "README.zh-CN.md"}

// The Task that the README shows is the sample that `make demo` and the tests run.
func TestREADMEShowsTheSample(t *testing.T) {
	sample := read(t, "config/samples/task.yaml")
	for _, file := range readmes {
		_, block, _ := strings.Cut(read(t, file), "```yaml\n")
		block, _, _ = strings.Cut(block, "```")
		if diff := cmp.Diff(sample, block); diff != "" {
			t.Errorf("%s (-config/samples/task.yaml +README):\n%s", file, diff)
		}
	}
}

// The two commands stand on the README's first screen, and CI runs the second.
func TestTwoCommands(t *testing.T) {
	for _, file := range readmes {
		screen := strings.Join(strings.SplitN(read(t, file), "\n", 25)[:24], "\n")
		for _, command := range []string{"make demo", "make test"} {
			if !strings.Contains(screen, "\n"+command) {
				t.Errorf("%s hasn't %q on its first screen", file, command)
			}
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(read(t, ".ci/run")), "exec make test") {
		t.Error(".ci/run doesn't end in make test")
	}
}

// Whatever a document links to inside the repository is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)\)`)
	for _, file := range append(readmes, "test/cluster/README.md", "docs/benchmarks.md", "docs/start.md") {
		for _, match := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(file), match[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, match[1], err)
			}
		}
	}
}

// Both READMEs have the same sections, tables and code.
func TestREADMEsAreInStep(t *testing.T) {
	outline := func(file string) []string {
		var lines []string
		code := false
		for line := range strings.Lines(read(t, file)) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "```"):
				code = !code
				lines = append(lines, line)
			case code: // what is after a # may be translated
				command, _, _ := strings.Cut(line, "#")
				lines = append(lines, strings.TrimSpace(command))
			case strings.HasPrefix(line, "#"):
				lines = append(lines, strings.Repeat("#", len(line)-len(strings.TrimLeft(line, "#"))))
			case strings.HasPrefix(line, "|"):
				first, _, _ := strings.Cut(line[1:], "|")
				lines = append(lines, strings.Join(regexp.MustCompile("`[^`]+`").FindAllString(first, -1), " "))
			}
		}
		return lines
	}
	if diff := cmp.Diff(outline(readmes[0]), outline(readmes[1])); diff != "" {
		t.Errorf("outlines (-%s +%s):\n%s", readmes[0], readmes[1], diff)
	}
}

// The security page names every attack that the tests make, and no other.
func TestSecurityPageNamesTheAttacks(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "test/attack/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, file := range files {
		for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllStringSubmatch(read(t, strings.TrimPrefix(file, root)), -1) {
			tests = append(tests, match[1])
		}
	}
	var named []string
	for _, match := range regexp.MustCompile("`(Test\\w+)` \\|").FindAllStringSubmatch(read(t, "docs/security.md"), -1) {
		named = append(named, match[1])
	}
	slices.Sort(tests)
	slices.Sort(named)
	if diff := cmp.Diff(tests, named); diff != "" {
		t.Errorf("-tests in test/attack +rows of docs/security.md:\n%s", diff)
	}
}
