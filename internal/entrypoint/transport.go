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

	// The operator's image has no certificate authorities. These are used only if the system has none.
	_ "golang.org/x/crypto/x509roots/fallback"
)

const (
	// maxResponse bounds a document. The author of a Pod chooses the registry, which could send without end. The distribution specification
	// wants registries to accept manifests of 4 MiB.
	maxResponse = 4 << 20
	// maxOther bounds any other successful response, such as a token.
	maxOther = 64 << 10
	// maxHeader bounds the header of a response.
	maxHeader = 64 << 10
	// maxRefusal bounds what is read of an error response, only to reuse the connection.
	maxRefusal = 64 << 10
	// maxRedirects bounds the redirects of one request. Large registries redirect to their storage once, seldom twice.
	maxRedirects = 5
	// lookupTimeout bounds the DNS look-up of a name that a proxy resolves again.
	lookupTimeout = time.Second
	// maxRetryAfter bounds how long a registry can make the resolver leave it alone.
	maxRetryAfter = 10 * time.Minute
	// minRetryAfter is for registries that do not say how long.
	minRetryAfter = 10 * time.Second
)

var (
	errPlainHTTP = errors.New("plain HTTP is not allowed")
	// errSpeaksPlain is expected of hosts in plainHTTP. The attempt without TLS decides.
	errSpeaksPlain = errors.New("the registry does not use TLS, as configured")
)

// blocked is the fault of an address that the transport refuses.
func blocked(address netip.Addr) *fault {
	return &fault{
		reason: ReasonBlocked, why: "HOST has a loopback, link-local or metadata address",
		remedy: "set command, or add the address to images.allowedAddresses in the operator's configuration",
		log:    fmt.Sprintf("connections to %s are not allowed", address),
	}
}

// unansweredError reports that a request got no response.
type unansweredError struct {
	err error
	// ping is true for the first request of a session, which concerns no image yet.
	ping bool
	// redirected is true if the request followed a redirect.
	redirected bool
}

func (e *unansweredError) Error() string { return e.err.Error() }
func (e *unansweredError) Unwrap() error { return e.err }

// isOutage reports whether the registry itself is unreachable: no connection, or no answer before a request for an image. What comes later
// may depend on the image, and so on its author.
func (e *unansweredError) isOutage() bool {
	if e.redirected {
		return false
	}
	connection, ok := errors.AsType[*net.OpError](e.err)
	return e.ping || ok && connection.Op == "dial"
}

// documentKey marks the context of a request for a document of an image.
type documentKey struct{}

// guard is the transport to registries. The author of a Pod can point it at any address: by the image's name, by a redirect, by the
// registry's token service and by DNS. So it refuses special addresses, plain HTTP unless configured, and bounds each response.
type guard struct {
	inner *http.Transport
	// plainHTTP are the hosts, with port unless it is 80, that may be asked without TLS.
	plainHTTP []string
	// allowed are special addresses that may be asked.
	allowed []netip.Prefix
	now     func() time.Time
}

// newGuard trusts the given authorities, or the system's if they are nil.
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

// control checks each address before the connection, after DNS.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.check(parsed.Addr())
}

func (g *guard) check(address netip.Addr) error {
	address = address.WithZone("").Unmap()
	isIn := func(p netip.Prefix) bool { return p.Contains(address) }
	isSpecial := !address.IsValid() || address.IsUnspecified() || address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsMulticast() ||
		slices.ContainsFunc(special, isIn)
	if isSpecial && !slices.ContainsFunc(g.allowed, isIn) {
		return blocked(address)
	}
	return nil
}

// special are addresses beyond loopback and link-local at which clouds serve only their own machines, often with credentials, and addresses
// that stand for others.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // this host
	netip.MustParsePrefix("100.100.100.200/32"), // metadata of Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // wire server of Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // metadata of Oracle Cloud
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved, and broadcast
	netip.MustParsePrefix("fd00:ec2::/32"),      // metadata of AWS
	netip.MustParsePrefix("fd20:ce::254/128"),   // metadata of Google Cloud
	netip.MustParsePrefix("64:ff9b::/96"),       // IPv4 behind NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),     // local-use NAT64
	netip.MustParsePrefix("2002::/16"),          // IPv4 behind 6to4
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
		busy := &fault{reason: ReasonRateLimited, why: "HOST limits the request rate", status: status, isElsewhere: request.Response != nil}
		if status != http.StatusTooManyRequests {
			busy.reason, busy.why = ReasonServerError, fmt.Sprintf("HOST returned status %d", status)
		}
		busy.busyUntil, busy.saidBusy = retryAfter(wait, g.now())
		busy.log = fmt.Sprintf("status %d, retry after %s", status, busy.busyUntil.Format(time.RFC3339))
		return nil, busy
	}
	if response.StatusCode >= http.StatusBadRequest {
		// The registry's text would be cached with the error, and is never shown.
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
			return &fault{reason: ReasonUnreadable, why: "HOST redirects too often", log: fmt.Sprintf("more than %d redirects", maxRedirects)}
		}
	}
	return g.refuseBehindProxy(request)
}

// refuseBehindProxy checks what control cannot see if a proxy connects. A name that does not resolve here is left to the proxy.
func (g *guard) refuseBehindProxy(request *http.Request) error {
	if proxy, err := g.inner.Proxy(request); proxy == nil || err != nil {
		return err
	}
	name := request.URL.Hostname()
	if address, err := netip.ParseAddr(name); err == nil {
		return g.check(address)
	}
	// Some resolvers read numbers such as 2852039166 as an address. No DNS name has a digit first in its last label.
	if last := name[strings.LastIndexByte(name, '.')+1:]; last != "" && last[0] >= '0' && last[0] <= '9' {
		return blocked(netip.Addr{})
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

// retryAfter returns the time in the Retry-After header, which has seconds or a date (RFC 9110, section 10.2.3), within bounds. said is
// false if the time is a guess.
func retryAfter(header string, now time.Time) (until time.Time, said bool) {
	var after time.Duration
	if seconds, err := strconv.Atoi(header); err == nil {
		after = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(header); err == nil {
		after = date.Sub(now)
	} else {
		return now.Add(minRetryAfter), false
	}
	return now.Add(min(max(after, time.Second), maxRetryAfter)), true
}
