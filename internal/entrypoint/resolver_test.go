package entrypoint_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestMain keeps the tests on this machine: what isn't asked for on 127.0.0.1, or on 0.0.0.0, goes to a proxy that isn't there.
func TestMain(m *testing.M) {
	for variable, value := range map[string]string{
		"HTTP_PROXY":  "http://" + nobody,
		"HTTPS_PROXY": "http://" + nobody,
		"NO_PROXY":    "127.0.0.1,0.0.0.0",
	} {
		if err := os.Setenv(variable, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// nobody is an address at which nobody listens: one of a port that is given away by the kernel could come back as another test's.
const nobody = "127.0.0.1:1"

// marker is in all that a registry says of its own, and must never be in an error.
const marker = "the registry's own words"

// patience is how long a test waits for what is to happen. It is never waited out by a test that passes.
const patience = time.Minute

var (
	app   = v1.Config{Entrypoint: []string{"/app", "run"}, Cmd: []string{"--help"}}
	other = v1.Config{Entrypoint: []string{"/other"}}

	appCommand = entrypoint.Command{Entrypoint: []string{"/app", "run"}, Cmd: []string{"--help"}}
)

// outcome is what a Resolve gives.
type outcome struct {
	Command   entrypoint.Command
	Sentence  string
	Permanent bool
}

// TestResolve proves which command is read from all forms of images and indexes, and which of them are refused for good, in which
// words.
func TestResolve(t *testing.T) {
	const (
		notLinux = `image "IMAGE" is not built for linux; set an image that is`
		nothing  = `image "IMAGE" has neither ENTRYPOINT nor CMD; ` + setCommand
	)
	host := serve(t, newRegistry())
	unreadable := unasked("IMAGE", host, "returned content that is not an image")
	attestation := entry{"unknown/unknown", dockerImage(t, "unknown/unknown", other)}
	cases := map[string]struct {
		content      remote.Taggable
		ref          string // TAG and DIGEST stand for those of the content. Default: ":TAG".
		architecture string
		hasArgs      bool
		want         outcome
	}{
		"Docker image by tag": {
			content: dockerImage(t, "linux/amd64", app),
			want:    outcome{Command: appCommand},
		},
		"Docker image by digest": {
			content: dockerImage(t, "linux/amd64", app),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"OCI image by tag": {
			content: ociImage(t, "linux/amd64", app),
			want:    outcome{Command: appCommand},
		},
		"OCI image by digest": {
			content: ociImage(t, "linux/amd64", app),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"image by tag and digest": {
			content: ociImage(t, "linux/amd64", app),
			ref:     ":TAG@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"ENTRYPOINT": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}}),
			want:    outcome{Command: entrypoint.Command{Entrypoint: []string{"/app"}}},
		},
		"CMD": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{"sh"}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{"sh"}}},
		},
		"neither": {
			content: dockerImage(t, "linux/amd64", v1.Config{}),
			want:    outcome{Sentence: nothing, Permanent: true},
		},
		"ENTRYPOINT taken back, as containerd reads it": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{""}, Cmd: []string{"sh"}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{"sh"}}},
		},
		"ENTRYPOINT taken back, and no CMD": {
			content: dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{""}}),
			want:    outcome{Sentence: nothing, Permanent: true},
		},
		"image for another architecture, which runtimes take as it is": {
			content:      dockerImage(t, "linux/amd64", app),
			architecture: "arm64",
			want:         outcome{Command: appCommand},
		},
		"image without a platform": {
			content: dockerImage(t, "", app),
			want:    outcome{Command: appCommand},
		},
		"image for Windows": {
			content: dockerImage(t, "windows/amd64", app),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
		"image for what the registry likes": {
			content: dockerImage(t, marker, app),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},

		"Docker index of one platform": {
			content: mutate.IndexMediaType(indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}), types.DockerManifestList),
			want:    outcome{Command: appCommand},
		},
		"OCI index of one platform": {
			content: indexOf(entry{"linux/amd64", ociImage(t, "linux/amd64", app)}),
			want:    outcome{Command: appCommand},
		},
		"index by digest": {
			content: indexOf(entry{"linux/amd64", ociImage(t, "linux/amd64", app)}),
			ref:     "@DIGEST",
			want:    outcome{Command: appCommand},
		},
		"several platforms that agree": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)},
				entry{"linux/arm/v7", dockerImage(t, "linux/arm/v7", app)}),
			want: outcome{Command: appCommand},
		},
		"several platforms that differ": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", "", "/app", "run", "--help"), argv("arm64", "", "/other")}, Image: "IMAGE"}},
		},
		"several platforms that differ, the first of them wanted": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"several platforms that differ, the last of them wanted": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", other)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)}),
			architecture: "arm64",
			want:         outcome{Command: appCommand},
		},
		"several platforms that differ in CMD alone": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"a"}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"b"}})}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", "", "/app", "a"), argv("arm64", "", "/app", "b")}, Image: "IMAGE"}},
		},
		"several platforms, one of them without a command": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", app)}),
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{argv("amd64", ""), argv("arm64", "", "/app", "run", "--help")}, Image: "IMAGE"}},
		},
		"several platforms, none with a command": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{})}),
			want: outcome{Sentence: nothing, Permanent: true},
		},
		"variants of the wanted architecture that differ": {
			content: indexOf(
				entry{"linux/arm/v6", dockerImage(t, "linux/arm/v6", app)},
				entry{"linux/arm/v7", dockerImage(t, "linux/arm/v7", other)}),
			architecture: "arm",
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{
				argv("arm", "v6", "/app", "run", "--help"), argv("arm", "v7", "/other"),
			}, Image: "IMAGE"}},
		},
		"attestation beside an image": {
			content: indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}, attestation),
			want:    outcome{Command: appCommand},
		},
		"image for Windows beside one for linux": {
			content: indexOf(
				entry{"windows/amd64", dockerImage(t, "windows/amd64", other)},
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"index for Windows": {
			content: indexOf(entry{"windows/amd64", dockerImage(t, "windows/amd64", app)}, attestation),
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
		"index without the wanted architecture": {
			content:      indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}),
			architecture: "arm64",
			want: outcome{
				Sentence:  `image "IMAGE" is not built for linux/arm64; set an image that is, or change the nodeSelector on kubernetes.io/arch`,
				Permanent: true,
			},
		},
		"index that leaves the platforms to the images": {
			content: indexOf(
				entry{"", dockerImage(t, "", other)},
				entry{"", dockerImage(t, "windows/amd64", other)},
				entry{"", dockerImage(t, "linux/arm64", other)},
				entry{"", dockerImage(t, "linux/amd64", app)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"nested index": {
			content: mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: indexOf(
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)},
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)})}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"index nested too deep": {
			content: nest(indexOf(entry{"linux/amd64", dockerImage(t, "linux/amd64", app)}), 3),
			want:    outcome{Sentence: unreadable},
		},
		"more nested indexes than there are": {
			content: manyIndexes(65),
			want:    outcome{Sentence: unreadable},
		},
		"signature beside an image, without a platform": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"", mutate.ConfigMediaType(ociImage(t, "", other), "application/vnd.dev.cosign.simplesigning.v1+json")}),
			want: outcome{Command: appCommand},
		},
		"32-bit image, which a 64-bit node runs for want of another": {
			content: indexOf(
				entry{"linux/386", dockerImage(t, "linux/386", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"more platforms than there are": {
			content: indexOf(slices.Repeat([]entry{{"linux/amd64", dockerImage(t, "linux/amd64", app)}}, 65)...),
			want:    outcome{Sentence: `image "IMAGE" has more than 64 platforms; ` + setCommand, Permanent: true},
		},
		"a command of nearly 64 KiB": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 65_500)}}),
			want:    outcome{Command: entrypoint.Command{Cmd: []string{strings.Repeat("x", 65_500)}}},
		},
		"a command of words without text, which take memory, too": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: make([]string, 4<<10)}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"a command that is too long to be read": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 1<<20)}}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"an architecture that is none": {
			content: dockerImage(t, "linux/"+strings.Repeat("x", 65), app),
			want:    outcome{Sentence: unreadable},
		},
		"an architecture in an index that is none": {
			content: indexOf(entry{"linux/" + strings.Repeat("x", 65), dockerImage(t, "linux/amd64", app)}),
			want:    outcome{Sentence: unreadable},
		},
		"a variant that is none": {
			content: dockerImage(t, "linux/arm/"+strings.Repeat("x", 65), app),
			want:    outcome{Sentence: unreadable},
		},
		"index that leaves the operating system out": {
			content: mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
				Add: dockerImage(t, "linux/amd64", app), Descriptor: v1.Descriptor{Platform: &v1.Platform{Architecture: "amd64"}},
			}),
			architecture: "amd64",
			want:         outcome{Command: appCommand},
		},
		"a longer command": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("x", 64<<10), "y"}}),
			want:    outcome{Sentence: `image "IMAGE" has a command of more than 64 KiB; ` + setCommand, Permanent: true},
		},
		"neither, with args": {
			content: dockerImage(t, "linux/amd64", v1.Config{}),
			hasArgs: true,
			want:    outcome{},
		},
		"CMD, with args in its place": {
			content: dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{"sh"}}),
			hasArgs: true,
			want:    outcome{},
		},
		"several platforms that differ in CMD alone, with args in its place": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"a"}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", v1.Config{Entrypoint: []string{"/app"}, Cmd: []string{"b"}})}),
			hasArgs: true,
			want:    outcome{Command: entrypoint.Command{Entrypoint: []string{"/app"}}},
		},
		"several platforms that differ, with args": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", app)},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			hasArgs: true,
			want: outcome{Command: entrypoint.Command{Platforms: []contract.PlatformArgv{
				argv("amd64", "", "/app", "run"), argv("arm64", "", "/other"),
			}, Image: "IMAGE"}},
		},
		"several platforms that differ, in more words than fit": {
			content: indexOf(
				entry{"linux/amd64", dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{strings.Repeat("\n", 60<<10)}})},
				entry{"linux/arm64", dockerImage(t, "linux/arm64", other)}),
			want: outcome{
				Sentence: `image "IMAGE" has platform-specific commands that are too long; ` +
					`set command, or a nodeSelector on kubernetes.io/arch`,
				Permanent: true,
			},
		},
		"empty index": {
			content: empty.Index,
			want:    outcome{Sentence: notLinux, Permanent: true},
		},
	}
	resolver := newResolver(t, entrypoint.Options{})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tag := strings.Map(toTag, name)
			digest := push(t, host+"/app:"+tag, c.content)
			if c.ref == "" {
				c.ref = ":TAG"
			}
			image := host + "/app" + strings.NewReplacer("TAG", tag, "DIGEST", digest).Replace(c.ref)
			c.want.Sentence = strings.Replace(c.want.Sentence, "IMAGE", image, 1)
			c.want.Command.Image = strings.Replace(c.want.Command.Image, "IMAGE", image+"@"+digest, 1)

			if diff := cmp.Diff(c.want, resolve(t, resolver, entrypoint.Request{Image: image, Architecture: c.architecture, HasArgs: c.hasArgs})); diff != "" {
				t.Errorf("Resolve(%q, %q) (-want +got):\n%s", image, c.architecture, diff)
			}
		})
	}
}

