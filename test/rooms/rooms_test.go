// Package rooms holds the project's packages to their places: which of them may import which others.
package rooms_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/taskflow/taskflow-operator/"

// rooms are the directories of the product, and for each the rooms that its packages may import beside its own. A request goes down this list and
// comes back once. A new line, or a new name in a line, is a decision.
var rooms = map[string][]string{
	"api":                 {},
	"internal/sequence":   {},
	"internal/contract":   {},
	"internal/fair":       {},
	"internal/jsonpatch":  {},
	"internal/oci":        {},
	"internal/serve":      {},
	"agent":               {"internal/sequence", "internal/contract"},
	"internal/podspec":    {"api", "internal/sequence", "internal/contract", "internal/jsonpatch"},
	"internal/entrypoint": {"internal/contract", "internal/fair"},
	"certs":               {},
	"webhook":             {"api", "internal/sequence", "internal/contract", "internal/fair", "internal/jsonpatch", "internal/podspec", "internal/entrypoint"},
	"controller":          {"api", "internal/sequence", "internal/contract", "internal/fair", "internal/jsonpatch", "internal/podspec", "internal/entrypoint"},
	"cmd/agent":           {"agent"},
	"cmd/operator": {
		"api", "internal/sequence", "internal/contract", "internal/fair", "internal/serve", "internal/podspec", "internal/entrypoint",
		"certs", "webhook", "controller",
	},
}

// foreign are the modules beside the standard library that a program or package may contain, directly or not, for those that have to stay small
// or pure. An entry that ends in a slash stands for everything below it.
var foreign = map[string][]string{
	"internal/sequence": {},
	"internal/contract": {},
	"internal/fair":     {},
	// The agent is in every step of every Pod, which pays for each dependency in megabytes and in trust.
	"cmd/agent": {"golang.org/x/sys/"},
}

// clients are packages that internal/podspec must not contain, directly or not.
var clients = []string{"k8s.io/client-go/", "sigs.k8s.io/controller-runtime/"}

// pkg is a package as go list describes it.
type pkg struct {
	ImportPath    string
	Standard      bool
	Imports, Deps []string
}

// list returns the packages of the module and all that they depend on, by their import paths.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	// go test caches a result until a file that the test itself has looked at changes.
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	cmd.Dir = "../.."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	all := map[string]pkg{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// roomOf returns the room that a package of the module is in, or "".
func roomOf(path string) string {
	for room := range rooms {
		if isWithin(strings.TrimPrefix(path, module), room) {
			return room
		}
	}
	return ""
}

func isWithin(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

// TestRooms proves that each package of the product has a room, and imports only the rooms that this one may.
func TestRooms(t *testing.T) {
	seen := map[string]bool{}
	for path, p := range list(t) {
		name, isOwn := strings.CutPrefix(path, module)
		if !isOwn || isWithin(name, "test") || isWithin(name, "hack") {
			continue
		}
		room := roomOf(path)
		if room == "" {
			t.Errorf("%s is in no room: add one to the table, and say in its package doc what it is for", name)
			continue
		}
		seen[room] = true
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module) {
				continue
			}
			if other := roomOf(imported); other != room && !slices.Contains(rooms[room], other) {
				t.Errorf("%s imports %s, which %s may not", name, strings.TrimPrefix(imported, module), room)
			}
		}
	}
	for room := range rooms {
		if !seen[room] {
			t.Errorf("there is no package in %s", room)
		}
	}
}

// TestDependencies proves what small and pure packages contain, through all that they import.
func TestDependencies(t *testing.T) {
	all := list(t)
	for name, allowed := range foreign {
		for _, dep := range all[module+name].Deps {
			isAllowed := all[dep].Standard || strings.HasPrefix(dep, module) ||
				slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(dep, prefix) })
			if !isAllowed {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
	for _, dep := range all[module+"internal/podspec"].Deps {
		if slices.ContainsFunc(clients, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }) {
			t.Errorf("internal/podspec depends on %s", dep)
		}
	}
}
