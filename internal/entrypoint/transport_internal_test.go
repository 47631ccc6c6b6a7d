package entrypoint

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCheck proves which addresses are blocked, in all spellings, and that the configuration can allow them.
func TestCheck(t *testing.T) {
	cases := map[string]bool{ // whether it is allowed
		"93.184.216.34":          true,
		"10.0.0.1":               true, // registries in the cluster
		"172.16.0.1":             true,
		"192.168.1.1":            true,
		"198.18.0.1":             true,
		"2001:db8::1":            true,
		"fd00::1":                true,
		"127.0.0.1":              false,
		"127.255.255.254":        false,
		"0.0.0.0":                false,
		"0.1.2.3":                false,
		"169.254.169.254":        false, // metadata of most clouds
		"169.254.0.1":            false,
		"100.100.100.200":        false,
		"168.63.129.16":          false,
		"192.0.0.192":            false,
		"224.0.0.1":              false,
		"255.255.255.255":        false,
		"::":                     false,
		"::1":                    false,
		"fe80::1":                false,
		"fe80::1%eth0":           false,
		"ff02::1":                false,
		"fd00:ec2::254":          false,
		"fd20:ce::254":           false,
		"::ffff:127.0.0.1":       false,
		"::ffff:169.254.169.254": false,
		"::ffff:10.0.0.1":        true,
		"64:ff9b::a9fe:a9fe":     false,
		"2002:a9fe:a9fe::":       false,
	}
	for address, want := range cases {
		if got := (&guard{}).check(netip.MustParseAddr(address)) == nil; got != want {
			t.Errorf("%s is spoken to: %t, want %t", address, got, want)
		}
	}
	loopback := &guard{allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for address, want := range map[string]bool{"127.0.0.1": true, "::ffff:127.0.0.1": true, "::1": false, "169.254.169.254": false} {
		if got := loopback.check(netip.MustParseAddr(address)) == nil; got != want {
			t.Errorf("%s is spoken to where 127.0.0.0/8 is allowed: %t, want %t", address, got, want)
		}
	}
}

// TestRetryAfter proves how long a registry is left alone: as it asks for, within bounds.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              10 * time.Second,
		"soon":                          10 * time.Second,
		"30":                            30 * time.Second,
		"0":                             time.Second,
		"-1":                            time.Second,
		"999999999999":                  10 * time.Minute,
		"99999999999999999999999999":    10 * time.Second,
		"Mon, 23 Nov 2026 12:01:00 GMT": time.Minute,
		"Mon, 23 Nov 2026 11:00:00 GMT": time.Second,
		"Tue, 24 Nov 2026 12:00:00 GMT": 10 * time.Minute,
	} {
		until, said := retryAfter(header, now)
		if diff := cmp.Diff(want, until.Sub(now)); diff != "" {
			t.Errorf("Retry-After: %s (-want +got):\n%s", header, diff)
		}
		if said != (want != minRetryAfter) {
			t.Errorf("Retry-After: %s: it is said: %t", header, said)
		}
	}
}

// TestRefuseBehindProxy proves that a blocked address is not requested from a proxy, which would resolve the name itself. Without a proxy,
// control checks these.
func TestRefuseBehindProxy(t *testing.T) {
	proxy, err := url.Parse("http://proxy.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for host, refused := range map[string]bool{
		"169.254.169.254":   true,
		"[::1]":             true,
		"localhost":         true,
		"2852039166":        true, // 169.254.169.254
		"0xa9fea9fe":        true,
		"169.254.43518":     true,
		"10.0.0.1":          false,
		"127.0.0.2":         false, // allowed
		"registry.invalid":  false, // only the proxy may know it
		"3com.example":      false,
		"registry.example.": false,
	} {
		for through, between := range map[string]func(*http.Request) (*url.URL, error){"a proxy": http.ProxyURL(proxy), "no proxy": nil} {
			g := newGuard(guard{allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, nil)
			g.inner.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
			if between != nil {
				g.inner.Proxy = between
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/v2/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			known, ok := errors.AsType[*fault](g.refuse(request))
			if got := ok && known.reason == ReasonBlocked; got != (refused && between != nil) {
				t.Errorf("%s, through %s: it is refused: %t", host, through, got)
			}
		}
	}
}
