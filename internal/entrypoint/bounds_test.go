package entrypoint_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestWhatRegistriesSayIsNotKept proves that nothing of a registry's answer, however long, stays in memory after the look-up: no header,
// token or document.
func TestWhatRegistriesSayIsNotKept(t *testing.T) {
	const megabyte = 1 << 20
	challenge := func(format string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", strings.ReplaceAll(format, "HOST", r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	long := "/" + strings.Repeat("x", 9*megabyte)
	for name, answer := range map[string]http.HandlerFunc{
		"challenge":              challenge(`Bearer service="` + long + `"`),
		"challenge below bounds": challenge(`Bearer service="` + long[:60<<10] + `"`),
		"location": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", long)
			w.WriteHeader(http.StatusFound)
		},
		"digest": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Docker-Content-Digest", long) },
		"token": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				fmt.Fprintf(w, `{"token": %q}`, long[:3*megabyte])
				return
			}
			challenge(`Bearer realm="http://HOST/token"`)(w, r)
		},
		"media type": content("application/vnd.oci.image.index.v1+json", `{"manifests": [{"mediaType": "`+long[:3*megabyte]+`"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			host := serve(t, answer)
			resolver := newResolver(t, entrypoint.Options{FailureTTL: metav1.Duration{Duration: time.Minute}})
			before := heap()
			for i := range 20 {
				if got := resolve(t, resolver, entrypoint.Request{Image: fmt.Sprintf("%s/app:v%d", host, i)}); got.Sentence == "" || len(got.Sentence) > 1000 {
					t.Errorf("the error has %d bytes: %.1000s", len(got.Sentence), got.Sentence)
				}
			}
			wait.For(t, "the memory", func(context.Context) error { // the servers need some, too, for a moment
				if grown := heap() - before; grown > megabyte {
					return fmt.Errorf("20 failed look-ups have left %d KiB", grown>>10)
				}
				return nil
			})
			runtime.KeepAlive(resolver)
		})
	}
}

// heap returns the live bytes.
func heap() int64 {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	runtime.GC()
	runtime.GC() // frees what finalizers released
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// TestImageName proves that a name too long for any registry is neither looked up nor repeated in full.
func TestImageName(t *testing.T) {
	image := "registry.example.com/" + strings.Repeat("x/", 100_000) + "app"
	_, err := newResolver(t, entrypoint.Options{}).Resolve(t.Context(), entrypoint.Request{Image: image})
	if err == nil || len(err.Error()) > 2000 || !strings.HasSuffix(err.Error(), "has an invalid name; fix image") {
		t.Errorf("Resolve: %.2000v", err)
	}
}

// TestOneImageIsNoOutage proves that an image which its registry never sends does not affect other images of that registry: not during its
// look-up, not afterwards, and not after an outage.
func TestOneImageIsNoOutage(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	for name, hanging := range map[string]string{"manifest": "/v2/slow/manifests/", "redirected": "/redirected", "tokens": "/token"} {
		t.Run(name, func(t *testing.T) {
			var needsToken atomic.Bool
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, hanging):
					needsToken.Store(false)
					hang(w, r)
				case strings.HasPrefix(r.URL.Path, "/v2/slow/"):
					http.Redirect(w, r, "/redirected", http.StatusTemporaryRedirect)
				case r.URL.Path == "/v2/" && needsToken.Load():
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
					status(http.StatusUnauthorized)(w, r)
				default:
					behind.ServeHTTP(w, r)
				}
			}))
			needsToken.Store(hanging == "/token")
			resolver := newResolver(t, entrypoint.Options{Timeout: metav1.Duration{Duration: time.Second}})
			slow := host + "/slow:v1"
			if diff := cmp.Diff(outcome{Sentence: unresolved(slow, host, unreachable)}, resolve(t, resolver, entrypoint.Request{Image: slow})); diff != "" {
				t.Errorf("the slow one (-want +got):\n%s", diff)
			}
			// The look-up continues for a moment after the answer. Equal requests wait for its end.
			resolve(t, resolver, entrypoint.Request{Image: slow})
			got := resolve(t, resolver, entrypoint.Request{Image: host + "/app:v1", PullPolicy: corev1.PullAlways})
			if diff := cmp.Diff(outcome{Command: appCommand}, got); diff != "" {
				t.Errorf("another image (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRateLimitBehindRedirect proves that a host to which one image is redirected cannot declare the registry busy.
func TestRateLimitBehindRedirect(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	busy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "600")
		status(http.StatusTooManyRequests)(w, r)
	}))
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/bad/") {
			http.Redirect(w, r, "http://"+busy+"/", http.StatusTemporaryRedirect)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	resolver := newResolver(t, entrypoint.Options{})
	bad := host + "/bad:v1"
	if diff := cmp.Diff(outcome{Sentence: unresolved(bad, host, "limits the request rate")}, resolve(t, resolver, entrypoint.Request{Image: bad})); diff != "" {
		t.Errorf("the redirected one (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: host + "/app:v1"})); diff != "" {
		t.Errorf("another image (-want +got):\n%s", diff)
	}
}

// TestResolveEndlessConfig proves that a registry cannot fill the operator's memory: reading stops early, whatever size the manifest
// states. The registry sends one byte more than the bound, and then waits: a client that reads more never gets an answer. What the registry
// manages to send would prove nothing, because the kernel buffers up to 32 MiB (tcp_rmem in Linux 6.18).
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

			want := outcome{Sentence: unresolved(image, host, "returned more than 4 MiB")}
			if diff := cmp.Diff(want, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
			await(t, hungUp, "the end of the connection")
		})
	}
}

// TestResolveMemory proves that documents which are small but large once decoded are not decoded in full: 1 MiB of "{}," are a third of a
// million structures. More would take the race detector longer than a look-up may take, on a machine that compiles at the same time.
func TestResolveMemory(t *testing.T) {
	const (
		size   = 1 << 20
		enough = 16 << 20 // to read and serve a document of 1 MiB, temporary buffers included
		config = "application/vnd.oci.image.config.v1+json"

		unreadable = "returned content that is not an image"
	)
	many := func(one string) string { return "[" + strings.Repeat(one+",", size/len(one+",")) + one + "]" }
	sum := func(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
	tooLong := func(image string) outcome {
		return outcome{Sentence: fmt.Sprintf("image %q has a command of more than 64 KiB; %s", image, setCommand), Permanent: true}
	}
	cases := map[string]struct {
		index, manifest, config string // SUM in the manifest stands for the configuration's digest
		want                    func(image string) outcome
	}{
		"entries of an index": {
			index: `{"manifests": ` + many("{}") + `}`,
			want: func(image string) outcome {
				return outcome{Sentence: unresolved(image, strings.Split(image, "/")[0], unreadable)}
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
