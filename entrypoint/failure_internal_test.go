package entrypoint

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// TestIsOut proves which failures are those of a whole registry, and not of an image, of credentials or of what it says.
func TestIsOut(t *testing.T) {
	source, err := name.ParseReference("registry.example.com/app")
	if err != nil {
		t.Fatal(err)
	}
	of := func(err error) error { return &url.Error{Op: "Get", URL: "https://registry.example.com/v2/", Err: err} }
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"time is over":       {of(context.DeadlineExceeded), true},
		"nobody listens":     {of(&net.OpError{Op: "dial", Err: errors.New("connection refused")}), true},
		"DNS has no answer":  {of(&net.DNSError{Err: "no such host", IsNotFound: true}), true},
		"DNS is silent":      {of(&net.DNSError{Err: "i/o timeout", IsTimeout: true}), true},
		"no such image":      {&transport.Error{StatusCode: http.StatusNotFound}, false},
		"nothing for nobody": {&transport.Error{StatusCode: http.StatusUnauthorized}, false},
		"an error":           {&transport.Error{StatusCode: http.StatusInternalServerError}, false},
		"a blocked address":  {of(&net.OpError{Op: "dial", Err: &blockedError{}}), false},
		"no TLS":             {of(errPlainHTTP), false},
		"not an image":       {errUnreadable, false},
	} {
		if got := isOut(failure{source, c.err}); got != c.want {
			t.Errorf("%s: isOut is %t, want %t", what, got, c.want)
		}
	}
}
