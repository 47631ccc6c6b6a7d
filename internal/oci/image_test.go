package oci_test

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// TestMain disables proxies of the environment, so that requests reach the registries of the tests.
func TestMain(m *testing.M) {
	if err := os.Setenv("NO_PROXY", "127.0.0.1,0.0.0.0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// files has one file of each kind, unsorted.
func files() []oci.File {
	return []oci.File{
		{Path: "bin/tool", Mode: 0o555, Content: []byte("#!/bin/sh\n")},
		{Path: "bin/", Mode: 0o755},
		{Path: "etc/empty", Mode: 0o640},
		{Path: "bin/su", Mode: 0o4755, Content: []byte("\x00\xff")},
		{Path: "tmp/", Mode: 0o1777},
		{Path: "bin/alias", Link: "../bin/tool"},
		{Path: strings.Repeat("long/", 60) + "näme", Mode: 0o600, Content: []byte("more than the 100 bytes of the oldest tar format")},
	}
}

// contents are the same files as the image must have them: sorted, so that a directory precedes its files.
func contents() []content {
	return []content{
		{Name: "bin/", Type: tar.TypeDir, Mode: 0o755},
		{Name: "bin/alias", Type: tar.TypeSymlink, Mode: 0o777, Link: "../bin/tool"},
		{Name: "bin/su", Type: tar.TypeReg, Mode: 0o4755, Content: "\x00\xff"},
		{Name: "bin/tool", Type: tar.TypeReg, Mode: 0o555, Content: "#!/bin/sh\n"},
		{Name: "etc/empty", Type: tar.TypeReg, Mode: 0o640},
		{
			Name: strings.Repeat("long/", 60) + "näme", Type: tar.TypeReg, Mode: 0o600,
			Content: "more than the 100 bytes of the oldest tar format",
		},
		{Name: "tmp/", Type: tar.TypeDir, Mode: 0o1777},
	}
}

type content struct {
	Name    string
	Type    byte
	Mode    int64
	Link    string
	Content string
	// UID, GID, and seconds since the epoch.
	UID, GID int
	Time     int64
}

var config = v1.Config{
	Entrypoint: []string{"/bin/tool"},
	Cmd:        []string{"--help"},
	User:       "65532:65532",
	Env:        []string{"PATH=/bin"},
	WorkingDir: "/tmp",
}

// TestImageDigest proves that the digest depends on every property of the files, the platform and the configuration, but not on the order
// of the files.
func TestImageDigest(t *testing.T) {
	platform := v1.Platform{OS: "linux", Architecture: "amd64"}
	changed := func(change func(files []oci.File)) []oci.File {
		files := files()
		change(files)
		return files
	}
	cases := map[string]struct {
		platform v1.Platform
		files    []oci.File
		config   v1.Config
		same     bool
	}{
		"same":      {platform, files(), config, true},
		"reversed":  {platform, changed(slices.Reverse), config, true},
		"sorted":    {platform, changed(func(f []oci.File) { slices.SortFunc(f, byPath) }), config, true},
		"rotated":   {platform, append(files()[3:], files()[:3]...), config, true},
		"content":   {platform, changed(func(f []oci.File) { f[0].Content = []byte("#!/bin/zsh") }), config, false},
		"mode":      {platform, changed(func(f []oci.File) { f[0].Mode = 0o755 }), config, false},
		"path":      {platform, changed(func(f []oci.File) { f[0].Path = "bin/tool2" }), config, false},
		"link":      {platform, changed(func(f []oci.File) { f[5].Link = "su" }), config, false},
		"one fewer": {platform, files()[1:], config, false},
		"config":    {platform, files(), v1.Config{User: "0"}, false},
		"platform":  {v1.Platform{OS: "linux", Architecture: "arm64"}, files(), config, false},
	}
	want := digestOf(t, newImage(t, platform, files(), config))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			given := slices.Clone(c.files)
			got := digestOf(t, newImage(t, c.platform, c.files, c.config))
			if (got == want) != c.same {
				t.Errorf("digest %s, digest of the first image %s; want the same: %t", got, want, c.same)
			}
			if diff := cmp.Diff(given, c.files); diff != "" {
				t.Errorf("the caller's files (-before +after):\n%s", diff)
			}
		})
	}
}

// TestImageInvalid proves that the error about an invalid file names it.
func TestImageInvalid(t *testing.T) {
	cases := map[string]struct {
		files []oci.File
		want  string
	}{
		"path twice": {
			[]oci.File{{Path: "a", Mode: 0o644}, {Path: "b"}, {Path: "a", Mode: 0o600}},
			"adding a: the path exists twice",
		},
		"path that tar can't hold": {[]oci.File{{Path: "a\x00b"}}, "adding a\x00b: archive/tar: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := oci.Image(oci.HostPlatform(), c.files, v1.Config{})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("Image: %v, want an error that begins with %q", err, c.want)
			}
		})
	}
}

