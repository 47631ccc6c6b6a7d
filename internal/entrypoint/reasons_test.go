package entrypoint_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestResolveInvalidName proves that an invalid name is refused permanently.
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

// TestResolveFailure proves that each answer of a registry that is no image leads to one sentence of this program, is not permanent, and is
// not tried again at once.
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
				options.Timeout.Duration = 2 * time.Second // the requests before the silence take a part of it
			}
			image := host + "/app:v1"

			want := outcome{Sentence: unresolved(image, host, c.want)}
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

// TestResolveUnreachable proves the error for registries that cannot be asked at all.
func TestResolveUnreachable(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(newRegistry())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	plain := notLocal(serve(t, newRegistry()))

	cases := map[string]struct {
		image, host, want string
	}{
		"nothing listens": {deadHost + "/app:v1", deadHost, unreachable},
		"Docker Hub":      {"busybox", "docker.io", unreachable},
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
			want := outcome{Sentence: unresolved(c.image, c.host, c.want)}
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: c.image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

// TestResolvePlainHTTP proves that a registry that is not local is asked without TLS only if the options allow it.
func TestResolvePlainHTTP(t *testing.T) {
	local := serve(t, newRegistry())
	push(t, local+"/app:v1", dockerImage(t, "linux/amd64", app))
	host := notLocal(local)
	image := host + "/app:v1"
	refused := outcome{Sentence: unresolved(image, host, unreachable)}

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
			outcome{Sentence: unresolved(image, host, fmt.Sprintf("%s, and %s %s", unreachable, host, unreachable))},
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

// TestResolveToken proves that a registry that requires a token, as Docker Hub does, is asked with one for anonymous readers, and the error
// if it issues none.
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
				want = outcome{Sentence: unresolved(image, host, c.want)}
			}
			if diff := cmp.Diff(want, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}