func argv(architecture, variant string, words ...string) contract.PlatformArgv {
	return contract.PlatformArgv{Platform: contract.Platform{Architecture: architecture, Variant: variant}, Argv: words}
}

// TestResolveInvalidName proves that a name that no registry could be asked for is refused for good.
func TestResolveInvalidName(t *testing.T) {
	resolver := newResolver(t, entrypoint.Options{})
	for _, image := range []string{
		"", " busybox", "Busybox", "busybox:", "busybox:1:28", "busybox:1.28 ", "busybox@sha256:beef", "https://docker.io/busybox",
		"re gistry:5000/busybox", "$(IMAGE)",
	} {
		t.Run(image, func(t *testing.T) {
			want := outcome{Sentence: fmt.Sprintf("image %q has an invalid name; fix image", image), Permanent: true}
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}

// TestResolveFailure proves that whatever a registry does instead of serving an image ends in one sentence of ours, is not for
// good, and is not tried again at once.
func TestResolveFailure(t *testing.T) {
	const (
		ping      = "ping"
		manifests = "/manifests/"
		blobs     = "/blobs/"

		unreadable = "returned content that is not an image"
		wrong      = "serves content that does not match the digest"
	)
	cases := map[string]struct {
		stage  string
		answer http.HandlerFunc
		want   string
	}{
		"401 for the manifest": {manifests, status(http.StatusUnauthorized), "denies access without credentials"},
		"401 for the config":   {blobs, status(http.StatusUnauthorized), "denies access without credentials"},
		"403 at first":         {ping, status(http.StatusForbidden), "denies access without credentials"},
		"403 for the manifest": {manifests, status(http.StatusForbidden), "denies access without credentials"},
		"403 for the config":   {blobs, status(http.StatusForbidden), "denies access without credentials"},
		"404 at first":         {ping, status(http.StatusNotFound), "not found in HOST"},
		"404 for the manifest": {manifests, status(http.StatusNotFound), "not found in HOST"},
		"404 for the config":   {blobs, status(http.StatusNotFound), "not found in HOST"},
		"429 at first":         {ping, status(http.StatusTooManyRequests), "limits the request rate"},
		"429 for the manifest": {manifests, status(http.StatusTooManyRequests), "limits the request rate"},
		"429 for the config":   {blobs, status(http.StatusTooManyRequests), "limits the request rate"},
		"500 at first":         {ping, status(http.StatusInternalServerError), "returned status 500"},
		"500 for the manifest": {manifests, status(http.StatusInternalServerError), "returned status 500"},
		"500 for the config":   {blobs, status(http.StatusInternalServerError), "returned status 500"},
		"503 for the manifest": {manifests, status(http.StatusServiceUnavailable), "returned status 503"},

		"garbage for the manifest": {manifests, content("text/html", "<h1>"+marker+"</h1>"), unreadable},
		"garbage for an image":     {manifests, content(types.OCIManifestSchema1, marker), unreadable},
		"garbage for an index":     {manifests, content(types.OCIImageIndex, marker), unreadable},
		"garbage for the config":   {blobs, content("application/octet-stream", marker), wrong},
		"nothing for the manifest": {manifests, content(types.OCIManifestSchema1, ""), unreadable},
		"manifest of schema 1":     {manifests, content(types.DockerManifestSchema1Signed, `{"name": "`+marker+`"}`), unreadable},

		"silence at first":         {ping, hang, unreachable},
		"silence for the manifest": {manifests, hang, unreachable},
		"silence for the config":   {blobs, hang, unreachable},
		"silence after the headers": {manifests, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			w.(http.Flusher).Flush()
			if r.Method == http.MethodGet {
				hang(w, r)
			}
		}, unreachable},
	}
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.stage == ping && r.URL.Path == "/v2/" || strings.Contains(r.URL.Path, c.stage) {
					asked.Add(1)
					c.answer(w, r)
					return
				}
				behind.ServeHTTP(w, r)
			}))
			options := entrypoint.Options{Timeout: metav1.Duration{Duration: entrypoint.MaxTimeout}}
			if strings.HasPrefix(name, "silence") {
				options.Timeout.Duration = 2 * time.Second // of which the requests before the silence take a little
			}
			image := host + "/app:v1"

			want := outcome{Sentence: unasked(image, host, c.want)}
			resolver := newResolver(t, options)
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
			before := asked.Load()
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) again (-want +got):\n%s", image, diff)
			}
			if before == 0 || asked.Load() != before {
				t.Errorf("the registry was asked %d times for what fails, and %d times after it had failed", before, asked.Load()-before)
			}
		})
	}
}