// TestPush proves that a registry returns the files, the platform and the configuration as pushed, in OCI's format and with the same
// digest.
func TestPush(t *testing.T) {
	type result struct {
		Format, ConfigFormat types.MediaType
		Layers               []types.MediaType
		OS, Arch, Variant    string
		Config               v1.Config
		Contents             []content
	}
	cases := map[string]struct {
		platform v1.Platform
		files    []oci.File
		config   v1.Config
		want     result
	}{
		"all kinds of files": {
			platform: v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
			files:    files(),
			config:   config,
			want:     result{OS: "linux", Arch: "arm", Variant: "v7", Config: config, Contents: contents()},
		},
		"this machine's platform": {
			platform: oci.HostPlatform(),
			files:    []oci.File{{Path: "a", Mode: 0o644, Content: []byte("b")}},
			config:   v1.Config{Cmd: []string{"/a"}},
			want: result{
				OS: "linux", Arch: runtime.GOARCH, Config: v1.Config{Cmd: []string{"/a"}},
				Contents: []content{{Name: "a", Type: tar.TypeReg, Mode: 0o644, Content: "b"}},
			},
		},
		"no files": {
			platform: oci.HostPlatform(),
			want:     result{OS: "linux", Arch: runtime.GOARCH},
		},
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credentials of the environment
	host := serve(t, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ref := host + "/" + strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "") + ":v1"
			pushed := newImage(t, c.platform, c.files, c.config)
			if err := oci.Push(t.Context(), ref, pushed); err != nil {
				t.Fatal(err)
			}
			pulled := pull(t, ref)
			if diff := cmp.Diff(digestOf(t, pushed).String(), digestOf(t, pulled).String()); diff != "" {
				t.Errorf("digest (-pushed +pulled):\n%s", diff)
			}

			configFile, err := pulled.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := pulled.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			got := result{
				Format: manifest.MediaType, ConfigFormat: manifest.Config.MediaType,
				OS: configFile.OS, Arch: configFile.Architecture, Variant: configFile.Variant, Config: configFile.Config,
			}
			for _, layer := range manifest.Layers {
				got.Layers = append(got.Layers, layer.MediaType)
			}
			layers, err := pulled.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for i, layer := range layers {
				diffID, err := layer.DiffID()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(configFile.RootFS.DiffIDs[i], diffID); diff != "" {
					t.Errorf("diff ID of layer %d (-config +layer):\n%s", i, diff)
				}
				got.Contents = append(got.Contents, unpack(t, layer)...)
			}

			c.want.Format, c.want.ConfigFormat = types.OCIManifestSchema1, types.OCIConfigJSON
			c.want.Layers = []types.MediaType{types.OCILayer}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("pulled image (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPushIndex proves that each platform gets its own image under one name, and that the same images have the same index.
func TestPushIndex(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	ref := serve(t, registry.New(registry.Logger(log.New(io.Discard, "", 0)))) + "/app:v1"
	platforms := []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
	var images []v1.Image
	for _, platform := range platforms {
		images = append(images, newImage(t, platform, files(), config))
	}
	var digests []string
	for range 2 {
		index, err := oci.Index(images...)
		if err != nil {
			t.Fatal(err)
		}
		if err := oci.Push(t.Context(), ref, index); err != nil {
			t.Fatal(err)
		}
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("the same images make two indexes: %v", digests)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	for i, platform := range platforms {
		pulled, err := remote.Image(parsed, remote.WithPlatform(platform), remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(digestOf(t, images[i]), digestOf(t, pulled)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", platform, diff)
		}
	}
}

// TestPushPlainHTTP proves that a registry that is not local is used without TLS only with PlainHTTP.
func TestPushPlainHTTP(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	address := serve(t, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	// net.Dial connects to the local system for 0.0.0.0, but go-containerregistry does not take it for local.
	ref := strings.Replace(address, "127.0.0.1", "0.0.0.0", 1) + "/app:v1"
	image := newImage(t, oci.HostPlatform(), nil, v1.Config{})

	if err := oci.Push(t.Context(), ref, image); !errors.Is(err, http.ErrSchemeMismatch) {
		t.Errorf("Push: %v, want %v", err, http.ErrSchemeMismatch)
	}
	if err := oci.Push(t.Context(), ref, image, oci.PlainHTTP); err != nil {
		t.Errorf("Push with PlainHTTP: %v", err)
	}
}

// TestPushFailure proves that the error names the image.
func TestPushFailure(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	refusing := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	for name, ref := range map[string]string{"refused": refusing + "/app:v1", "invalid name": "App:v1"} {
		t.Run(name, func(t *testing.T) {
			err := oci.Push(t.Context(), ref, newImage(t, oci.HostPlatform(), nil, v1.Config{}))
			if want := "pushing " + ref + ": "; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Push: %v, want an error that begins with %q", err, want)
			}
		})
	}
}

func newImage(t *testing.T, platform v1.Platform, files []oci.File, config v1.Config) v1.Image {
	t.Helper()
	image, err := oci.Image(platform, files, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digestOf(t *testing.T, image v1.Image) v1.Hash {
	t.Helper()
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func pull(t *testing.T, ref string) v1.Image {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(parsed, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func unpack(t *testing.T, layer v1.Layer) []content {
	t.Helper()
	uncompressed, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer uncompressed.Close()
	var contents []content
	for reader := tar.NewReader(uncompressed); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return contents
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, content{
			Name: header.Name, Type: header.Typeflag, Mode: header.Mode, Link: header.Linkname, Content: string(data),
			UID: header.Uid, GID: header.Gid, Time: header.ModTime.Unix(),
		})
	}
}

func byPath(a, b oci.File) int {
	return strings.Compare(a.Path, b.Path)
}

// serve starts a server and returns its address, HOST:PORT.
func serve(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
