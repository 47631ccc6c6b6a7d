package entrypoint_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestWhatRegistriesSayIsNotKept proves that what a registry says, however long, takes no memory after the look-up: neither what it says in
// headers, nor in tokens, nor in documents.
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
			wait.For(t, "the memory", func(context.Context) error { // the servers have some, too, for a moment
				if grown := heap() - before; grown > megabyte {
					return fmt.Errorf("20 failed look-ups have left %d KiB", grown>>10)
				}
				return nil
			})
			runtime.KeepAlive(resolver)
		})
	}
}

// heap is what is live.
func heap() int64 {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	runtime.GC()
	runtime.GC() // what finalizers have released
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// TestImageName proves that a name no registry could have isn't asked for, nor repeated.
func TestImageName(t *testing.T) {
	image := "registry.example.com/" + strings.Repeat("x/", 100_000) + "app"
	_, err := newResolver(t, entrypoint.Options{}).Resolve(t.Context(), entrypoint.Request{Image: image})
	if err == nil || len(err.Error()) > 2000 || !strings.HasSuffix(err.Error(), "has an invalid name; fix image") {
		t.Errorf("Resolve: %.2000v", err)
	}
}

// TestOneImageIsNoOutage proves that an image which its registry never sends says nothing of the others of that registry: not while it is
// looked up, not afterwards, and not once an outage is over.
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
			if diff := cmp.Diff(outcome{Sentence: unasked(slow, host, unreachable)}, resolve(t, resolver, entrypoint.Request{Image: slow})); diff != "" {
				t.Errorf("the slow one (-want +got):\n%s", diff)
			}
			// The look-up goes on for a moment after the answer: whoever asks for the same waits for its end.
			resolve(t, resolver, entrypoint.Request{Image: slow})
			got := resolve(t, resolver, entrypoint.Request{Image: host + "/app:v1", PullPolicy: corev1.PullAlways})
			if diff := cmp.Diff(outcome{Command: appCommand}, got); diff != "" {
				t.Errorf("another image (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRateLimitBehindRedirect proves that a host to which one image is redirected can't make the registry be left alone.
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
	if diff := cmp.Diff(outcome{Sentence: unasked(bad, host, "limits the request rate")}, resolve(t, resolver, entrypoint.Request{Image: bad})); diff != "" {
		t.Errorf("the redirected one (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: host + "/app:v1"})); diff != "" {
		t.Errorf("another image (-want +got):\n%s", diff)
	}
}