// TestResolveUnreachable proves what is said of registries with which there is no speaking at all.
func TestResolveUnreachable(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(newRegistry())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	plain := notLocal(serve(t, newRegistry()))

	cases := map[string]struct {
		image, host, want string
	}{
		"nobody listens": {nobody + "/app:v1", nobody, unreachable},
		"Docker Hub":     {"busybox", "docker.io", unreachable},
		"untrusted certificate": {
			notLocal(addressOf(untrusted)) + "/app:v1", notLocal(addressOf(untrusted)), unreachable,
		},
		"untrusted certificate, plain HTTP tried too": {
			addressOf(untrusted) + "/app:v1", addressOf(untrusted), unreachable,
		},
		"plain HTTP": {plain + "/app:v1", plain, unreachable},
	}
	resolver := newResolver(t, entrypoint.Options{Timeout: metav1.Duration{Duration: entrypoint.MaxTimeout}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := outcome{Sentence: unasked(c.image, c.host, c.want)}
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: c.image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

// TestResolvePlainHTTP proves that a registry that isn't local is spoken to without TLS where the options say so, and only there.
func TestResolvePlainHTTP(t *testing.T) {
	local := serve(t, newRegistry())
	push(t, local+"/app:v1", dockerImage(t, "linux/amd64", app))
	host := notLocal(local)
	image := host + "/app:v1"
	refused := outcome{Sentence: unasked(image, host, unreachable)}

	cases := map[string]struct {
		options entrypoint.Options
		want    outcome
	}{
		"none":        {entrypoint.Options{}, refused},
		"this one":    {entrypoint.Options{PlainHTTP: []string{host}}, outcome{Command: appCommand}},
		"another one": {entrypoint.Options{PlainHTTP: []string{"0.0.0.0"}}, refused},
		"http mirror": {entrypoint.Options{Mirrors: map[string][]string{host: {"http://" + host}}}, outcome{Command: appCommand}},
		"https mirror": {
			entrypoint.Options{Mirrors: map[string][]string{host: {"https://" + host}}},
			outcome{Sentence: unasked(image, host, fmt.Sprintf("%s, and %s %s", unreachable, host, unreachable))},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, resolve(t, newResolver(t, c.options), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}

// TestResolveToken proves that a registry that wants a token, as Docker Hub does of everybody, is asked with one for anonymous
// readers, and what is said where it gives none.
func TestResolveToken(t *testing.T) {
	const (
		token = "for-everybody"

		forbidden  = "denies access without credentials"
		unreadable = "returned content that is not an image"
	)
	cases := map[string]struct {
		token http.HandlerFunc
		want  string
	}{
		"given":            {token: content("application/json", `{"token": "`+token+`"}`)},
		"given, too weak":  {content("application/json", `{"token": "weak"}`), forbidden},
		"refused with 401": {status(http.StatusUnauthorized), forbidden},
		"refused with 403": {status(http.StatusForbidden), forbidden},
		"garbage":          {content("application/json", marker), unreadable},
		"none":             {content("application/json", `{"details": "`+marker+`"}`), unreadable},
	}
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					c.token(w, r)
				case r.Header.Get("Authorization") != "Bearer "+token:
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service=%q`, r.Host, marker))
					status(http.StatusUnauthorized)(w, r)
				default:
					behind.ServeHTTP(w, r)
				}
			}))
			image := host + "/app:v1"

			want := outcome{Command: appCommand}
			if c.want != "" {
				want = outcome{Sentence: unasked(image, host, c.want)}
			}
			if diff := cmp.Diff(want, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}

// TestResolveMediaTypeWithCharset proves that an index is seen as one though the registry adds a parameter to its media type.
func TestResolveMediaTypeWithCharset(t *testing.T) {
	behind := newRegistry()
	content := indexOf(
		entry{"linux/amd64", dockerImage(t, "linux/amd64", other)},
		entry{"linux/arm64", dockerImage(t, "linux/arm64", app)})
	push(t, serve(t, behind)+"/app:v1", content)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		behind.ServeHTTP(charsetWriter{w}, r)
	}))

	got := resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: host + "/app:v1", Architecture: "arm64"})
	if diff := cmp.Diff(outcome{Command: appCommand}, got); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

type charsetWriter struct {
	http.ResponseWriter
}

func (w charsetWriter) WriteHeader(code int) {
	if mediaType := w.Header().Get("Content-Type"); mediaType != "" {
		w.Header().Set("Content-Type", mediaType+"; charset=utf-8")
	}
	w.ResponseWriter.WriteHeader(code)
}

// TestResolveEndlessConfig proves that a registry can't fill the operator's memory: reading stops early, whatever size the manifest
// promises. The registry sends one byte more than is read at most, and then nothing: whoever wants more waits in vain. What a registry
// gets rid of wouldn't tell, since the kernel alone takes up to 32 MiB of it (tcp_rmem in Linux 6.18).
func TestResolveEndlessConfig(t *testing.T) {
	const most = 4 << 20
	for name, size := range map[string]int64{"huge": 1 << 40, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			manifest := fmt.Sprintf(`{"schemaVersion": 2, "config": {"size": %d, "digest": "sha256:%064d"}}`, size, 0)
			hungUp := make(chan struct{})
			behind := newRegistry()
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/manifests/"):
					content(types.OCIManifestSchema1, manifest)(w, r)
				case strings.Contains(r.URL.Path, "/blobs/"):
					content(types.OCIConfigJSON, strings.Repeat(" ", most+1))(w, r)
					w.(http.Flusher).Flush()
					hang(w, r)
					close(hungUp)
				default:
					behind.ServeHTTP(w, r)
				}
			}))
			image := host + "/app:v1"

			want := outcome{Sentence: unasked(image, host, "returned more than 4 MiB")}
			if diff := cmp.Diff(want, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
			await(t, hungUp, "the end of the connection")
		})
	}
}

// TestResolveMemory proves that documents that are small, and would be large in memory, aren't read in full: 1 MiB of "{}," are a
// third of a million structures of whoever decodes all that could be in them. More of them would take the race detector, on a machine that
// compiles meanwhile, longer than a look-up may take.
func TestResolveMemory(t *testing.T) {
	const (
		size   = 1 << 20
		enough = 16 << 20 // to read and to serve a document of 1 MiB, buffers that are thrown away counted
		config = "application/vnd.oci.image.config.v1+json"

		unreadable = "returned content that is not an image"
	)
	many := func(one string) string { return "[" + strings.Repeat(one+",", size/len(one+",")) + one + "]" }
	sum := func(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
	tooLong := func(image string) outcome {
		return outcome{Sentence: fmt.Sprintf("image %q has a command of more than 64 KiB; %s", image, setCommand), Permanent: true}
	}
	cases := map[string]struct {
		index, manifest, config string // the manifest has the configuration's digest at SUM
		want                    func(image string) outcome
	}{
		"entries of an index": {
			index: `{"manifests": ` + many("{}") + `}`,
			want: func(image string) outcome {
				return outcome{Sentence: unasked(image, strings.Split(image, "/")[0], unreadable)}
			},
		},
		"layers of a manifest": {
			manifest: `{"config": {"digest": "SUM"}, "layers": ` + many("{}") + `}`,
			config:   `{"config": {"Entrypoint": ["/other"]}}`,
			want:     func(string) outcome { return outcome{Command: entrypoint.Command{Entrypoint: []string{"/other"}}} },
		},
		"history of a configuration": {
			manifest: `{"config": {"digest": "SUM"}}`,
			config:   `{"config": {"Entrypoint": ["/other"]}, "history": ` + many("{}") + `}`,
			want:     func(string) outcome { return outcome{Command: entrypoint.Command{Entrypoint: []string{"/other"}}} },
		},
		"words of a configuration": {
			manifest: `{"config": {"digest": "SUM"}}`,
			config:   `{"config": {"Entrypoint": ` + many(`""`) + `}}`,
			want:     tooLong,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			manifest, mediaType := strings.Replace(c.manifest, "SUM", sum(c.config), 1), types.OCIManifestSchema1
			if c.index != "" {
				manifest, mediaType = c.index, types.OCIImageIndex
			}
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/blobs/"):
					content(config, c.config)(w, r)
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Docker-Content-Digest", sum(manifest))
					content(mediaType, manifest)(w, r)
				}
			}))
			image := host + "/app:v1"
			resolver := newResolver(t, entrypoint.Options{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := resolve(t, resolver, entrypoint.Request{Image: image})
			runtime.ReadMemStats(&after)
			if diff := cmp.Diff(c.want(image), got); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > enough {
				t.Errorf("Resolve has taken %d MiB, want at most %d", allocated>>20, enough>>20)
			}
		})
	}
}

// TestResolveWrongContent proves that a digest is a promise that neither a registry nor a mirror can break.
func TestResolveWrongContent(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", other))
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before, _, found := strings.Cut(r.URL.Path, "/manifests/"); found {
			r.URL.Path = before + "/manifests/v1"
		}
		behind.ServeHTTP(w, r)
	}))
	honest := serve(t, newRegistry())
	digest := push(t, honest+"/app:v1", dockerImage(t, "linux/amd64", app))

	cases := map[string]struct {
		mirror, host string
		want         outcome
	}{
		"registry": {host: liar, want: outcome{
			Sentence: unasked(liar+"/app@"+digest, liar, "serves content that does not match the digest"),
		}},
		"mirror": {mirror: liar, host: honest, want: outcome{Command: appCommand}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var options entrypoint.Options
			if c.mirror != "" {
				options.Mirrors = map[string][]string{c.host: {"http://" + c.mirror}}
			}
			image := c.host + "/app@" + digest
			if diff := cmp.Diff(c.want, resolve(t, newResolver(t, options), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}

// TestResolveMirror proves that all spellings of an image of Docker Hub are found on its mirror, at the path that they have on
// Docker Hub, and that Docker Hub, which the tests can't reach, isn't asked then.
func TestResolveMirror(t *testing.T) {
	mirror := serve(t, newRegistry())
	digest := push(t, mirror+"/library/busybox:1.28", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/library/busybox:latest", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/devopscube/kubernetes-job-demo:latest", dockerImage(t, "linux/amd64", app))

	for _, key := range []string{"docker.io", "index.docker.io"} {
		resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{key: {"http://" + mirror + "/"}}})
		for _, image := range []string{
			"busybox:1.28",
			"library/busybox:1.28",
			"docker.io/busybox:1.28",
			"docker.io/library/busybox:1.28",
			"index.docker.io/library/busybox:1.28",
			"busybox",
			"busybox@" + digest,
			"busybox:1.28@" + digest,
			"devopscube/kubernetes-job-demo",
		} {
			t.Run(key+" "+image, func(t *testing.T) {
				if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
					t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
				}
			})
		}
	}
}

// TestResolveMirrorOfAnother proves that a mirror is asked for its own registry's images alone.
func TestResolveMirrorOfAnother(t *testing.T) {
	mirror, origin := serve(t, newRegistry()), serve(t, newRegistry())
	push(t, mirror+"/app:v1", dockerImage(t, "linux/amd64", other))
	push(t, origin+"/app:v1", dockerImage(t, "linux/amd64", app))

	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{"docker.io": {"http://" + mirror}}})
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: origin + "/app:v1"})); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

// TestResolveFallback proves that mirrors are tried in their order and the registry itself last, whatever is the matter with a
// mirror, and that an error names all of them.
func TestResolveFallback(t *testing.T) {
	origin, mirror, vacant := serve(t, newRegistry()), serve(t, newRegistry()), serve(t, newRegistry())
	push(t, origin+"/app:v1", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/app:v1", dockerImage(t, "linux/amd64", other))
	push(t, mirror+"/nothing:v1", dockerImage(t, "linux/amd64", v1.Config{}))
	otherCommand := entrypoint.Command{Entrypoint: []string{"/other"}}

	cases := map[string]struct {
		mirrors []string
		image   string
		want    outcome
	}{
		"the mirror first":           {[]string{mirror}, "app:v1", outcome{Command: otherCommand}},
		"the second mirror":          {[]string{nobody, mirror}, "app:v1", outcome{Command: otherCommand}},
		"mirror down":                {[]string{nobody}, "app:v1", outcome{Command: appCommand}},
		"mirrors down":               {[]string{nobody, nobody}, "app:v1", outcome{Command: appCommand}},
		"mirror without the image":   {[]string{vacant}, "app:v1", outcome{Command: appCommand}},
		"mirror that wants login":    {[]string{serve(t, status(http.StatusUnauthorized))}, "app:v1", outcome{Command: appCommand}},
		"mirror that fails":          {[]string{serve(t, status(http.StatusBadGateway))}, "app:v1", outcome{Command: appCommand}},
		"mirror that serves garbage": {[]string{serve(t, content("text/html", marker))}, "app:v1", outcome{Command: appCommand}},
		"mirror that never answers":  {[]string{serve(t, http.HandlerFunc(hang))}, "app:v1", outcome{Command: appCommand}},
		"nobody has it": {[]string{nobody, vacant}, "app:v2", outcome{
			Sentence: fmt.Sprintf(`image "%s/app:v2" cannot be resolved: %s is unreachable, is not trusted, or does not answer in time, `+
				`and not found in %s, and not found in %s; fix image, or set command, which is required if an earlier step pushes the image`, origin, nobody, vacant, origin),
		}},
		"a mirror's image without a command": {[]string{mirror}, "nothing:v1", outcome{
			Sentence:  fmt.Sprintf(`image "%s/nothing:v1" has neither ENTRYPOINT nor CMD; %s`, origin, setCommand),
			Permanent: true,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := entrypoint.Options{Mirrors: map[string][]string{}, Timeout: metav1.Duration{Duration: 6 * time.Second}}
			for _, mirror := range c.mirrors {
				options.Mirrors[origin] = append(options.Mirrors[origin], "http://"+mirror)
			}
			if diff := cmp.Diff(c.want, resolve(t, newResolver(t, options), entrypoint.Request{Image: origin + "/" + c.image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

// TestResolveContext proves that a caller that no longer waits gets its own context's error, at once, and that no more registries
// are asked for it.
func TestResolveContext(t *testing.T) {
	cases := map[string]struct {
		// begin gives the context, and what to do once the mirror has been asked, which is nil where it must not be.
		begin func(context.Context) (context.Context, func())
		want  error
	}{
		"cancelled before": {
			begin: func(parent context.Context) (context.Context, func()) {
				ctx, cancel := context.WithCancel(parent)
				cancel()
				return ctx, nil
			},
			want: context.Canceled,
		},
		"cancelled meanwhile": {
			begin: func(parent context.Context) (context.Context, func()) {
				return context.WithCancel(parent)
			},
			want: context.Canceled,
		},
		"deadline before": {
			begin: func(parent context.Context) (context.Context, func()) {
				ctx, cancel := context.WithTimeout(parent, -time.Second)
				cancel()
				return ctx, nil
			},
			want: context.DeadlineExceeded,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{}, 1)
			mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				hang(w, r)
			}))
			var originAsked atomic.Bool
			origin := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { originAsked.Store(true) }))
			resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{origin: {"http://" + mirror}}})
			ctx, whenAsked := c.begin(t.Context())

			result := make(chan error, 1)
			go func() {
				_, err := resolver.Resolve(ctx, entrypoint.Request{Image: origin + "/app:v1"})
				result <- err
			}()
			if whenAsked != nil {
				await(t, arrived, "the request to the mirror")
				whenAsked()
			}
			if err := await(t, result, "the end of Resolve"); !errors.Is(err, c.want) {
				t.Errorf("Resolve: %v, want %v", err, c.want)
			}
			if len(arrived) > 0 || originAsked.Load() {
				t.Errorf("the mirror was asked %d more times, the registry itself: %t; want neither", len(arrived), originAsked.Load())
			}
		})
	}
}

// TestResolveDeadline proves that a caller that is less patient than the options still hears what was the matter, before its own time is
// over.
func TestResolveDeadline(t *testing.T) {
	t.Parallel()
	host := serve(t, http.HandlerFunc(hang))
	resolver := newResolver(t, entrypoint.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), entrypoint.MaxTimeout/2) // a tenth of it is for the answer, however busy the machine is
	defer cancel()
	image := host + "/app:v1"
	_, err := resolver.Resolve(ctx, entrypoint.Request{Image: image})
	if diff := cmp.Diff(unasked(image, host, unreachable), fmt.Sprint(err)); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
	if ctx.Err() != nil {
		t.Error("the caller's own time is over")
	}
}

// TestResolveConcurrently proves, with the race detector, that one Resolver serves many.
func TestResolveConcurrently(t *testing.T) {
	host := serve(t, newRegistry())
	push(t, host+"/app:v1", dockerImage(t, "linux/amd64", app))
	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{host: {"http://" + nobody}}, Timeout: metav1.Duration{Duration: entrypoint.MaxTimeout}})
	outcomes := make([]outcome, 16)
	var group sync.WaitGroup
	for i := range outcomes {
		group.Go(func() {
			command, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: host + "/app:v1"})
			outcomes[i] = outcome{Command: command, Sentence: fmt.Sprint(err)}
		})
	}
	group.Wait()
	for i, got := range outcomes {
		if diff := cmp.Diff(outcome{Command: appCommand, Sentence: "<nil>"}, got); diff != "" {
			t.Errorf("Resolve number %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestNewMirrors proves that a mirror that wouldn't be asked as it is written is refused at the start.
func TestNewMirrors(t *testing.T) {
	const (
		base = `mirrors["docker.io"]: %q must be http://HOST[:PORT] or https://HOST[:PORT]`
		key  = `mirrors: the key %q must be HOST or HOST:PORT`
	)
	cases := map[string]struct {
		of, mirror, want string
	}{
		"host":             {"docker.io", "https://mirror.example.com", "<nil>"},
		"trailing slash":   {"docker.io", "https://mirror.example.com/", "<nil>"},
		"host and port":    {"registry.example.com:5000", "http://10.0.0.1:5000", "<nil>"},
		"IPv6":             {"docker.io", "http://[fd00::1]:5000", "<nil>"},
		"nothing":          {"docker.io", "", fmt.Sprintf(base, "")},
		"no scheme":        {"docker.io", "mirror.example.com:5000", fmt.Sprintf(base, "mirror.example.com:5000")},
		"other scheme":     {"docker.io", "ftp://mirror.example.com", fmt.Sprintf(base, "ftp://mirror.example.com")},
		"no host":          {"docker.io", "https://", fmt.Sprintf(base, "https://")},
		"port alone":       {"docker.io", "https://:5000", fmt.Sprintf(base, "https://:5000")},
		"bad port":         {"docker.io", "https://mirror:port", fmt.Sprintf(base, "https://mirror:port")},
		"path":             {"docker.io", "https://mirror/v2", fmt.Sprintf(base, "https://mirror/v2")},
		"query":            {"docker.io", "https://mirror?ns=docker.io", fmt.Sprintf(base, "https://mirror?ns=docker.io")},
		"fragment":         {"docker.io", "https://mirror#a", fmt.Sprintf(base, "https://mirror#a")},
		"login":            {"docker.io", "https://a:b@mirror", fmt.Sprintf(base, "https://a:b@mirror")},
		"of nothing":       {"", "https://mirror", fmt.Sprintf(key, "")},
		"of a URL":         {"https://docker.io", "https://mirror", fmt.Sprintf(key, "https://docker.io")},
		"of a repository":  {"docker.io/library", "https://mirror", fmt.Sprintf(key, "docker.io/library")},
		"of no valid host": {"docker io", "https://mirror", fmt.Sprintf(key, "docker io")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := entrypoint.New(entrypoint.Options{Mirrors: map[string][]string{c.of: {c.mirror}}})
			if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("New with the mirror %q of %q (-want +got):\n%s", c.mirror, c.of, diff)
			}
		})
	}
}

// newResolver may speak to this machine, and without TLS to the registries of the tests, unless the options name some.
func newResolver(t testing.TB, options entrypoint.Options) *entrypoint.Resolver {
	t.Helper()
	if options.Timeout.Duration == 0 {
		options.Timeout.Duration = entrypoint.MaxTimeout
	}
	if options.AllowedAddresses == nil {
		options.AllowedAddresses = []string{"127.0.0.0/8", "0.0.0.0"}
	}
	if options.PlainHTTP == nil {
		served.Range(func(host, _ any) bool {
			options.PlainHTTP = append(options.PlainHTTP, host.(string))
			return true
		})
	}
	resolver, err := entrypoint.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return resolver
}

// resolve also checks what is true of all errors: that they are of the image that was asked for, and in no word the registry's.
func resolve(t *testing.T, resolver *entrypoint.Resolver, request entrypoint.Request) outcome {
	t.Helper()
	image := request.Image
	command, err := resolver.Resolve(t.Context(), request)
	if err == nil {
		return outcome{Command: command}
	}
	var unknown *entrypoint.Error
	if !errors.As(err, &unknown) {
		t.Fatalf("Resolve(%q): %v, want an *entrypoint.Error", image, err)
	}
	if diff := cmp.Diff(image, unknown.Image); diff != "" {
		t.Errorf("Error.Image (-want +got):\n%s", diff)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", err, *unknown), marker) {
		t.Errorf("Resolve(%q) repeats what the registry says: %v", image, err)
	}
	return outcome{Command: command, Sentence: err.Error(), Permanent: unknown.Permanent}
}

// unasked is the sentence of an image whose registry fails.
func unasked(image, host, why string) string {
	remedy := setCommand
	for part, other := range map[string]string{
		"not found in HOST":     "fix image, or set command, which is required if an earlier step pushes the image",
		unreachable:             "fix image, or set command; the operator's log has the cause",
		"issues its tokens":     "set command, or give the registry's token service a DNS name and TLS",
		"but does not have":     "push that platform, or set command",
		"without credentials":   fmt.Sprintf("add an imagePullSecret for %s, or set command", host),
		"loopback":              "set command, or add the address to images.allowedAddresses in the operator's configuration",
		"the Pod's credentials": "fix the imagePullSecrets, or set command",
	} {
		if strings.Contains(why, part) {
			remedy = other
		}
	}
	if !strings.Contains(why, "HOST") {
		why = "HOST " + why
	}
	return fmt.Sprintf("image %q cannot be resolved: %s; %s", image, strings.Replace(why, "HOST", host, 1), remedy)
}

// unreachable is said of all registries that can't be asked, whatever the cause: which hosts and ports exist is not for everybody to know.
const unreachable = "is unreachable, is not trusted, or does not answer in time"

const setCommand = "set command, or add the image to images.commands in the operator's configuration"

// served are the addresses of the registries of all tests.
var served sync.Map

// newRegistry is a registry without images.
func newRegistry() http.Handler {
	return registry.New(registry.Logger(log.New(io.Discard, "", 0)))
}

// serve returns the address of a server, host and port.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	served.Store(addressOf(server), nil)
	return addressOf(server)
}

func addressOf(server *httptest.Server) string {
	return server.Listener.Addr().String()
}

// notLocal spells an address so that it isn't taken to be local, and is dialled all the same: net.Dial says of 0.0.0.0 that "the
// local system is assumed".
func notLocal(address string) string {
	return strings.Replace(address, "127.0.0.1", "0.0.0.0", 1)
}

// status answers as registries do when they refuse.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"errors": [{"code": "DENIED", "message": %q, "detail": %q}]}`, marker, marker)
	}
}

