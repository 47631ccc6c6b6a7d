package entrypoint_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
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

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestMain keeps the tests on this machine: requests for other hosts than 127.0.0.1 and 0.0.0.0 go to a proxy that does not exist.
func TestMain(m *testing.M) {
	for variable, value := range map[string]string{
		"HTTP_PROXY":  "http://" + deadHost,
		"HTTPS_PROXY": "http://" + deadHost,
		"NO_PROXY":    "127.0.0.1,0.0.0.0",
	} {
		if err := os.Setenv(variable, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// deadHost is an address at which nothing listens. A port that the kernel assigned and released could become another test's.
const deadHost = "127.0.0.1:1"

// marker is part of every text of a registry, and must never be part of an error.
const marker = "the registry's own words"

// patience bounds how long a test waits for an event. A test that passes never waits that long.
const patience = time.Minute

var (
	app   = v1.Config{Entrypoint: []string{"/app", "run"}, Cmd: []string{"--help"}}
	other = v1.Config{Entrypoint: []string{"/other"}}

	appCommand = entrypoint.Command{Entrypoint: []string{"/app", "run"}, Cmd: []string{"--help"}}
)

// outcome is the result of a Resolve.
type outcome struct {
	Command   entrypoint.Command
	Sentence  string
	Permanent bool
}

// newResolver may connect to this machine, and without TLS to the registries of the tests, unless the options say otherwise.
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

// resolve also checks what holds for all errors: they name the image, and never repeat the registry.
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

// unresolved is the error for an image whose registry fails for this reason. HOST in why stands for the registry, and is put first if
// missing.
func unresolved(image, host, why string) string {
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

// unreachable is said of every registry that cannot be asked, so that it does not reveal which hosts and ports exist.
const unreachable = "is unreachable, is not trusted, or does not answer in time"

const setCommand = "set command, or add the image to images.commands in the operator's configuration"

// served are the addresses of the registries of all tests.
var served sync.Map

// newRegistry returns an empty registry.
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

// notLocal rewrites an address so that it does not count as local, but reaches this machine: net.Dial treats 0.0.0.0 as the local system.
func notLocal(address string) string {
	return strings.Replace(address, "127.0.0.1", "0.0.0.0", 1)
}

// status answers as a registry does that refuses.
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

// hang answers nothing until the client leaves.
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

// dockerImage returns an image in Docker's format, without layers. An empty platform is left out.
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

// entry is an image in an index, which states the platform unless it is empty.
type entry struct {
	platform string
	image    v1.Image
}

func indexOf(entries ...entry) v1.ImageIndex {
	var addenda []mutate.IndexAddendum
	for _, entry := range entries {
		addendum := mutate.IndexAddendum{Add: entry.image}
		if entry.platform != "" {
			addendum.Platform, _ = v1.ParsePlatform(entry.platform) // dockerImage has parsed it
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

// manyIndexes returns an index of empty indexes.
func manyIndexes(many int) v1.ImageIndex {
	addenda := slices.Repeat([]mutate.IndexAddendum{{Add: empty.Index}}, many)
	return mutate.AppendManifests(empty.Index, addenda...)
}

// toTag replaces characters that a tag must not contain.
func toTag(character rune) rune {
	switch {
	case character >= 'a' && character <= 'z', character >= 'A' && character <= 'Z':
		return character
	}
	return '-'
}
