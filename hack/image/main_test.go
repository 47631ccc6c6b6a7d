package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// root of the repository.
const root = "../.."

// TestReproducible proves that the same source makes the same images, wherever it lies, and whether there is a git repository around it or
// not. Elsewhere, the agent is compiled from nothing, with the standard library; the operator takes what has been compiled before, which would
// be minutes.
func TestReproducible(t *testing.T) {
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	copySource(t, here, elsewhere)
	t.Setenv("GOFLAGS", "-buildvcs=auto") // Go's default, whatever it is here
	for _, program := range []string{"operator", "agent"} {
		t.Run(program, func(t *testing.T) {
			digests := map[string]string{}
			for _, dir := range []string{here, elsewhere} {
				t.Chdir(dir)
				if program == "agent" && dir == elsewhere {
					t.Setenv("GOCACHE", t.TempDir())
				}
				image, err := build(t.Context(), "./cmd/"+program, oci.HostPlatform())
				if err != nil {
					t.Fatal(err)
				}
				digest, err := image.Digest()
				if err != nil {
					t.Fatal(err)
				}
				digests[dir] = digest.String()
			}
			if digests[here] != digests[elsewhere] {
				t.Errorf("two builds have made two images: %v", digests)
			}
		})
	}
}

// copySource copies what git keeps.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{".git", ".cluster", "bin", "dist"}, name) {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSBOM proves that the bill of materials of a program is that of the very program in the image, and that it names all that Go's build
// information in it names.
func TestSBOM(t *testing.T) {
	dir := t.TempDir()
	platform := oci.HostPlatform()
	command := exec.CommandContext(t.Context(), root+"/hack/sbom.sh", dir, platform.String())
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("hack/sbom.sh: %v\n%s", err, output)
	}
	for _, program := range []string{"operator", "agent"} {
		t.Run(program, func(t *testing.T) {
			file := filepath.Join(dir, program+"-linux-"+platform.Architecture)
			info, err := buildinfo.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"std " + info.GoVersion}
			for _, module := range info.Deps {
				want = append(want, module.Path+" "+module.Version)
			}
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)

			var bill struct {
				BOMFormat string
				Metadata  struct {
					Component  struct{ Name string }
					Properties []struct{ Name, Value string }
				}
				Components []struct{ Name, Version string }
			}
			content, err = os.ReadFile(file + ".cdx.json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(content, &bill); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, component := range bill.Components {
				got = append(got, component.Name+" "+component.Version)
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("modules (-build information +bill):\n%s", diff)
			}
			if len(info.Deps) == 0 || bill.BOMFormat != "CycloneDX" || bill.Metadata.Component.Name != info.Main.Path {
				t.Errorf("the bill is %s's, as %q, want %s's", bill.Metadata.Component.Name, bill.BOMFormat, info.Main.Path)
			}
			hash := slices.IndexFunc(bill.Metadata.Properties, func(p struct{ Name, Value string }) bool { return p.Name == "cdx:gomod:binary:hash:SHA-256" })
			if hash < 0 || bill.Metadata.Properties[hash].Value != hex.EncodeToString(sum[:]) {
				t.Errorf("the bill isn't of the program with the hash %x: %+v", sum, bill.Metadata.Properties)
			}
		})
	}
}
