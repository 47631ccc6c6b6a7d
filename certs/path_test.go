package certs

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPathOf proves that the path depends only on the certificate's key, so that replicas agree and another key has another path.
func TestPathOf(t *testing.T) {
	data, other := fresh(t), fresh(t)
	paths := map[string]string{}
	for name, content := range map[string]map[string][]byte{"data": data, "again": data, "other": other} {
		served, err := parseServed(content)
		if err != nil {
			t.Fatal(err)
		}
		if paths[name], err = pathOf(served); err != nil {
			t.Fatal(err)
		}
	}
	if paths["data"] != paths["again"] || paths["data"] == paths["other"] {
		t.Errorf("the paths are %v", paths)
	}
	if !isSecret(paths["data"]) {
		t.Errorf("%q is not taken for a secret path", paths["data"])
	}
	if path, err := pathOf(nil); path != "" || err != nil {
		t.Errorf("without a certificate the path is %q, %v", path, err)
	}
}

// TestIsSecret proves that no path is accepted that could be guessed, even if the webhook configuration has it.
func TestIsSecret(t *testing.T) {
	secret := strings.Repeat("0a", 32)
	for path, want := range map[string]bool{
		"/mutate-pods/" + secret:        true,
		"/mutate-pods":                  false,
		"/mutate-pods/":                 false,
		"/":                             false,
		"":                              false,
		"/" + secret:                    false,
		secret:                          false,
		"/mutate-pods/" + secret[2:]:    false,
		"/mutate-pods/" + secret + "00": false,
		"/mutate-pods/" + secret + "/":  false,
		UnmutatedPath:                   false,
	} {
		if got := isSecret(path); got != want {
			t.Errorf("%q is secret: %t, want %t", path, got, want)
		}
	}
}

// TestPaths proves, step by step, which paths are accepted and when a new one is written: only after every replica had time to learn of it,
// unless the API server cannot call the old one. The old one is accepted until no API server can still use it.
func TestPaths(t *testing.T) {
	const settle = 30 * time.Second
	one, two, three := pathPrefix+strings.Repeat("1", 64), pathPrefix+strings.Repeat("2", 64), pathPrefix+strings.Repeat("3", 64)
	type step struct {
		name       string
		path       string
		configured []string
		after      time.Duration // after the start
		write      bool
		again      time.Duration
		accepted   []string
		ready      bool
	}
	all := []string{one, two, three, "/", "/mutate-pods", ""}
	both := func(path string) []string { return []string{path, path} }
	cases := map[string][]step{
		"the first path": {
			{"no certificate yet", "", both("/"), 0, false, 0, nil, false},
			{"written at once", one, both("/"), 0, true, 0, []string{one}, false},
			{"written", one, both(one), 0, false, 0, []string{one}, true},
		},
		"an upgrade, and a configuration that was applied again with a path": {
			{"the former release's", one, both("/mutate-pods"), 0, true, 0, []string{one}, false},
			{"one of two", one, []string{one, "/"}, 0, true, 0, []string{one}, false},
		},
		"no webhook": {
			{"nothing to write to", one, nil, 0, false, 0, []string{one}, false},
		},
		"a renewal": {
			{"the old one", one, both(one), 0, false, 0, []string{one}, true},
			{"known", two, both(one), time.Second, false, settle, []string{one, two}, true},
			{"too short a time", two, both(one), 21 * time.Second, false, 10 * time.Second, []string{one, two}, true},
			{"long enough", two, both(one), 31 * time.Second, true, 0, []string{one, two}, true},
			{"written", two, both(two), 32 * time.Second, false, 0, []string{one, two}, true},
			{"an API server may still call", two, both(two), 62 * time.Second, false, 0, []string{one, two}, true},
			{"no longer", two, both(two), 63 * time.Second, false, 0, []string{two}, true},
		},
		"a renewal that another replica has finished": {
			{"known", two, both(one), 0, false, settle, []string{one, two}, true},
			{"written", two, both(two), 10 * time.Second, false, 0, []string{one, two}, true},
		},
		"a replica that starts within a renewal": {
			{"it accepts what the configuration has", two, both(one), 0, false, settle, []string{one, two}, true},
		},
		"a Secret that is behind the configuration": {
			{"the old one", one, both(one), 0, false, 0, []string{one}, true},
			{"it accepts what another replica has written, and waits", one, both(two), time.Second, false, settle, []string{one, two}, true},
			{"it has learned of it", two, both(two), 2 * time.Second, false, 0, []string{one, two}, true},
			{"and knows another one", three, both(two), 3 * time.Second, false, settle, []string{one, two, three}, true},
		},
		"a certificate that changes twice": {
			{"the old one", one, both(one), 0, false, 0, []string{one}, true},
			{"another one", two, both(one), time.Second, false, settle, []string{one, two}, true},
			{"it waits again", three, both(one), 20 * time.Second, false, settle, []string{one, two, three}, true},
			{"long enough", three, both(one), 50 * time.Second, true, 0, []string{one, two, three}, true},
		},
		"a Secret that is deleted": {
			{"the old one", one, both(one), 0, false, 0, []string{one}, true},
			{"none", "", both(one), time.Hour, false, 0, []string{one}, true},
		},
		"a configuration that has lost it": {
			{"the old one", one, both(one), 0, false, 0, []string{one}, true},
			{"at once", one, both("/"), time.Second, true, 0, []string{one}, false},
		},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			p := &paths{settle: settle}
			for _, step := range steps {
				now := start.Add(step.after)
				write, again := p.offer(step.path, step.configured, now)
				if write != step.write || again != step.again {
					t.Errorf("%s: write %t, again in %s; want %t, %s", step.name, write, again, step.write, step.again)
				}
				var accepted []string
				for _, path := range all {
					if p.accepts(path, now) {
						accepted = append(accepted, path)
					}
				}
				if diff := cmp.Diff(step.accepted, accepted); diff != "" {
					t.Errorf("%s: accepted (-want +got):\n%s", step.name, diff)
				}
				if err := p.check(); (err == nil) != step.ready {
					t.Errorf("%s: the check says %v, ready should be %t", step.name, err, step.ready)
				}
			}
		})
	}
}

