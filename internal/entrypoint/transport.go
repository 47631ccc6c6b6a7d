package entrypoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	// The operator's image has no certificate authorities of its own. Where the system has some, they count.
	_ "golang.org/x/crypto/x509roots/fallback"
)

const (
	// maxResponse bounds what is read of one response. Whoever writes a Pod chooses the registry, which could send without end;
	// 4 MiB is also how much of a manifest the distribution specification wants registries to take.
	maxResponse = 4 << 20
	// maxOther bounds what is read of a response that is no document of an image: a token, or what else a registry says at first.
	maxOther = 64 << 10
	// maxHeader bounds the header of a response.
	maxHeader = 64 << 10
	// maxRefusal bounds what is read of a response that is a refusal, only so that its connection can be used again.
	maxRefusal = 64 << 10
	// maxRedirects is how often a registry may send on one request. The content of large ones is a redirect away, seldom two.
	maxRedirects = 5
	// lookupTimeout bounds how long a name is looked up that a proxy will look up, too.
	lookupTimeout = time.Second
	// maxRetryAfter bounds how long a registry can make us leave it alone.
	maxRetryAfter = 10 * time.Minute
	// minRetryAfter is for registries that don't say how long.
	minRetryAfter = 10 * time.Second
)

var (
	errPlainHTTP = errors.New("it would be spoken to without TLS")
	// errSpeaksPlain is no news of those that are known to: what matters is what became of the try without TLS.
	errSpeaksPlain = errors.New("it speaks no TLS, as configured")
	errRedirects   = fmt.Errorf("it redirects more than %d times", maxRedirects)
)

// blockedError says that an address isn't spoken to.
type blockedError struct{ address netip.Addr }

func (e *blockedError) Error() string {
	return fmt.Sprintf("the address %s isn't spoken to", e.address)
}

// busyError is an answer of status 429, or of 503 with Retry-After: the registry wants fewer requests.
type busyError struct {
	status int
	until  time.Time
	// said is false where until is a guess.
	said bool
	// redirected says that it was another host's, to which the registry had redirected.
	redirected bool
}

func (e *busyError) Error() string {
	return fmt.Sprintf("status %d, to be left alone until %s", e.status, e.until.Format(time.RFC3339))
}

// unansweredError says that there was no answer to a request.
type unansweredError struct {
	err error
	// ping says that it was the request with which each session begins, before it is about any image.
	ping bool
	// redirected says that it was sent where the answer to another one had redirected.
	redirected bool
}

func (e *unansweredError) Error() string { return e.err.Error() }
func (e *unansweredError) Unwrap() error { return e.err }

// isOutage reports whether the registry itself can't be spoken to: it can't be connected to, or says nothing before it is asked for an image.
// Everything after that may be the doing of whoever made the image.
func (e *unansweredError) isOutage() bool {
	if e.redirected {
		return false
	}
	connection, ok := errors.AsType[*net.OpError](e.err)
	return e.ping || ok && connection.Op == "dial"
}

// documentKey marks the context of a request for a document of an image.
type documentKey struct{}

// guard is the transport to registries, which whoever may create a Pod can point at any address, by the image's name, by a
// redirect, by the place where the registry says tokens are to be had, and by DNS. It speaks to no address that isn't a
// registry's, not without TLS unless told so, and reads no more than there can be.
type guard struct {
	inner *http.Transport
	// plainHTTP are the hosts, with port unless that is 80, that may be spoken to without TLS.
	plainHTTP []string
	// allowed are the addresses that are spoken to in spite of what they are.
	allowed []netip.Prefix
	now     func() time.Time
}

// newGuard trusts the authorities; nil are those of the system.
func newGuard(g guard, authorities *x509.CertPool) *guard {
	g.inner = remote.DefaultTransport.(*http.Transport).Clone()
	g.inner.MaxResponseHeaderBytes = maxHeader
	if authorities != nil {
		g.inner.TLSClientConfig = &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}
	}
	dialer := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, ControlContext: g.control}
	g.inner.DialContext = dialer.DialContext
	return &g
}

