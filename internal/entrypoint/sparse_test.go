package entrypoint_test

import (
	"fmt"
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// sparse is a registry that lacks some of its content, such as one that collects garbage, or a mirror of some platforms.
type sparse struct {
	behind http.Handler
	absent sync.Map // digests
}

func (s *sparse) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, absent := s.absent.Load(path.Base(r.URL.Path)); absent {
		status(http.StatusNotFound)(w, r)
		return
	}
	s.behind.ServeHTTP(w, r)
}

// TestSparseIndex proves that a missing platform matters only if the Pod may land on it, and that it is not taken to have another
// platform's command, or none. The failure is never permanent, because the image is built for the platform.
func TestSparseIndex(t *testing.T) {
	amd64, arm64, i386 := dockerImage(t, "linux/amd64", app), dockerImage(t, "linux/arm64", other), dockerImage(t, "linux/386", other)
	v6, v7 := dockerImage(t, "linux/arm/v6", app), dockerImage(t, "linux/arm/v7", app)
	two := indexOf(entry{"linux/amd64", amd64}, entry{"linux/arm64", arm64})
	manifest := func(image v1.Image) string { return digestOf(t, image.Digest) }
	config := func(image v1.Image) string { return digestOf(t, image.ConfigName) }
	missing := func(architecture string) contract.PlatformArgv {
		return contract.PlatformArgv{Platform: contract.Platform{Architecture: architecture}, Missing: true}
	}
	host := func(sentence string) func(string) outcome {
		return func(host string) outcome { return outcome{Sentence: unresolved(host+"/app:v1", host, sentence)} }
	}
	of := func(platforms ...contract.PlatformArgv) outcome {
		return outcome{Command: entrypoint.Command{Platforms: platforms, Image: "IMAGE"}}
	}
	const lacks = "lists it for %s but does not have that platform"
	cases := map[string]struct {
		index        v1.ImageIndex
		absent       []string
		architecture string
		hasArgs      bool
		want         outcome
		failure      func(host string) outcome
	}{
		"a manifest elsewhere":      {index: two, absent: []string{manifest(arm64)}, architecture: "amd64", want: outcome{Command: appCommand}},
		"a configuration elsewhere": {index: two, absent: []string{config(arm64)}, architecture: "amd64", want: outcome{Command: appCommand}},
		"the manifest":              {index: two, absent: []string{manifest(amd64)}, architecture: "amd64", failure: host(fmt.Sprintf(lacks, "linux/amd64"))},
		"the configuration":         {index: two, absent: []string{config(amd64)}, architecture: "amd64", failure: host(fmt.Sprintf(lacks, "linux/amd64"))},
		"no node known":             {index: two, absent: []string{manifest(arm64)}, want: of(argv("amd64", "", "/app", "run", "--help"), missing("arm64"))},
		"no node known, with args":  {index: two, absent: []string{manifest(amd64)}, hasArgs: true, want: of(missing("amd64"), argv("arm64", "", "/other"))},
		"all":                       {index: two, absent: []string{manifest(amd64), config(arm64)}, failure: host(fmt.Sprintf(lacks, "linux"))},
		"all, one wanted":           {index: two, absent: []string{manifest(amd64), config(arm64)}, architecture: "arm64", failure: host(fmt.Sprintf(lacks, "linux/arm64"))},
		"one that the index hasn't": {index: two, absent: []string{manifest(arm64)}, architecture: "s390x", failure: func(host string) outcome {
			return outcome{Permanent: true, Sentence: fmt.Sprintf("image %q is not built for linux/s390x; set an image that is, or change the nodeSelector on kubernetes.io/arch", host+"/app:v1")}
		}},
		"the best for a node, which runs another one": {
			index: indexOf(entry{"linux/386", i386}, entry{"linux/amd64", amd64}), absent: []string{manifest(amd64)},
			architecture: "amd64", failure: host(fmt.Sprintf(lacks, "linux/amd64")),
		},
		"a variant": {
			index: indexOf(entry{"linux/arm/v6", v6}, entry{"linux/arm/v7", v7}), absent: []string{manifest(v7)}, architecture: "arm",
			want: of(argv("arm", "v6", "/app", "run", "--help"), contract.PlatformArgv{Platform: contract.Platform{Architecture: "arm", Variant: "v7"}, Missing: true}),
		},
		"of an unknown platform": {
			index: indexOf(entry{"", amd64}, entry{"", arm64}), absent: []string{manifest(arm64)},
			architecture: "amd64", failure: host("not found in HOST"),
		},
		"one for Windows": {
			index:  indexOf(entry{"linux/amd64", amd64}, entry{"windows/amd64", arm64}),
			absent: []string{manifest(arm64)}, want: outcome{Command: appCommand},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			registry := &sparse{behind: newRegistry()}
			host := serve(t, registry)
			image := host + "/app:v1"
			digest := push(t, image, c.index)
			for _, absent := range c.absent {
				registry.absent.Store(absent, nil)
			}
			if c.failure != nil {
				c.want = c.failure(host)
			}
			if c.want.Command.Image != "" {
				c.want.Command.Image = image + "@" + digest
			}
			got := resolve(t, newResolver(t, entrypoint.Options{}), entrypoint.Request{Image: image, Architecture: c.architecture, HasArgs: c.hasArgs})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Resolve (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSparseMirror proves that the registry is asked for a platform that its mirror lacks, and not for one that the mirror has.
func TestSparseMirror(t *testing.T) {
	amd64, arm64 := dockerImage(t, "linux/amd64", app), dockerImage(t, "linux/arm64", other)
	index := indexOf(entry{"linux/amd64", amd64}, entry{"linux/arm64", arm64})
	registry := &sparse{behind: newRegistry()}
	mirror := serve(t, registry)
	push(t, mirror+"/app:v1", index)
	registry.absent.Store(digestOf(t, arm64.Digest), nil)
	asked := &recorder{behind: newRegistry()}
	origin := serve(t, asked)
	push(t, origin+"/app:v1", index)
	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{origin: {"http://" + mirror}}})
	for _, c := range []struct {
		architecture string
		want         entrypoint.Command
		asks         bool
	}{
		{"amd64", appCommand, false},
		{"arm64", entrypoint.Command{Entrypoint: []string{"/other"}}, true},
	} {
		asked.requests()
		got := resolve(t, resolver, entrypoint.Request{Image: origin + "/app:v1", Architecture: c.architecture})
		if diff := cmp.Diff(outcome{Command: c.want}, got); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", c.architecture, diff)
		}
		if requests := asked.requests(); len(requests) > 0 != c.asks {
			t.Errorf("%s: the registry is asked %q", c.architecture, requests)
		}
	}
}

// TestSparseCache proves that missing content is looked for again with the tag, although the digest is the same, and that a complete image
// is not.
func TestSparseCache(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	amd64, arm64 := dockerImage(t, "linux/amd64", app), dockerImage(t, "linux/arm64", app)
	partial := &sparse{behind: newRegistry()}
	registry := &recorder{behind: partial}
	host := serve(t, registry)
	push(t, host+"/app:v1", indexOf(entry{"linux/amd64", amd64}, entry{"linux/arm64", arm64}))
	resolver := newResolver(t, entrypoint.Options{Clock: clock})
	absent := digestOf(t, arm64.Digest)
	partial.absent.Store(absent, nil)
	lacks := outcome{Sentence: unresolved(host+"/app:v1", host, "lists it for linux/arm64 but does not have that platform")}
	for _, step := range []struct {
		name  string
		later time.Duration
		heal  bool
		asks  int
		want  outcome
	}{
		{name: "missing", asks: 5, want: lacks}, // HEAD and GET of the index; two manifests, one of them missing; one configuration
		{name: "again", want: lacks},
		{name: "there now, not yet seen", heal: true, want: lacks},
		{name: "seen", later: entrypoint.DefaultTagTTL + time.Second, asks: 6, want: outcome{Command: appCommand}},
		{name: "kept", later: time.Hour, asks: 1, want: outcome{Command: appCommand}},
	} {
		if step.heal {
			partial.absent.Delete(absent)
		}
		clock.SetTime(clock.Now().Add(step.later))
		registry.requests()
		if diff := cmp.Diff(step.want, resolve(t, resolver, entrypoint.Request{Image: host + "/app:v1", Architecture: "arm64"})); diff != "" {
			t.Errorf("%s: Resolve (-want +got):\n%s", step.name, diff)
		}
		if asked := registry.requests(); len(asked) != step.asks {
			t.Errorf("%s: the registry is asked %q, want %d requests", step.name, asked, step.asks)
		}
	}
}

func digestOf(t *testing.T, digest func() (v1.Hash, error)) string {
	t.Helper()
	hash, err := digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}
