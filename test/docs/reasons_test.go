package docs

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reasonsOf returns the reasons that the product gives to conditions, steps, events and metrics: the constants that are named reasonX or ReasonX,
// the keys of startFailures, and the literals in events.
func reasonsOf(t *testing.T) []string {
	t.Helper()
	var reasons []string
	add := func(expression ast.Expr) {
		if literal, ok := expression.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			reasons = append(reasons, constant.StringVal(constant.MakeFromLiteral(literal.Value, token.STRING, 0)))
		}
	}
	for _, file := range sources(t, "api", "internal", "webhook", "controller", "agent") {
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ValueSpec:
				for i, name := range node.Names {
					switch {
					case i >= len(node.Values):
					case regexp.MustCompile(`^[rR]eason[A-Z]`).MatchString(name.Name):
						add(node.Values[i])
					case name.Name == "startFailures":
						for _, entry := range node.Values[i].(*ast.CompositeLit).Elts {
							add(entry.(*ast.KeyValueExpr).Key)
						}
					}
				}
			case *ast.CompositeLit:
				if kind, ok := node.Type.(*ast.Ident); !ok || kind.Name != "event" {
					return true
				}
				for i, element := range node.Elts {
					if field, ok := element.(*ast.KeyValueExpr); ok && field.Key.(*ast.Ident).Name == "reason" {
						add(field.Value)
					} else if i == 1 {
						add(element)
					}
				}
			}
			return true
		})
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}

// sources returns the Go files below directories, without tests.
func sources(t *testing.T, directories ...string) []*ast.File {
	t.Helper()
	var files []*ast.File
	for _, directory := range directories {
		err := filepath.WalkDir(filepath.Join(root, directory), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			files = append(files, file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestReasonsAreStable proves that the reasons in the code are those of testdata/reasons.txt. Scripts, alerts and podFailurePolicies match them, so
// a reason that is in a release is neither renamed nor removed.
func TestReasonsAreStable(t *testing.T) {
	if diff := cmp.Diff(strings.Fields(read(t, "test/docs/testdata/reasons.txt")), reasonsOf(t)); diff != "" {
		t.Errorf("reasons (-testdata/reasons.txt +code):\n%s", diff)
	}
}

// TestReasonsAreDocumented proves that docs/reasons.md has a row of a table for every reason, in each language.
func TestReasonsAreDocumented(t *testing.T) {
	for _, page := range []string{"docs/reasons.md", "docs/reasons.zh-CN.md"} {
		documented := map[string]bool{}
		for line := range strings.Lines(read(t, page)) {
			row, isRow := strings.CutPrefix(line, "|")
			if !isRow {
				continue
			}
			for _, match := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(row, -1) {
				documented[match[1]] = true
			}
		}
		for _, reason := range reasonsOf(t) {
			if !documented[reason] {
				t.Errorf("%s has no row for %s", page, reason)
			}
		}
	}
}
