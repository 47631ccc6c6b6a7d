package entrypoint_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// recorder notes what a registry is asked for, but for the ping.
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

// requests are those since the last call.
func (r *recorder) requests() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	asked := r.asked
	r.asked = nil
	return asked
}

var (
	// all is what an image costs that isn't known, known what one costs whose digest may have changed.
	all   = []string{"HEAD manifests", "GET manifests", "GET blobs"}
	known = []string{"HEAD manifests"}
)

// TestCache proves what each look-up costs (PEERS row 9): a tag one HEAD once it is known, nothing for a while, one HEAD each time
// under Always; and that a tag that has moved is seen.
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

// TestCacheSize proves that the cache is bounded: of more images than fit, the one that wasn't asked for the longest goes.
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

// TestFailureCache proves that a failure is the answer for a short time, and never under Always.
func TestFailureCache(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	registry := &recorder{behind: newRegistry()}
	host, open := serve(t, registry), serve(t, registry.behind)
	resolver := newResolver(t, entrypoint.Options{Clock: clock})
	image := host + "/app:v1"
	missing := outcome{Sentence: unasked(image, host, "not found in HOST")}

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

// TestRateLimit proves that a registry that wants to be left alone is left alone for as long as it says, for all of its images and
// also under Always, but not for those who have other credentials (PEERS row 9).
func TestRateLimit(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	var limited, asked bool
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = true
		_, _, authorised := r.BasicAuth()
		switch {
		case r.URL.Path == "/v2/" && !authorised:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			status(http.StatusUnauthorized)(w, r)
		case limited && !authorised:
			w.Header().Set("Retry-After", "30")
			status(http.StatusTooManyRequests)(w, r)
		default:
			behind.ServeHTTP(w, r)
		}
	}))
	resolver := newResolver(t, entrypoint.Options{Clock: clock, Secrets: secrets{"right": dockerConfig(host, robot, s3cret)}.read})
	ask := func(tag string, pullSecrets ...string) (err error) {
		asked = false
		_, err = resolver.Resolve(t.Context(), entrypoint.Request{
			Namespace: "default", Image: host + "/app:" + tag, PullPolicy: corev1.PullAlways, PullSecrets: pullSecrets,
		})
		return err
	}

	limited = true
	want := &entrypoint.Error{
		Image:      host + "/app:v1",
		Reason:     entrypoint.ReasonRateLimited,
		Cause:      fmt.Sprintf("cannot be resolved: %s limits the request rate", host),
		Remedy:     setCommand,
		RetryAfter: 30 * time.Second,
	}
	if diff := cmp.Diff(error(want), ask("v1")); diff != "" || !asked {
		t.Errorf("the first error (-want +got):\n%s", diff)
	}
	limited = false
	clock.SetTime(clock.Now().Add(30 * time.Second))
	for _, tag := range []string{"v1", "v2"} {
		if err := ask(tag); err == nil || asked {
			t.Errorf("before the time has come, the registry is asked for %s: %t, %v", tag, asked, err)
		}
	}
	if err := ask("v1", "right"); err != nil || !asked {
		t.Errorf("with credentials: asked %t, %v", asked, err)
	}
	clock.SetTime(clock.Now().Add(time.Second))
	if err := ask("v1"); err != nil || !asked {
		t.Errorf("after that time: asked %t, %v", asked, err)
	}
}

// TestRateLimitUnsaid proves that a registry that doesn't say how long is left alone for a while, and that those who wait are told no time:
// they back off more and more.
func TestRateLimitUnsaid(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	var asked atomic.Int32
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		status(http.StatusTooManyRequests)(w, r)
	}))
	resolver := newResolver(t, entrypoint.Options{Clock: clock})
	want := &entrypoint.Error{
		Image:  host + "/app:v1",
		Reason: entrypoint.ReasonRateLimited,
		Cause:  fmt.Sprintf("cannot be resolved: %s limits the request rate", host),
		Remedy: setCommand,
	}
	for _, step := range []struct {
		name  string
		later time.Duration
		asked bool
	}{{"first", 0, true}, {"again", 10 * time.Second, false}, {"later", time.Second, true}} {
		clock.SetTime(clock.Now().Add(step.later))
		_, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: host + "/app:v1"})
		if diff := cmp.Diff(error(want), err); diff != "" {
			t.Errorf("%s: the error (-want +got):\n%s", step.name, diff)
		}
		if isAsked := asked.Swap(0) > 0; isAsked != step.asked {
			t.Errorf("%s: the registry is asked: %t", step.name, isAsked)
		}
	}
}

