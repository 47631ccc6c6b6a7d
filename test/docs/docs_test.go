// Package docs checks the promises of the documents that a program can check.
package docs

import (
	"go/ast"
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

// TestREADMEShowsTheSample proves that the Task in the README is the sample that `make demo` and the tests run.
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

// TestTwoCommands proves that both commands stand near the top of the README, and that CI runs the second one.
func TestTwoCommands(t *testing.T) {
	for _, file := range readmes {
		screen := strings.Join(strings.SplitN(read(t, file), "\n", 25)[:24], "\n")
		for _, command := range []string{"make demo", "make test"} {
			if !strings.Contains(screen, "\n"+command) {
				t.Errorf("%s doesn't have %q in its first lines", file, command)
			}
		}
	}
	if !strings.HasSuffix(strings.TrimSpace(read(t, ".ci/run")), "exec make test") {
		t.Error(".ci/run doesn't end in make test")
	}
}

// documents returns every Markdown file of the repository that git tracks or would add.
func documents(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "test/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			name, err := filepath.Rel(root, file)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, name)
		}
	}
	return files
}

// anchors returns the fragments that GitHub gives to the headings of a document.
func anchors(document string) []string {
	var all []string
	code := false
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if heading, ok := strings.CutPrefix(strings.TrimLeft(strings.TrimSpace(line), "#"), " "); ok && strings.HasPrefix(line, "#") && !code {
			all = append(all, strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(heading), ""), " ", "-"))
		}
	}
	return all
}

var punctuation = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

// TestLinks proves that every link from a document into the repository has a target: the file, and the heading if the link names one.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]+))?\)`)
	for _, file := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(read(t, file), -1) {
			target := filepath.Join(filepath.Dir(file), match[1])
			switch _, err := os.Stat(filepath.Join(root, target)); {
			case strings.Contains(match[1], "://"):
				continue
			case match[1] == "":
				target = file
			case err != nil:
				t.Errorf("%s links to %s: %v", file, match[1], err)
				continue
			}
			if match[2] != "" && !slices.Contains(anchors(read(t, target)), match[2]) {
				t.Errorf("%s links to the heading #%s, which %s doesn't have", file, match[2], target)
			}
		}
	}
}

// TestREADMEIsOneScreen proves that what doesn't fit goes to a page of docs, and that the README links to every page in its language.
func TestREADMEIsOneScreen(t *testing.T) {
	const most = 80
	for _, file := range readmes {
		text := read(t, file)
		if lines := strings.Count(text, "\n"); lines > most {
			t.Errorf("%s has %d lines, which is more than %d", file, lines, most)
		}
	}
	for _, page := range documents(t) {
		readme := readmes[0]
		if strings.HasSuffix(page, chinese) {
			readme = readmes[1]
		}
		if filepath.Dir(page) == "docs" && !strings.Contains(read(t, readme), "]("+page) {
			t.Errorf("%s doesn't link to %s", readme, page)
		}
	}
}

// chinese ends the name of a document in Chinese, whose English original ends in .md alone.
const chinese = ".zh-CN.md"

// TestTranslationsAreInStep proves that a document and its translation have the same sections, tables and code.
func TestTranslationsAreInStep(t *testing.T) {
	for _, translation := range documents(t) {
		name, ok := strings.CutSuffix(translation, chinese)
		if !ok {
			continue
		}
		if diff := cmp.Diff(outline(read(t, name+".md")), outline(read(t, translation))); diff != "" {
			t.Errorf("outlines (-%s.md +%s):\n%s", name, translation, diff)
		}
	}
}

// outline returns what a translation keeps: the levels of the headings, the code without its comments and drawings, and the code in the first
// column of each table.
func outline(document string) []string {
	var lines []string
	language, isCode := "", false
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence:
			language, isCode = fence, !isCode
			lines = append(lines, line)
		case isCode && language == "text": // a drawing has words
		case isCode:
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

// TestKeysAreDocumented proves that the page about Pods has each label and annotation of internal/contract/annotations.go.
func TestKeysAreDocumented(t *testing.T) {
	keys := regexp.MustCompile(`Group \+ "([a-z-]+)"`).FindAllStringSubmatch(read(t, "internal/contract/annotations.go"), -1)
	if len(keys) == 0 {
		t.Fatal("there are no keys")
	}
	for _, page := range []string{"docs/pods.md", "docs/pods.zh-CN.md"} {
		for _, key := range keys {
			if !strings.Contains(read(t, page), "`taskflow.practice.com/"+key[1]) {
				t.Errorf("%s doesn't name taskflow.practice.com/%s", page, key[1])
			}
		}
	}
}

// TestMetricsAreDocumented proves that the page about operation has a row for each metric.
func TestMetricsAreDocumented(t *testing.T) {
	var metrics []string
	for _, file := range sources(t, "controller", "cmd", "internal", "webhook") {
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && regexp.MustCompile(`^"taskflow_[a-z_]+"$`).MatchString(literal.Value) {
				metrics = append(metrics, strings.Trim(literal.Value, `"`))
			}
			return true
		})
	}
	if len(metrics) == 0 {
		t.Fatal("there are no metrics")
	}
	for _, page := range []string{"docs/operate.md", "docs/operate.zh-CN.md"} {
		for _, metric := range metrics {
			if !strings.Contains(read(t, page), "`"+metric+"`") {
				t.Errorf("%s has no row for %s", page, metric)
			}
		}
	}
}

// TestFlagsAreDocumented proves that the page about the agent has a row for each of its flags.
func TestFlagsAreDocumented(t *testing.T) {
	flags := regexp.MustCompile(`\{name: "(--[a-z-]+)", field:`).FindAllStringSubmatch(read(t, "internal/contract/agentflags.go"), -1)
	if len(flags) == 0 {
		t.Fatal("there are no flags")
	}
	for _, flag := range flags {
		if !regexp.MustCompile("(?m)^\\|[^|]*`" + flag[1] + "`").MatchString(read(t, "docs/agent.md")) {
			t.Errorf("docs/agent.md has no row for %s", flag[1])
		}
	}
}

// TestSecurityPageNamesTheAttacks proves that the security page names every attack that the tests make, and no other.
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

// TestPlainWords proves that the documents, the samples and the contract avoid phrases that a reader has to read twice. Each has a plain one in
// the glossary or in the Kubernetes documentation: "succeeded" for "ended well", "fix" for "mend", "users that" for "whoever".
func TestPlainWords(t *testing.T) {
	riddles := regexp.MustCompile(`(?i)\b(that of|those of|whoever|whichever|as it says|says whether|ended well|for ever|anew|mend|nobody|where there is none)\b`)
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "config/samples/*.yaml", "internal/contract/*.go", "internal/sequence/*.go"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			files = append(files, strings.TrimPrefix(file, root))
		}
	}
	for _, file := range files {
		for i, line := range strings.Split(read(t, file), "\n") {
			if match := riddles.FindString(line); match != "" {
				t.Errorf("%s:%d says %q: %s", file, i+1, match, line)
			}
		}
	}
}