// TestFormerPathsAreBounded proves that a configuration that changes again and again does not lead to an endless list.
func TestFormerPathsAreBounded(t *testing.T) {
	p := &paths{settle: time.Hour}
	for i := range 100 {
		p.offer(pathPrefix+strings.Repeat("0", 62)+string("0123456789"[i/10])+string("0123456789"[i%10]), nil, start.Add(time.Duration(i)))
	}
	if got := len(p.former); got != formerPaths {
		t.Errorf("%d former paths are accepted, want %d", got, formerPaths)
	}
}

// TestGuard proves that a request with a wrong path is refused, and its body not read.
func TestGuard(t *testing.T) {
	k := New(Options{Lifetimes: DefaultLifetimes})
	path := pathPrefix + strings.Repeat("1", 64)
	k.paths.offer(path, []string{path}, k.clock.now())
	mux := http.NewServeMux()
	called := 0
	mux.Handle(Pattern, k.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called++ })))
	for path, want := range map[string]int{
		path:                                 http.StatusOK,
		"/mutate-pods":                       http.StatusNotFound,
		"/mutate-pods/":                      http.StatusNotFound,
		pathPrefix + strings.Repeat("2", 64): http.StatusNotFound,
		path + "/":                           http.StatusNotFound,
		path[:len(path)-1]:                   http.StatusNotFound,
		strings.Replace(path, "1", "%31", 1): http.StatusOK, // the same path
	} {
		before := called
		body := &unread{}
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, body)
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, request)
		if answer.Code != want || (called > before) != (want == http.StatusOK) {
			t.Errorf("%s: the answer is %d, and the handler was called %d times; want %d", path, answer.Code, called-before, want)
		}
		if body.read {
			t.Errorf("%s: the body was read", path)
		}
	}
}

type unread struct{ read bool }

func (u *unread) Read([]byte) (int, error) {
	u.read = true
	return 0, http.ErrBodyReadAfterClose
}
