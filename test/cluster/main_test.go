package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRepositoryRoot proves that the clone is found from any folder in it, above this command's own module, with a path without symbolic
// links: the kernel lists the mounts below that path, and `down` compares them.
func TestRepositoryRoot(t *testing.T) {
	temp, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root, linked := filepath.Join(temp, "clone"), filepath.Join(temp, "link")
	inside := filepath.Join(root, "test", "cluster", "files")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, module := range map[string]string{"": "", "test/cluster": "/test/cluster"} {
		mod := "module github.com/taskflow/taskflow-operator" + module + "\n\ngo 1.26.0\n"
		if err := os.WriteFile(filepath.Join(root, dir, "go.mod"), []byte(mod), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(root, linked); err != nil {
		t.Fatal(err)
	}

	for name, dir := range map[string]string{
		"the root":       root,
		"the command":    filepath.Join(root, "test", "cluster"),
		"deeper":         inside,
		"through a link": linked,
		"below a link":   filepath.Join(linked, "test", "cluster"),
		"no clone":       "/",
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(dir)
			got, err := repositoryRoot()
			if dir == "/" {
				if err == nil {
					t.Errorf("got %s, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(root, got); diff != "" {
				t.Errorf("root (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBypassProxy proves that the cluster is reached without a proxy, regardless of the user's settings. It keeps those settings, and a
// second call adds nothing, because `env` passes the value to other commands.
func TestBypassProxy(t *testing.T) {
	for name, test := range map[string]struct{ upper, lower, want string }{
		"none":       {"", "", "198.18.0.0/15,.svc"},
		"upper case": {"example.com,10.0.0.0/8", "", "198.18.0.0/15,.svc,example.com,10.0.0.0/8"},
		"lower case": {"", "example.com", "198.18.0.0/15,.svc,example.com"},
		"both":       {"a.example", "a.example,b.example", "198.18.0.0/15,.svc,a.example,b.example"},
		"again":      {"198.18.0.0/15,.svc,a.example", "", "198.18.0.0/15,.svc,a.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_PROXY", test.upper)
			t.Setenv("no_proxy", test.lower)
			if err := bypassProxy(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, os.Getenv("NO_PROXY")); diff != "" {
				t.Errorf("NO_PROXY (-want +got):\n%s", diff)
			}
		})
	}
}
