package entrypoint

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// TestIsOutage proves which failures are those of a whole registry, and not of an image, of credentials or of what it says.
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
		"silent at first":                     {of(unansweredError{context.DeadlineExceeded, true, false}), true},
		"closes the connection at first":      {of(unansweredError{io.EOF, true, false}), true},
		"nobody listens":                      {of(unansweredError{refused, true, false}), true},
		"nobody listens any more":             {of(unansweredError{refused, false, false}), true},
		"DNS has no answer":                   {of(unansweredError{&net.DNSError{Err: "no such host", IsNotFound: true}, true, false}), true},
		"silent about an image":               {of(unansweredError{context.DeadlineExceeded, false, false}), false},
		"silent where it has its tokens":      {of(unansweredError{context.DeadlineExceeded, false, false}), false},
		"closes the connection for an image":  {of(unansweredError{io.EOF, false, false}), false},
		"nobody listens behind a redirect":    {of(unansweredError{refused, false, true}), false},
		"silent, where whoever waits is told": {context.DeadlineExceeded, false},
		"not found in HOST":                   {&transport.Error{StatusCode: http.StatusNotFound}, false},
		"nothing for nobody":                  {&transport.Error{StatusCode: http.StatusUnauthorized}, false},
		"an error":                            {&transport.Error{StatusCode: http.StatusInternalServerError}, false},
		"a blocked address":                   {of(unansweredError{&net.OpError{Op: "dial", Err: &blockedError{}}, true, false}), false},
		"no TLS":                              {&url.Error{Err: errPlainHTTP}, false},
		"not an image":                        {errUnreadable, false},
	} {
		if got := faultOf(failure{source, c.err}).isOutage; got != c.want {
			t.Errorf("%s: isOutage is %t, want %t", what, got, c.want)
		}
	}
}
