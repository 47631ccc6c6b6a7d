package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBuildKey proves that binaries are built again if anything that they are built from changes: a file's name or content, a flag, a
// package or a name. Clones share them, in every location.
func TestBuildKey(t *testing.T) {
	files := map[string]string{"go.mod": "module a\n", "go.sum": "", "main.go": "package main\n"}
	base := build{name: "a", packages: []string{".", "./b"}, ldflags: "-X a=b", links: []string{"x", "y"}}
	key := func(t *testing.T, files map[string]string, b build) string {
		t.Helper()
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		key, err := buildKey(dir, b)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	with := func(name, content string) map[string]string {
		other := map[string]string{name: content}
		for name, content := range files {
			if _, ok := other[name]; !ok {
				other[name] = content
			}
		}
		return other
	}

	same := key(t, files, base)
	if diff := cmp.Diff(same, key(t, files, base)); diff != "" {
		t.Errorf("key in another folder (-want +got):\n%s", diff)
	}
	keys := map[string]string{same: "nothing changed"}
	for name, test := range map[string]struct {
		files map[string]string
		build build
	}{
		"another content":      {with("go.sum", "x"), base},
		"one more file":        {with("more.go", ""), base},
		"a file in a file":     {map[string]string{"go.mod": "module a\ngo.sum\n", "main.go": "package main\n"}, base},
		"another package":      {files, build{"a", []string{".", "./c"}, "-X a=b", []string{"x", "y"}}},
		"one package less":     {files, build{"a", []string{"."}, "-X a=b", []string{"x", "y"}}},
		"another linker flag":  {files, build{"a", []string{".", "./b"}, "-X a=c", []string{"x", "y"}}},
		"another name":         {files, build{"a", []string{".", "./b"}, "-X a=b", []string{"x", "z"}}},
		"no more of the names": {files, build{"a", []string{".", "./b"}, "-X a=b", nil}},
	} {
		t.Run(name, func(t *testing.T) {
			got := key(t, test.files, test.build)
			if other, used := keys[got]; used {
				t.Errorf("the key equals the key of %q", other)
			}
			keys[got] = name
		})
	}
}

// TestVersions proves that the Kubernetes binaries report the version that they are built from, and that their module has all parts of
// Kubernetes at that version.
func TestVersions(t *testing.T) {
	mod, err := os.ReadFile("build/kubernetes/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\tk8s.io/kubernetes " + kubernetesVersion + "\n"; !strings.Contains(string(mod), want) {
		t.Errorf("build/kubernetes/go.mod doesn't require %q", want)
	}
	parts := regexp.MustCompile(`^v1\.([0-9]+)\.([0-9]+)$`).FindStringSubmatch(kubernetesVersion)
	if parts == nil {
		t.Fatalf("%s isn't a version of Kubernetes", kubernetesVersion)
	}
	if want := "version.gitMinor=" + parts[1]; !strings.Contains(kubernetesBuild.ldflags, want) {
		t.Errorf("the flags %q don't set %s", kubernetesBuild.ldflags, want)
	}
	staging := regexp.MustCompile(`(?m)^\t(k8s\.io/\S+) => (\S+) (\S+)$`).FindAllStringSubmatch(string(mod), -1)
	if len(staging) < 30 {
		t.Errorf("build/kubernetes/go.mod replaces %d modules, want all of Kubernetes' staging modules", len(staging))
	}
	for _, replace := range staging {
		if want := "v0." + parts[1] + "." + parts[2]; replace[1] != replace[2] || replace[3] != want {
			t.Errorf("got %q, want the same module at %s", strings.TrimSpace(replace[0]), want)
		}
	}
}

// TestLink proves that the one binary of a folder gets its other names as links that stay valid when the folder is moved.
func TestLink(t *testing.T) {
	old, moved := filepath.Join(t.TempDir(), "old"), filepath.Join(t.TempDir(), "new")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(old, "kubernetes"), []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := link(old, []string{"kubelet", "kubectl"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, moved); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes", "kubelet", "kubectl"} {
		got, err := os.ReadFile(filepath.Join(moved, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("binary", string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