// TestRateLimitLeft proves that the time that is left is told, that images that are known stay so while their registry wants to be left
// alone, and that one that can't be read until then isn't asked for.
func TestRateLimitLeft(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	push(t, serve(t, behind)+"/app:v2", dockerImage(t, "linux/amd64", other))
	var limited string
	var asked int
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if limited != "" && strings.Contains(r.URL.Path, limited) {
			w.Header().Set("Retry-After", "600")
			status(http.StatusTooManyRequests)(w, r)
			return
		}
		behind.ServeHTTP(w, r)
	}))
	resolver := newResolver(t, entrypoint.Options{Clock: clock, TagTTL: metav1.Duration{Duration: 10 * time.Minute}})
	busy := fmt.Sprintf("cannot be resolved: %s limits the request rate", host)
	refused := func(tag string, left time.Duration) error {
		return &entrypoint.Error{Image: host + "/app:" + tag, Reason: entrypoint.ReasonRateLimited, Cause: busy, Remedy: setCommand, RetryAfter: left}
	}
	for _, step := range []struct {
		name    string
		limited string
		later   time.Duration
		tag     string
		asked   bool
		want    error
	}{
		{name: "before", tag: "v1", asked: true},
		{name: "its digest is known, its content is limited", limited: "/blobs/", tag: "v2", asked: true, want: refused("v2", 10*time.Minute)},
		{name: "its content isn't asked for", tag: "v2", want: refused("v2", 10*time.Minute)},
		{name: "another one isn't either", tag: "v3", want: refused("v3", 10*time.Minute)},
		{name: "one that is known", tag: "v1"},
		{name: "a second before the end", later: 599 * time.Second, tag: "v3", want: refused("v3", time.Second)},
		{name: "afterwards", later: 2 * time.Second, tag: "v2", asked: true},
	} {
		clock.SetTime(clock.Now().Add(step.later))
		limited, asked = step.limited, 0
		_, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: host + "/app:" + step.tag})
		if diff := cmp.Diff(step.want, err); diff != "" {
			t.Errorf("%s: the error (-want +got):\n%s", step.name, diff)
		}
		if asked > 0 != step.asked {
			t.Errorf("%s: the registry is asked %d times", step.name, asked)
		}
	}
}

// TestRateLimitOfMirror proves that a mirror's wish to be left alone keeps nobody from the registry itself.
func TestRateLimitOfMirror(t *testing.T) {
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "600")
		status(http.StatusTooManyRequests)(w, r)
	}))
	origin := serve(t, newRegistry())
	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{origin: {"http://" + mirror}}})
	_, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: origin + "/app:v1"})
	want := &entrypoint.Error{
		Image: origin + "/app:v1", Reason: entrypoint.ReasonNotFound, Remedy: "fix image, or set command, which is required if an earlier step pushes the image",
		Cause: fmt.Sprintf("cannot be resolved: %s limits the request rate, and not found in %s", mirror, origin),
	}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("the error (-want +got):\n%s", diff)
	}
}

// TestOutage proves that a registry that is out costs the first who asks the time that a look-up may take, and nobody else any,
// for whichever of its images and also under Always; that later one asks again, while the others still don't wait; and that it is
// asked as ever once it answers, whatever it says.
func TestOutage(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	var dead atomic.Bool
	var thinking sync.RWMutex // locked while the registry is
	arrived := make(chan struct{}, 100)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			arrived <- struct{}{}
		}
		if dead.Load() && r.URL.Path == "/v2/" {
			thinking.RLock()
			defer thinking.RUnlock()
			panic(http.ErrAbortHandler) // closes the connection
		}
		behind.ServeHTTP(w, r)
	}))
	resolver := newResolver(t, entrypoint.Options{Clock: clock})
	ask := func(tag string) outcome {
		return resolve(t, resolver, entrypoint.Request{Image: host + "/app:" + tag, PullPolicy: corev1.PullAlways})
	}
	out := func(tag string) outcome {
		return outcome{Sentence: unasked(host+"/app:"+tag, host, unreachable)}
	}
	check := func(what string, asked bool, want, got outcome) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", what, diff)
		}
		if len(arrived) > 0 != asked {
			t.Errorf("%s: the registry is asked %d times", what, len(arrived))
		}
		for len(arrived) > 0 {
			<-arrived
		}
	}
	dead.Store(true)
	check("the first", true, out("v1"), ask("v1"))
	check("again", false, out("v1"), ask("v1"))
	check("another image", false, out("v2"), ask("v2"))

	clock.SetTime(clock.Now().Add(entrypoint.DefaultFailureTTL + time.Second))
	one := make(chan outcome, 1)
	thinking.Lock()
	go func() { one <- ask("v1") }()
	await(t, arrived, "the one request")
	check("while one asks", false, out("v2"), ask("v2"))
	thinking.Unlock()
	if diff := cmp.Diff(out("v1"), await(t, one, "the end of its look-up")); diff != "" {
		t.Errorf("the one who asks: Resolve (-want +got):\n%s", diff)
	}

	dead.Store(false)
	clock.SetTime(clock.Now().Add(entrypoint.DefaultFailureTTL + time.Second))
	check("one that it hasn't", true, outcome{Sentence: unasked(host+"/app:v2", host, "not found in HOST")}, ask("v2"))
	check("back again", true, outcome{Command: appCommand}, ask("v1"))
}

// TestOutageWithoutTLS proves that a registry that may be spoken to without TLS is out where it closes the connections, though it says to the
// try with TLS that it speaks none.
func TestOutageWithoutTLS(t *testing.T) {
	var asked atomic.Int32
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler) // closes the connection
	}))
	resolver := newResolver(t, entrypoint.Options{})
	for _, tag := range []string{"v1", "v2"} {
		want := outcome{Sentence: unasked(host+"/app:"+tag, host, unreachable)}
		got := resolve(t, resolver, entrypoint.Request{Image: host + "/app:" + tag, PullPolicy: corev1.PullAlways})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", tag, diff)
		}
		if isAsked := asked.Swap(0) > 0; isAsked != (tag == "v1") {
			t.Errorf("%s: the registry is asked: %t", tag, isAsked)
		}
	}
}

// TestHeadless proves that a registry that knows no HEAD, or answers it without a digest, is asked all the same.
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

// TestOneFlight proves that many who ask at the same time cause one request of each kind, and that who has gone takes nobody's answer
// with him: the first of them goes while the registry is thinking.
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
