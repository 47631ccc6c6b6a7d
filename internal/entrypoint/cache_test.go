package entrypoint_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// recorder is a registry that records its requests, except for the ping.
type recorder struct {
	behind http.Handler
	mutex  sync.Mutex
	asked  []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if _, what, found := strings.Cut(request.URL.Path, "/app/"); found {
		r.mutex.Lock()
		kind, _, _ := strings.Cut(what, "/")
		r.asked = append(r.asked, request.Method+" "+kind)
		r.mutex.Unlock()
	}
	r.behind.ServeHTTP(w, request)
}

// requests returns the requests since the last call.
func (r *recorder) requests() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

var (
	// all is what an unknown image costs, known what a known one costs if its digest may have changed.
	all   = []string{"HEAD manifests", "GET manifests", "GET blobs"}
	known = []string{"HEAD manifests"}
)

// TestCache proves the requests of each look-up, so that registries with rate limits are not exhausted: one HEAD for a known tag, none
// within its TTL, one HEAD each time with imagePullPolicy Always. A tag that moved is noticed.
func TestCache(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	registry := &recorder{behind: newRegistry()}
	host, open := serve(t, registry), serve(t, registry.behind)
	digest := push(t, open+"/app:v1", dockerImage(t, "linux/amd64", app))
	push(t, open+"/app:latest", dockerImage(t, "linux/amd64", app))
	resolver := newResolver(t, entrypoint.Options{Clock: clock, TagTTL: metav1.Duration{Duration: time.Minute}})
	otherCommand := entrypoint.Command{Entrypoint: []string{"/other"}}

	steps := []struct {
		name   string
		before func()
		tag    string
		policy corev1.PullPolicy
		costs  []string
		want   entrypoint.Command
	}{
		{name: "first", tag: ":v1", costs: all, want: appCommand},
		{name: "again", tag: ":v1", want: appCommand},
		{name: "IfNotPresent", tag: ":v1", policy: corev1.PullIfNotPresent, want: appCommand},
		{name: "Never", tag: ":v1", policy: corev1.PullNever, want: appCommand},
		{name: "Always", tag: ":v1", policy: corev1.PullAlways, costs: known, want: appCommand},
		{name: "Always again", tag: ":v1", policy: corev1.PullAlways, costs: known, want: appCommand},
		{name: "another tag of the same digest", tag: ":latest", policy: corev1.PullIfNotPresent, costs: known, want: appCommand},
		{name: "latest is always pulled", tag: ":latest", costs: known, want: appCommand},
		{name: "and so is no tag", tag: "", costs: known, want: appCommand},
		{name: "by digest", tag: "@" + digest, costs: known, want: appCommand},
		{name: "by digest again", tag: "@" + digest, want: appCommand},
		{name: "just before it is forgotten", before: func() { clock.SetTime(clock.Now().Add(time.Minute)) }, tag: ":v1", want: appCommand},
		{name: "forgotten", before: func() { clock.SetTime(clock.Now().Add(time.Second)) }, tag: ":v1", costs: known, want: appCommand},
		{
			name: "moved, not yet seen", before: func() { push(t, open+"/app:v1", dockerImage(t, "linux/amd64", other)) },
			tag: ":v1", want: appCommand,
		},
		{name: "moved, under Always", tag: ":v1", policy: corev1.PullAlways, costs: all, want: otherCommand},
		{name: "seen now by all", tag: ":v1", want: otherCommand},
	}
	for _, step := range steps {
		if step.before != nil {
			step.before()
		}
		registry.requests()
		got := resolve(t, resolver, entrypoint.Request{Image: host + "/app" + step.tag, PullPolicy: step.policy})
		if diff := cmp.Diff(outcome{Command: step.want}, got); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", step.name, diff)
		}
		if diff := cmp.Diff(step.costs, registry.requests()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", step.name, diff)
		}
	}
}

