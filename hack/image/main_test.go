package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// root of the repository.
const root = "../.."

// TestImages proves that each image has a static program for both architectures, of at most the documented size, and runs as a user that is not root.
// It also proves that the same source gives the same programs in any directory, with and without a git repository. (Go takes packages that it
// has compiled before from its cache. Tests of internal/oci prove that the same files give the same image.)
func TestImages(t *testing.T) {
	// As a program of its own it compresses without the race detector, which takes ten times as long.
	image := filepath.Join(t.TempDir(), "image")
	execute(t, ".", "go", "build", "-o", image, ".")
	elsewhere := t.TempDir()
	copySource(t, root, elsewhere)
	t.Setenv("GOFLAGS", "-buildvcs=auto") // Go's default, whatever it is here
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	images := strings.TrimPrefix(server.URL, "http://") + "/taskflow"
	execute(t, root, image, "--name", images, "--plain-http", "--platform", "linux/amd64,linux/arm64")
	execute(t, elsewhere, image, "--programs", "programs", "--platform", "linux/amd64,linux/arm64")

	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for program, largest := range map[string]int64{"operator": 60_000_000, "agent": 4_000_000} {
		ref, err := name.ParseReference(images+"/"+program, oci.PlainHTTP)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		var platforms []string
		for _, described := range manifest.Manifests {
			platforms = append(platforms, described.Platform.String())
			t.Run(program+" for "+described.Platform.String(), func(t *testing.T) {
				image, err := index.Image(described.Digest)
				if err != nil {
					t.Fatal(err)
				}
				content := programOf(t, image, program, largest)
				parsed, err := elf.NewFile(bytes.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if want := machines[described.Platform.Architecture]; parsed.Machine != want {
					t.Errorf("the program is for %s, want %s", parsed.Machine, want)
				}
				if slices.ContainsFunc(parsed.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
					t.Error("the program needs a linker, which isn't in the image")
				}
				again, err := os.ReadFile(filepath.Join(elsewhere, "programs", program+"-linux-"+described.Platform.Architecture))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(content, again) {
					t.Errorf("another directory gives another program, of %d bytes; this one has %d", len(again), len(content))
				}
			})
		}
		if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms); diff != "" {
			t.Errorf("platforms of %s (-want +got):\n%s", program, diff)
		}
	}
}

func execute(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, output)
	}
}

// programOf returns the only file of the image, and checks its maximum size.
func programOf(t *testing.T, image v1.Image, program string, largest int64) []byte {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Config{Entrypoint: []string{"/" + program}, User: "65532:65532"}
	if diff := cmp.Diff(want, file.Config); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	files := mutate.Extract(image)
	defer files.Close()
	reader := tar.NewReader(files)
	header, err := reader.Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Name != program || header.Mode != 0o555 || header.Size > largest {
		t.Errorf("the file is %s with mode %o and %d bytes, want %s with 555 and at most %d", header.Name, header.Mode, header.Size, program, largest)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if header, err := reader.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the image has a second file: %+v (%v)", header, err)
	}
	return content
}

// copySource copies the files that git tracks.
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

// TestSBOM proves that a bill of materials describes the program in the image, by its hash, and lists all modules of its Go build information.
func TestSBOM(t *testing.T) {
	dir := t.TempDir()
	platform := oci.HostPlatform()
	t.Setenv("PLATFORMS", platform.String())
	execute(t, ".", root+"/hack/sbom.sh", dir)
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
				t.Errorf("the bill describes %s, as %q, want %s", bill.Metadata.Component.Name, bill.BOMFormat, info.Main.Path)
			}
			hash := slices.IndexFunc(bill.Metadata.Properties, func(p struct{ Name, Value string }) bool { return p.Name == "cdx:gomod:binary:hash:SHA-256" })
			if hash < 0 || bill.Metadata.Properties[hash].Value != hex.EncodeToString(sum[:]) {
				t.Errorf("the bill does not have the hash %x of the program: %+v", sum, bill.Metadata.Properties)
			}
		})
	}
}