// control sees each address that is about to be connected to, after DNS.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.check(parsed.Addr())
}

func (g *guard) check(address netip.Addr) error {
	address = address.WithZone("").Unmap()
	if isSpecial(address) && !slices.ContainsFunc(g.allowed, func(p netip.Prefix) bool { return p.Contains(address) }) {
		return &blockedError{address}
	}
	return nil
}

// special are addresses at which clouds answer to their own machines alone, with credentials among other things, beyond those
// that are link-local; and those that stand for others.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // this host
	netip.MustParsePrefix("100.100.100.200/32"), // metadata of Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // wire server of Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // metadata of Oracle Cloud
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved, and broadcast
	netip.MustParsePrefix("fd00:ec2::/32"),      // metadata of AWS
	netip.MustParsePrefix("fd20:ce::254/128"),   // metadata of Google Cloud
	netip.MustParsePrefix("64:ff9b::/96"),       // IPv4 behind NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),     // and behind one of the network's own
	netip.MustParsePrefix("2002::/16"),          // IPv4 behind 6to4
}

func isSpecial(address netip.Addr) bool {
	return !address.IsValid() || address.IsUnspecified() || address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsMulticast() ||
		slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(address) })
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := g.refuse(request); err != nil {
		return nil, err
	}
	response, err := g.inner.RoundTrip(request)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain && slices.Contains(g.plainHTTP, request.URL.Host) {
		return nil, errSpeaksPlain
	}
	if err != nil {
		return nil, &unansweredError{err, request.URL.Path == "/v2/", request.Response != nil}
	}
	wait := response.Header.Get("Retry-After")
	if status := response.StatusCode; status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && wait != "" {
		_ = response.Body.Close()
		now := g.now()
		after, said := retryAfter(wait, now)
		return nil, &busyError{status, now.Add(after), said, request.Response != nil}
	}
	if response.StatusCode >= http.StatusBadRequest {
		// What a registry says of its refusal would be kept with the failure, and is told to nobody.
		_, _ = io.CopyN(io.Discard, response.Body, maxRefusal)
		_ = response.Body.Close()
		response.Body = http.NoBody
		return response, nil
	}
	most := int64(maxOther)
	if request.Context().Value(documentKey{}) != nil {
		most = maxResponse
	}
	response.Body = http.MaxBytesReader(nil, response.Body, most)
	return response, nil
}

func (g *guard) refuse(request *http.Request) error {
	if request.URL.Scheme != "https" && !slices.Contains(g.plainHTTP, request.URL.Host) {
		return errPlainHTTP
	}
	redirects := 0
	for earlier := request.Response; earlier != nil && earlier.Request != nil; earlier = earlier.Request.Response {
		if redirects++; redirects > maxRedirects {
			return errRedirects
		}
	}
	return g.refuseBehindProxy(request)
}

// refuseBehindProxy checks what control would, which sees the proxy's address alone where there is one between. A name that can't be looked
// up here is left to the proxy.
func (g *guard) refuseBehindProxy(request *http.Request) error {
	if proxy, err := g.inner.Proxy(request); proxy == nil || err != nil {
		return err
	}
	name := request.URL.Hostname()
	if address, err := netip.ParseAddr(name); err == nil {
		return g.check(address)
	}
	// Numbers such as 2852039166 are addresses to some: no other name has a digit first in its last label.
	if last := name[strings.LastIndexByte(name, '.')+1:]; last != "" && last[0] >= '0' && last[0] <= '9' {
		return &blockedError{}
	}
	ctx, cancel := context.WithTimeout(request.Context(), lookupTimeout)
	defer cancel()
	addresses, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	for _, address := range addresses {
		if err := g.check(address); err != nil {
			return err
		}
	}
	return nil
}

// retryAfter reads the header: seconds, or a date (RFC 9110, section 10.2.3).
func retryAfter(header string, now time.Time) (after time.Duration, said bool) {
	if seconds, err := strconv.Atoi(header); err == nil {
		after = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		after = date.Sub(now)
	} else {
		return minRetryAfter, false
	}
	return min(max(after, time.Second), maxRetryAfter), true
}
