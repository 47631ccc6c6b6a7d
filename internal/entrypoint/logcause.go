package entrypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxCause bounds the text that one error adds to the log, in bytes. A certificate alone can hold thousands of names.
const maxCause = 512

// cause describes an error for the operator's log: the host, and the words of this program or of the system. It never repeats the words of
// a registry, which could contain a credential.
func cause(source name.Reference, err error) string {
	inner, asked := err, ""
	if errors.Is(err, context.DeadlineExceeded) { // of the request, or of its caller, whose error names no host
		asked = host(source)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		inner = failed.Err
		if address, err := url.Parse(failed.URL); err == nil {
			asked = address.Host
		}
	}
	if unanswered, ok := errors.AsType[*unansweredError](inner); ok {
		inner = unanswered.err
	}
	why := fmt.Sprintf("an error of type %T", inner)
	if refused, ok := errors.AsType[*transport.Error](err); ok && refused.Request != nil {
		why, asked = fmt.Sprintf("status %d", refused.StatusCode), refused.Request.URL.Host
	} else if known := inOurWords(err); known != nil {
		why = known.Error()
	}
	if asked != "" {
		why = asked + ": " + why
	}
	if len(why) > maxCause {
		why = strings.ToValidUTF8(why[:maxCause], "") + "..."
	}
	return strings.Clone(why)
}

// inOurWords returns the part of an error that this program or the system worded. It returns nil if the error may repeat a registry.
func inOurWords(err error) error {
	for _, as := range []func(error) (error, bool){
		as[*fault], as[*http.MaxBytesError], as[*tls.CertificateVerificationError], as[*net.OpError], as[*net.DNSError],
	} {
		if known, ok := as(err); ok {
			return known
		}
	}
	for _, known := range []error{
		errUnreadable, context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF, http.ErrSchemeMismatch, errPlainHTTP,
		errSpeaksPlain,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return nil
}

func as[E error](err error) (error, bool) { return errors.AsType[E](err) }
