package entrypoint_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// mostCached bounds the time of a cached look-up, without reading pull secrets. It must send no request.
const mostCached = 20 * time.Microsecond

// batch is how many look-ups are compared with mostCached at a time. The best batch counts, because other programs share the machine.
const batch = 1000

// BenchmarkCached looks up a second container with the same image, without a pull secret and with one, which is read and decoded each time.
func BenchmarkCached(b *testing.B) {
	for name, pullSecrets := range map[string][]string{"anonymous": nil, "secret": {"right"}} {
		b.Run(name, func(b *testing.B) {
			var requests atomic.Int64
			behind := newRegistry()
			push(b, serve(b, behind)+"/app:v1", dockerImage(b, "linux/amd64", app))
			host := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				behind.ServeHTTP(w, r)
			}))
			resolver := newResolver(b, entrypoint.Options{Secrets: secrets{"right": dockerConfig(host, robot, s3cret)}.read})
			request := entrypoint.Request{Namespace: "default", Image: host + "/app:v1", PullSecrets: pullSecrets}
			if _, err := resolver.Resolve(b.Context(), request); err != nil {
				b.Fatal(err)
			}
			requests.Store(0)
			best, began, n := time.Hour, time.Now(), 0
			for b.Loop() {
				if _, err := resolver.Resolve(b.Context(), request); err != nil {
					b.Fatal(err)
				}
				if n++; n%batch == 0 {
					best, began = min(best, time.Since(began)/batch), time.Now()
				}
			}
			b.ReportMetric(float64(requests.Load()), "requests")
			if pullSecrets == nil && n >= batch && best > mostCached {
				b.Errorf("a look-up takes %s in the best %d, want at most %s", best, batch, mostCached)
			}
			// An entry expires after half a minute, so a longer run asks again.
			if requests.Load() > int64(b.Elapsed()/entrypoint.DefaultTagTTL) {
				b.Errorf("the registry was asked %d times, want none", requests.Load())
			}
		})
	}
}

// BenchmarkFirst looks up one unknown image for 1,000 containers at once: it must send one request for its manifest and one for its
// configuration.
func BenchmarkFirst(b *testing.B) {
	const many = 1000
	behind := newRegistry()
	push(b, serve(b, behind)+"/app:v1", dockerImage(b, "linux/amd64", app))
	var manifests, configs atomic.Int64
	host := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodGet:
			manifests.Add(1)
		case strings.Contains(r.URL.Path, "/blobs/"):
			configs.Add(1)
		}
		behind.ServeHTTP(w, r)
	}))
	runs := int64(0)
	for b.Loop() {
		runs++
		resolveAll(b, newResolver(b, entrypoint.Options{}), entrypoint.Request{Image: host + "/app:v1"}, many)
	}
	b.ReportMetric(float64(manifests.Load())/float64(runs), "manifests/op")
	b.ReportMetric(float64(configs.Load())/float64(runs), "configs/op")
	if manifests.Load() != runs || configs.Load() != runs {
		b.Errorf("in %d runs, the registry was asked for %d manifests and %d configurations, want one of each a run", runs, manifests.Load(), configs.Load())
	}
}

func resolveAll(b *testing.B, resolver *entrypoint.Resolver, request entrypoint.Request, many int) {
	b.Helper()
	var failed atomic.Pointer[error]
	begin := make(chan struct{})
	var group sync.WaitGroup
	for range many {
		group.Go(func() {
			<-begin
			if _, err := resolver.Resolve(b.Context(), request); err != nil {
				failed.Store(&err)
			}
		})
	}
	close(begin)
	group.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
}
