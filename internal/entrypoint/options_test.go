package entrypoint_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestNewRefuses proves the error for each mistake in the configuration. TestNewMirrors has those of mirrors.
func TestNewRefuses(t *testing.T) {
	seconds := func(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }
	cases := map[string]struct {
		options entrypoint.Options
		want    string
	}{
		"all that can be": {entrypoint.Options{
			PlainHTTP: []string{"registry:5000", "10.0.0.1"}, AllowedRegistries: []string{"docker.io", "*.example.com", "*:5000", "*"},
			AllowedAddresses: []string{"127.0.0.1", "::1", "127.0.0.0/8", "fe80::/10"},
			Commands:         []entrypoint.StaticCommand{{Image: "a", Cmd: []string{"a"}}, {Image: "b:v1", Entrypoint: []string{"b"}}},
			Timeout:          seconds(9), TagTTL: seconds(600), FailureTTL: seconds(1), CacheSize: 10_000,
		}, "<nil>"},
		"a plain URL":           {entrypoint.Options{PlainHTTP: []string{"http://registry"}}, `plainHTTP: "http://registry" must be HOST or HOST:PORT`},
		"no plain host":         {entrypoint.Options{PlainHTTP: []string{""}}, `plainHTTP: "" must be HOST or HOST:PORT`},
		"an allowed repository": {entrypoint.Options{AllowedRegistries: []string{"ghcr.io/me"}}, `allowedRegistries: "ghcr.io/me" must be HOST or HOST:PORT, where * matches one part of the host name`},
		"a broken pattern":      {entrypoint.Options{AllowedRegistries: []string{"[a"}}, `allowedRegistries: "[a" must be HOST or HOST:PORT, where * matches one part of the host name`},
		"no allowed host":       {entrypoint.Options{AllowedRegistries: []string{""}}, `allowedRegistries: "" must be HOST or HOST:PORT, where * matches one part of the host name`},
		"an allowed name":       {entrypoint.Options{AllowedAddresses: []string{"localhost"}}, `allowedAddresses: "localhost" must be an address or a range, such as 127.0.0.0/8`},
		"no image":              {entrypoint.Options{Commands: []entrypoint.StaticCommand{{Cmd: []string{"a"}}}}, `commands: "" is not a valid image name`},
		"no command":            {entrypoint.Options{Commands: []entrypoint.StaticCommand{{Image: "a"}}}, `commands: "a" has neither entrypoint nor cmd; set one of them`},
		"no certificate":        {entrypoint.Options{CABundle: "/etc/ssl/ca.pem"}, "caBundle: it contains something else than certificates in PEM"},
		"a long timeout":        {entrypoint.Options{Timeout: seconds(10)}, "timeout: 10s must be above 0s and at most 9s"},
		"a negative timeout":    {entrypoint.Options{Timeout: seconds(-1)}, "timeout: -1s must be above 0s and at most 9s"},
		"a long tag TTL":        {entrypoint.Options{TagTTL: seconds(601)}, "tagTTL: 10m1s must be above 0s and at most 10m0s"},
		"a long failure TTL":    {entrypoint.Options{FailureTTL: seconds(601)}, "failureTTL: 10m1s must be above 0s and at most 10m0s"},
		"a huge cache":          {entrypoint.Options{CacheSize: 10_001}, "cacheSize: 10001 must be above 0 and at most 10000"},
		"a negative cache":      {entrypoint.Options{CacheSize: -1}, "cacheSize: -1 must be above 0 and at most 10000"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := entrypoint.New(c.options)
			if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("New (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStaticCommands proves that a configured command needs no registry, however a container spells the image.
func TestStaticCommands(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	resolver := newResolver(t, entrypoint.Options{Commands: []entrypoint.StaticCommand{
		{Image: "busybox:1.28", Cmd: []string{"sh"}},
		{Image: "registry.invalid/app", Entrypoint: []string{"/app"}},
		{Image: "registry.invalid/app@" + digest, Entrypoint: []string{"/pinned"}},
	}, AllowedRegistries: []string{"none"}})
	for image, want := range map[string]entrypoint.Command{
		"busybox:1.28":                      {Cmd: []string{"sh"}},
		"docker.io/library/busybox:1.28":    {Cmd: []string{"sh"}},
		"registry.invalid/app":              {Entrypoint: []string{"/app"}},
		"registry.invalid/app:latest":       {Entrypoint: []string{"/app"}},
		"registry.invalid/app@" + digest:    {Entrypoint: []string{"/pinned"}},
		"registry.invalid/app:v1@" + digest: {Entrypoint: []string{"/pinned"}},
	} {
		if diff := cmp.Diff(outcome{Command: want}, resolve(t, resolver, entrypoint.Request{Image: image, Architecture: "arm64"})); diff != "" {
			t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
		}
	}
}

// TestAllowedRegistries proves that no other registry is asked, nor a mirror of it.
func TestAllowedRegistries(t *testing.T) {
	var asked atomic.Int32
	behind := newRegistry()
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		behind.ServeHTTP(w, r)
	}))
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", app))
	image := host + "/app:v1"
	refused := outcome{Sentence: fmt.Sprintf("image %q is in the registry %s, which images.allowedRegistries does not list; %s", image, host, setCommand)}
	for pattern, want := range map[string]outcome{
		host:                                     {Command: appCommand},
		"*.*.*.*:" + strings.Split(host, ":")[1]: {Command: appCommand},
		"127.0.0.1":                              refused,
		"*":                                      refused,
		"docker.io":                              refused,
		"127.0.0.*:1":                            refused,
	} {
		asked.Store(0)
		resolver := newResolver(t, entrypoint.Options{AllowedRegistries: []string{pattern}, Mirrors: map[string][]string{host: {"http://" + host}}})
		if diff := cmp.Diff(want, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
			t.Errorf("Resolve where %q is allowed (-want +got):\n%s", pattern, diff)
		}
		if (asked.Load() > 0) != (want.Sentence == "") {
			t.Errorf("where %q is allowed, the registry was asked %d times", pattern, asked.Load())
		}
	}
}
