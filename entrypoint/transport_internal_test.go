package entrypoint

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
)

// TestRefuseBehindProxy proves that what must not be spoken to isn't asked of a proxy either, which would look up the name itself; without
// a proxy, all of these are left to control.
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
			var blocked *blockedError
			if got := errors.As(g.refuse(request), &blocked); got != (refused && between != nil) {
				t.Errorf("%s, through %s: it is refused: %t", host, through, got)
			}
		}
	}
}
