package entrypoint

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// TestIsOutage proves which failures concern a whole registry, and not an image, the credentials or an answer.
func TestIsOutage(t *testing.T) {
	source, err := name.ParseReference("registry.example.com/app")
	if err != nil {
		t.Fatal(err)
	}
	of := func(err unansweredError) error {
		return &url.Error{Op: "Get", URL: "https://registry.example.com/v2/", Err: &err}
	}
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"silent at first":                    {of(unansweredError{context.DeadlineExceeded, true, false}), true},
		"closes the connection at first":     {of(unansweredError{io.EOF, true, false}), true},
		"nothing listens":                    {of(unansweredError{refused, true, false}), true},
		"nothing listens any more":           {of(unansweredError{refused, false, false}), true},
		"DNS has no answer":                  {of(unansweredError{&net.DNSError{Err: "no such host", IsNotFound: true}, true, false}), true},
		"silent about an image":              {of(unansweredError{context.DeadlineExceeded, false, false}), false},
		"a silent token service":             {of(unansweredError{context.DeadlineExceeded, false, false}), false},
		"closes the connection for an image": {of(unansweredError{io.EOF, false, false}), false},
		"nothing listens behind a redirect":  {of(unansweredError{refused, false, true}), false},
		"the caller gave up":                 {context.DeadlineExceeded, false},
		"not found":                          {&transport.Error{StatusCode: http.StatusNotFound}, false},
		"no access":                          {&transport.Error{StatusCode: http.StatusUnauthorized}, false},
		"an error":                           {&transport.Error{StatusCode: http.StatusInternalServerError}, false},
		"a blocked address":                  {of(unansweredError{&net.OpError{Op: "dial", Err: blocked(netip.Addr{})}, true, false}), false},
		"no TLS":                             {&url.Error{Err: errPlainHTTP}, false},
		"not an image":                       {errUnreadable, false},
	} {
		if got := faultOf(source, c.err).isOutage; got != c.want {
			t.Errorf("%s: isOutage is %t, want %t", what, got, c.want)
		}
	}
}