// TestCacheSize proves that the cache is bounded: the least recently used image goes first.
func TestCacheSize(t *testing.T) {
	registry := &recorder{behind: newRegistry()}
	host, open := serve(t, registry), serve(t, registry.behind)
	for _, tag := range []string{"a", "b", "c"} {
		push(t, open+"/app:"+tag, dockerImage(t, "linux/amd64", v1.Config{Cmd: []string{tag}}))
	}
	resolver := newResolver(t, entrypoint.Options{CacheSize: 2})
	for i, step := range []struct {
		tag   string
		costs []string
	}{{"a", all}, {"b", all}, {"a", nil}, {"c", all}, {"a", nil}, {"b", all}} {
		registry.requests()
		resolve(t, resolver, entrypoint.Request{Image: host + "/app:" + step.tag})
		if diff := cmp.Diff(step.costs, registry.requests()); diff != "" {
			t.Errorf("%d: requests for %s (-want +got):\n%s", i, step.tag, diff)
		}
	}
}

// TestFailureCache proves that a failure is cached for a short time, but not with imagePullPolicy Always.
func TestFailureCache(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	registry := &recorder{behind: newRegistry()}
	host, open := serve(t, registry), serve(t, registry.behind)
	resolver := newResolver(t, entrypoint.Options{Clock: clock})
	image := host + "/app:v1"
	missing := outcome{Sentence: unresolved(image, host, "not found in HOST")}

	for _, step := range []struct {
		name   string
		before func()
		policy corev1.PullPolicy
		asked  bool
		want   outcome
	}{
		{name: "first", asked: true, want: missing},
		{name: "again", want: missing},
		{name: "Always", policy: corev1.PullAlways, asked: true, want: missing},
		{name: "there now", before: func() { push(t, open+"/app:v1", dockerImage(t, "linux/amd64", app)) }, want: missing},
		{name: "seen under Always", policy: corev1.PullAlways, asked: true, want: outcome{Command: appCommand}},
		{name: "seen later", before: func() { clock.SetTime(clock.Now().Add(6 * time.Second)) }, want: outcome{Command: appCommand}},
	} {
		if step.before != nil {
			step.before()
		}
		registry.requests()
		if diff := cmp.Diff(step.want, resolve(t, resolver, entrypoint.Request{Image: image, PullPolicy: step.policy})); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", step.name, diff)
		}
		if asked := registry.requests(); len(asked) > 0 != step.asked {
			t.Errorf("%s: the registry is asked %q", step.name, asked)
		}
	}
}

// TestHeadless proves that the look-up works with a registry that does not support HEAD, or answers it without a digest.
func TestHeadless(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	answers := map[string]http.HandlerFunc{
		"400":              status(http.StatusBadRequest),
		"404":              status(http.StatusNotFound),
		"405":              status(http.StatusMethodNotAllowed),
		"501":              status(http.StatusNotImplemented),
		"nothing":          func(http.ResponseWriter, *http.Request) {},
		"a wrong digest":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Docker-Content-Digest", "sha256:beef") },
		"no digest at all": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Docker-Content-Digest", "latest") },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					answer(w, r)
					return
				}
				behind.ServeHTTP(w, r)
			}))
			if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: host + "/app:v1"})); diff != "" {
				t.Errorf("Resolve (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOneFlight proves that concurrent look-ups of one image share one request of each kind, and that the others still get the answer if
// the first caller leaves.
func TestOneFlight(t *testing.T) {
	const many = 100
	registry := &recorder{behind: newRegistry()}
	push(t, serve(t, registry.behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	thinking, think := make(chan struct{}, 1), make(chan struct{})
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			thinking <- struct{}{}
			<-think
		}
		registry.ServeHTTP(w, r)
	}))
	resolver := newResolver(t, entrypoint.Options{})
	request := entrypoint.Request{Image: host + "/app:v1"}
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := resolver.Resolve(ctx, request)
		first <- err
	}()
	await(t, thinking, "the first request")
	var group sync.WaitGroup
	errs := make([]error, many)
	for i := range errs {
		group.Go(func() { _, errs[i] = resolver.Resolve(t.Context(), request) })
	}
	leave()
	if err := await(t, first, "the end of the first Resolve"); err != context.Canceled { //nolint:errorlint // exactly this one
		t.Errorf("the first Resolve: %v, want %v", err, context.Canceled)
	}
	close(think)
	group.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		t.Errorf("Resolve number %d: %v", i, errs[i])
	}
	if diff := cmp.Diff(all, registry.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
