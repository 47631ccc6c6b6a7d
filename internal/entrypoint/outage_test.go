package entrypoint_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestRateLimit proves that a registry is left alone for as long as it asks, for all of its images and with imagePullPolicy Always, too,
// but is asked with other credentials.
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

// TestRateLimitUnsaid proves that a registry which does not say how long is left alone for a while, and that callers get no RetryAfter, so
// that they back off.
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

// TestRateLimitLeft proves that the error has the remaining time, that known images stay resolved meanwhile, and that unknown ones are not
// asked for.
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

// TestRateLimitOfMirror proves that a busy mirror does not keep the registry itself from being asked.
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

// TestOutage proves that an outage costs only the first caller the full timeout, whatever the image and also with imagePullPolicy Always.
// Later, one caller asks again while the others do not wait. Once the registry answers, whatever it says, all ask as usual.
func TestOutage(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	var dead atomic.Bool
	var thinking sync.RWMutex // locked while the registry hangs
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
		return outcome{Sentence: unresolved(host+"/app:"+tag, host, unreachable)}
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
	check("one that it hasn't", true, outcome{Sentence: unresolved(host+"/app:v2", host, "not found in HOST")}, ask("v2"))
	check("back again", true, outcome{Command: appCommand}, ask("v1"))
}

// TestOutageWithoutTLS proves that a registry that may be asked without TLS is unreachable if it closes the connections, although the
// attempt with TLS reports that it does not use TLS.
func TestOutageWithoutTLS(t *testing.T) {
	var asked atomic.Int32
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler) // closes the connection
	}))
	resolver := newResolver(t, entrypoint.Options{})
	for _, tag := range []string{"v1", "v2"} {
		want := outcome{Sentence: unresolved(host+"/app:"+tag, host, unreachable)}
		got := resolve(t, resolver, entrypoint.Request{Image: host + "/app:" + tag, PullPolicy: corev1.PullAlways})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", tag, diff)
		}
		if isAsked := asked.Swap(0) > 0; isAsked != (tag == "v1") {
			t.Errorf("%s: the registry is asked: %t", tag, isAsked)
		}
	}
}