func content(mediaType types.MediaType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(mediaType))
		fmt.Fprint(w, body)
	}
}

// hang answers nothing for as long as the client is there.
func hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
}

func await[T any](t *testing.T, channel <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-channel:
		return value
	case <-time.After(patience):
		t.Fatalf("%s hasn't come in %s", what, patience)
		panic("unreachable")
	}
}

// push returns the digest.
func push(t testing.TB, ref string, content remote.Taggable) string {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Push(parsed, content, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := content.(interface{ Digest() (v1.Hash, error) }).Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// dockerImage is one in Docker's format, without layers. The empty platform is none.
func dockerImage(t testing.TB, platform string, config v1.Config) v1.Image {
	t.Helper()
	parsed, err := v1.ParsePlatform(platform)
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: parsed.OS, Architecture: parsed.Architecture, Variant: parsed.Variant, Config: config,
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func ociImage(t testing.TB, platform string, config v1.Config) v1.Image {
	t.Helper()
	return mutate.ConfigMediaType(mutate.MediaType(dockerImage(t, platform, config), types.OCIManifestSchema1), types.OCIConfigJSON)
}

// entry is an image in an index, which says the platform unless that is empty.
type entry struct {
	platform string
	image    v1.Image
}

func indexOf(entries ...entry) v1.ImageIndex {
	var addenda []mutate.IndexAddendum
	for _, entry := range entries {
		addendum := mutate.IndexAddendum{Add: entry.image}
		if entry.platform != "" {
			addendum.Platform, _ = v1.ParsePlatform(entry.platform) // dockerImage has parsed such
		}
		addenda = append(addenda, addendum)
	}
	return mutate.AppendManifests(empty.Index, addenda...)
}

func nest(index v1.ImageIndex, times int) v1.ImageIndex {
	for range times {
		index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	}
	return index
}

// manyIndexes is an index of indexes that have nothing in them.
func manyIndexes(many int) v1.ImageIndex {
	addenda := slices.Repeat([]mutate.IndexAddendum{{Add: empty.Index}}, many)
	return mutate.AppendManifests(empty.Index, addenda...)
}

// toTag leaves what may stand in a tag.
func toTag(character rune) rune {
	switch {
	case character >= 'a' && character <= 'z', character >= 'A' && character <= 'Z':
		return character
	}
	return '-'
}
