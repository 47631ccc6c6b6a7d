package certs

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// TestWriteFile proves that the file holds the certificate and the key, for the operator's eyes only, and that nothing else is left in
// the directory, whatever was there before.
func TestWriteFile(t *testing.T) {
	cases := map[string]func(t *testing.T, dir string){
		"no directory": func(*testing.T, string) {},
		"an empty directory": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
		},
		"an older file": func(t *testing.T, dir string) {
			must(t, writeFile(dir, []byte("an older and longer certificate"), []byte("an older key")))
		},
		"an older file that anybody may read": func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, FileName), []byte("older"), 0o644))
		},
		"what was left when the operator was killed": func(t *testing.T, dir string) {
			must(t, writeFile(dir, []byte("half a"), nil))
			must(t, os.Rename(filepath.Join(dir, FileName), filepath.Join(dir, "."+FileName)))
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "cert")
			must(t, os.Mkdir(filepath.Dir(dir), 0o700))
			prepare(t, dir)
			must(t, writeFile(dir, []byte("certificate"), []byte("key")))

			content, err := os.ReadFile(filepath.Join(dir, FileName))
			must(t, err)
			if diff := cmp.Diff("certificate\nkey", string(content)); diff != "" {
				t.Errorf("the file (-want +got):\n%s", diff)
			}
			want := map[string]fs.FileMode{".": fs.ModeDir | 0o700, FileName: 0o600}
			if diff := cmp.Diff(want, modes(t, dir)); diff != "" {
				t.Errorf("the files' modes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWriteFileReplacesInOneStep proves that a reader never sees half a file: the old one stays as it is for those who have it open.
func TestWriteFileReplacesInOneStep(t *testing.T) {
	dir := t.TempDir()
	must(t, writeFile(dir, []byte("old certificate"), []byte("old key")))
	reader, err := os.Open(filepath.Join(dir, FileName))
	must(t, err)
	t.Cleanup(func() { _ = reader.Close() })

	must(t, writeFile(dir, []byte("new certificate"), []byte("new key")))
	old, err := io.ReadAll(reader)
	must(t, err)
	if diff := cmp.Diff("old certificate\nold key", string(old)); diff != "" {
		t.Errorf("the file that is open (-want +got):\n%s", diff)
	}
}

// TestWriteFileFails proves that the error comes back and the old file stays, where there is no writing.
func TestWriteFileFails(t *testing.T) {
	t.Run("the directory is a file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cert")
		must(t, os.WriteFile(dir, nil, 0o600))
		if err := writeFile(dir, []byte("certificate"), []byte("key")); err == nil {
			t.Error("writeFile gives no error")
		}
	})
	t.Run("the file can't be written", func(t *testing.T) {
		dir := t.TempDir()
		must(t, writeFile(dir, []byte("old certificate"), []byte("old key")))
		must(t, os.Mkdir(filepath.Join(dir, "."+FileName), 0o700))
		if err := writeFile(dir, []byte("new certificate"), []byte("new key")); err == nil {
			t.Error("writeFile gives no error")
		}
		content, err := os.ReadFile(filepath.Join(dir, FileName))
		must(t, err)
		if diff := cmp.Diff("old certificate\nold key", string(content)); diff != "" {
			t.Errorf("the file (-want +got):\n%s", diff)
		}
	})
}

// TestCacheOptions proves that of all Secrets the cache holds the webhook's alone: others are none of the operator's business.
func TestCacheOptions(t *testing.T) {
	options := Options{Secret: types.NamespacedName{Namespace: "taskflow-system", Name: "cert"}}.CacheOptions()
	if _, ok := options.Namespaces["taskflow-system"]; !ok || len(options.Namespaces) != 1 {
		t.Errorf("the namespaces are %v, want taskflow-system alone", options.Namespaces)
	}
	for name, want := range map[string]bool{"cert": true, "other": false, "": false} {
		if got := options.Field.Matches(fields.Set{"metadata.name": name}); got != want {
			t.Errorf("the Secret %q: cached is %t, want %t", name, got, want)
		}
	}
}

// modes are those of the directory and of all in it.
func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	must(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		all[path] = info.Mode()
		return err
	}))
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
