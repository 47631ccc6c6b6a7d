package entrypoint_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// serveAt serves at a given loopback address.
func serveAt(t *testing.T, address string, handler http.Handler) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	_, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestBlockedAddress proves that an image cannot make the operator connect to an address of its own machine: not by its name, in numbers or
// by DNS, not by a redirect, and not by the registry's token service. Nothing arrives there. 127.0.0.2, the one allowed address, stands for
// the outside.
func TestBlockedAddress(t *testing.T) {
	var arrived atomic.Int32
	port := serveAt(t, "127.0.0.1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Add(1)
		content("application/json", `{"token": "stolen"}`)(w, nil)
	}))
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	outside := func(answer func(http.ResponseWriter, *http.Request) bool) string {
		return "127.0.0.2:" + serveAt(t, "127.0.0.2", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !answer(w, r) {
				behind.ServeHTTP(w, r)
			}
		}))
	}
	redirect := func(part, to string) string {
		return outside(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			http.Redirect(w, r, "http://"+to+":"+port+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		})
	}
	realm := func(to string) string {
		return outside(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s:%s/token",service="x"`, to, port))
			status(http.StatusUnauthorized)(w, r)
			return true
		})
	}
	hosts := map[string]string{
		"number":                           "127.0.0.1:" + port,
		"name":                             "localhost:" + port,
		"redirect of a manifest to number": redirect("/manifests/", "127.0.0.1"),
		"redirect of a manifest to name":   redirect("/manifests/", "localhost"),
		"redirect of a config to name":     redirect("/blobs/", "localhost"),
		"redirect of the ping":             redirect("/v2/", "localhost"),
		"tokens at a name":                 realm("localhost"),
	}
	plain := []string{"127.0.0.1:" + port, "localhost:" + port}
	for _, host := range hosts {
		plain = append(plain, host)
	}
	for name, host := range hosts {
		t.Run(name, func(t *testing.T) {
			image := host + "/app:v1"
			want := outcome{Sentence: unresolved(image, host, "has a loopback, link-local or metadata address")}
			resolver := newResolver(t, entrypoint.Options{AllowedAddresses: []string{"127.0.0.2"}, PlainHTTP: plain})
			if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
			if n := arrived.Swap(0); n > 0 {
				t.Errorf("%d requests have arrived", n)
			}
		})
	}
}

// TestTokensElsewhere proves the error if a registry's token service is at another private address, even an allowed one, or has no TLS. No
// credential arrives there.
func TestTokensElsewhere(t *testing.T) {
	var arrived atomic.Int32
	elsewhere := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	var realm string
	challenge := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, realm))
		status(http.StatusUnauthorized)(w, r)
	})
	plain := serve(t, challenge)
	secure := httptest.NewTLSServer(challenge)
	t.Cleanup(secure.Close)
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	resolver := newResolver(t, entrypoint.Options{CABundle: string(bundle)})
	for name, c := range map[string]struct{ host, realm string }{
		"another address":      {plain, "http://" + elsewhere + "/token"},
		"another address, TLS": {plain, "https://" + elsewhere + "/token"},
		"without TLS":          {addressOf(secure), "http://auth.example.com/token"},
	} {
		realm = c.realm
		image := c.host + "/" + strings.Map(toTag, strings.ToLower(name)) + ":v1"
		want := outcome{Sentence: unresolved(image, c.host, "issues its tokens at a private address without a DNS name, or without TLS")}
		if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", name, diff)
		}
	}
	if arrived.Load() > 0 {
		t.Error("a request has arrived elsewhere")
	}
}

// TestPlainRedirect proves that a registry cannot redirect to plain HTTP, where a token could be read on the way.
func TestPlainRedirect(t *testing.T) {
	var arrived atomic.Int32
	elsewhere := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+elsewhere+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	image := host + "/app:v1"
	want := outcome{Sentence: unresolved(image, host, unreachable)}
	resolver := newResolver(t, entrypoint.Options{PlainHTTP: []string{host}})
	if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
	if arrived.Load() > 0 {
		t.Error("a request has arrived without TLS")
	}
}

// TestRedirects proves that a registry may redirect to its storage, and that a redirect loop ends.
func TestRedirects(t *testing.T) {
	behind := newRegistry()
	elsewhere := serve(t, behind)
	push(t, elsewhere+"/app:v1", dockerImage(t, "linux/amd64", app))
	var redirects atomic.Int32
	for name, c := range map[string]struct {
		to   string // empty for itself
		want string
		most int32
	}{
		"elsewhere": {to: elsewhere, most: 1},
		"endlessly": {want: "redirects too often", most: 6},
	} {
		t.Run(name, func(t *testing.T) {
			redirects.Store(0)
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/blobs/") {
					redirects.Add(1)
					to := c.to
					if to == "" {
						to = r.Host
					}
					http.Redirect(w, r, "http://"+to+r.URL.Path, http.StatusTemporaryRedirect)
					return
				}
				behind.ServeHTTP(w, r)
			}))
			image := host + "/app:v1"
			want := outcome{Command: appCommand}
			if c.want != "" {
				want = outcome{Sentence: unresolved(image, host, c.want)}
			}
			if diff := cmp.Diff(want, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve (-want +got):\n%s", diff)
			}
			if redirects.Load() > c.most {
				t.Errorf("it was redirected %d times, want at most %d", redirects.Load(), c.most)
			}
		})
	}
}

// TestCABundle proves that a registry with a private CA is trusted if the configuration has the CA.
func TestCABundle(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	server := httptest.NewUnstartedServer(behind)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	resolver := newResolver(t, entrypoint.Options{CABundle: string(bundle)})
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: addressOf(server) + "/app:v1"})); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

// TestAuthorities proves that the operator trusts public CAs although its image has none. It runs itself again where the system has none.
func TestAuthorities(t *testing.T) {
	const again = "TASKFLOW_TEST_AGAIN"
	if os.Getenv(again) == "" {
		empty := t.TempDir()
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAuthorities$")
		command.Env = append(os.Environ(), again+"=1", "SSL_CERT_FILE="+empty+"/none", "SSL_CERT_DIR="+empty)
		if output, err := command.CombinedOutput(); err != nil {
			t.Errorf("without the system's authorities: %v: %s", err, output)
		}
		return
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if pool.Equal(x509.NewCertPool()) {
		t.Error("there are no authorities")
	}
}
