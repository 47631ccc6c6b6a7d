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
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Error is why the command of an image isn't known: one sentence that names the image, the cause and the remedy. What a registry
// said is never part of it.
type Error struct {
	Image string
	// Reason is the cause in one word, for metrics.
	Reason string
	// Cause is what the sentence says of the image, such as "has neither ENTRYPOINT nor CMD".
	Cause string
	// Remedy is what the user can do, an imperative such as "set command" (of the step).
	Remedy string
	// Permanent says that only another image or another Pod mends it; otherwise the next try may do.
	Permanent bool
	// RetryAfter is how long the registry still wants to be left alone. 0: it hasn't said, or it was a mirror's wish alone.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("image %q %s: %s", e.Image, e.Cause, e.Remedy)
}

// Reasons of Error.
const (
	ReasonInvalidName  = "InvalidName"
	ReasonUnfit        = "Unfit"
	ReasonNotAllowed   = "NotAllowed"
	ReasonSecret       = "PullSecret"
	ReasonUnauthorised = "Unauthorised"
	ReasonNotFound     = "NotFound"
	ReasonRateLimited  = "RateLimited"
	ReasonServerError  = "ServerError"
	ReasonTimeout      = "Timeout"
	ReasonUnreachable  = "Unreachable"
	ReasonUntrusted    = "Untrusted"
	ReasonBlocked      = "Blocked"
	ReasonWrongDigest  = "WrongDigest"
	ReasonUnreadable   = "Unreadable"
)

// setCommand is the remedy that helps nearly always: nobody needs to ask the image then.
const setCommand = "set command, or add the image to taskflow's table of commands"

// unfitError is the middle of a permanent Error: the image is there, and a step can't run it without a command.
type unfitError struct {
	reason, cause, remedy string
}

func (e *unfitError) Error() string { return e.cause + ": " + e.remedy }

// missingError says that an index lists a platform, and that the registry hasn't what it lists.
type missingError struct{ platform string }

func (e *missingError) Error() string { return "it lists " + e.platform + " and doesn't have that" }

// failure is what went wrong with one source.
type failure struct {
	source name.Reference
	err    error
}

// explain makes one sentence of what went wrong with all sources. The last is the registry itself, whose failure has the remedy.
func explain(image string, keys keychain, now time.Time, failures ...failure) *Error {
	e := &Error{Image: image}
	var causes []string
	for _, f := range failures {
		if unfit, ok := errors.AsType[*unfitError](f.err); ok {
			return &Error{Image: image, Reason: unfit.reason, Cause: unfit.cause, Remedy: unfit.remedy, Permanent: true}
		}
		if secret, ok := errors.AsType[*secretError](f.err); ok {
			return &Error{
				Image: image, Reason: ReasonSecret, Remedy: setCommand,
				Cause: fmt.Sprintf("can't be asked for its command, because the API server doesn't give the Secret %q", secret.secret),
			}
		}
		var why string
		e.Reason, why, e.Remedy = describe(f, keys)
		e.RetryAfter = 0
		if busy, ok := asBusy(f.err); ok && busy.said {
			e.RetryAfter = max(busy.until.Sub(now), time.Second)
		}
		causes = append(causes, fmt.Sprintf("the registry %s %s", host(f.source), why))
	}
	e.Cause = "can't be asked for its command, because " + strings.Join(causes, ", and ")
	return e
}

// describe says in a few words of ours what went wrong with a registry, and what helps. Its own words may hold anything, and are
// of no use to the user.
func describe(f failure, keys keychain) (reason, why, remedy string) {
	var certificate *tls.CertificateVerificationError
	var refused *transport.Error
	var blocked *blockedError
	var missing *missingError
	var network net.Error
	var connection *net.OpError
	var dns *net.DNSError
	var tooLarge *http.MaxBytesError
	err := f.err
	switch {
	case errors.As(err, &blocked):
		return ReasonBlocked, "is at a loopback, link-local or metadata address", "set command, or have allowedAddresses name it in taskflow's configuration"
	// Of a registry that may be spoken to without TLS, err is two errors, of the try with TLS and of that without: what the first
	// says of the certificate explains why there was a second.
	case errors.As(err, &certificate):
		return ReasonUntrusted, "has a certificate that isn't trusted", "set command, or add its authority to caBundle in taskflow's configuration"
	case isForbidden(err):
		return ReasonUnauthorised, whyForbidden(keys), remedyForbidden(host(f.source), keys)
	case isMissing(err):
		return ReasonNotFound, "has no such image", "correct the image, or set command"
	case errors.As(err, &missing):
		return ReasonNotFound, "lists it for " + missing.platform + " and doesn't have that", "push it for that platform, too, or set command"
	}
	if busy, ok := asBusy(err); ok && busy.status == http.StatusTooManyRequests {
		return ReasonRateLimited, "limits the rate of requests", setCommand
	} else if ok {
		return ReasonServerError, fmt.Sprintf("answers with status %d", busy.status), setCommand
	}
	switch {
	case errors.Is(err, errRealm):
		return ReasonBlocked, "has its tokens at a private address without a name, or without TLS", "set command, or give the registry's token service a name and TLS"
	case errors.As(err, &refused):
		return ReasonServerError, fmt.Sprintf("answers with status %d", refused.StatusCode), setCommand
	case errors.Is(err, errRedirects):
		return ReasonUnreadable, "redirects too often", setCommand
	case errors.As(err, &dns) && dns.IsNotFound:
		return ReasonUnreachable, "has a name that isn't known", "correct the image, or set command"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return ReasonTimeout, "doesn't answer in time", setCommand
	case errors.Is(err, errWrongDigest):
		return ReasonWrongDigest, "serves something else than what the digest stands for", setCommand
	case errors.As(err, &tooLarge):
		return ReasonUnreadable, fmt.Sprintf("answers with more than %d MiB", maxResponse>>20), setCommand
	case errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errPlainHTTP) && !errors.As(err, &connection):
		return ReasonUntrusted, "has no TLS", "set command, or add the registry to plainHTTP in taskflow's configuration"
	case errors.As(err, &network):
		return ReasonUnreachable, "can't be reached", setCommand
	}
	return ReasonUnreadable, "answers with something that can't be read as an image", setCommand
}

// cause is what the log has of an error, for whoever runs the registry or what is between: the words of this program and of the system, and
// which host it was about. Any others may be those of a registry, which could repeat a credential; an address behind the host may be one.
func cause(f failure) string {
	err := f.err
	why, who := fmt.Sprintf("an error of type %T", err), ""
	if errors.Is(err, context.DeadlineExceeded) { // the request's own time is over, or first that of who waits for it, which names nobody
		who = host(f.source)
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		why = fmt.Sprintf("an error of type %T", asked.Err)
		if address, err := url.Parse(asked.URL); err == nil {
			who = address.Host
		}
	}
	if refused, ok := errors.AsType[*transport.Error](err); ok && refused.Request != nil {
		why, who = fmt.Sprintf("status %d", refused.StatusCode), refused.Request.URL.Host
	} else if spoken := inOurWords(err); spoken != nil {
		why = spoken.Error()
	}
	if who == "" {
		return why
	}
	return who + ": " + why
}

// inOurWords returns nil for an error that may have the words of a registry.
func inOurWords(err error) error {
	for _, as := range []func(error) (error, bool){
		as[*secretError], as[*unfitError], as[*missingError], as[*busyError], as[*blockedError], as[*http.MaxBytesError],
		as[*tls.CertificateVerificationError], as[*net.OpError], as[*net.DNSError],
	} {
		if known, ok := as(err); ok {
			return known
		}
	}
	for _, known := range []error{
		errRealm, errWrongDigest, errUnreadable, errRedirects, context.DeadlineExceeded, context.Canceled, io.EOF, io.ErrUnexpectedEOF,
		http.ErrSchemeMismatch, errPlainHTTP, errSpeaksPlain,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return nil
}

func as[E error](err error) (error, bool) { return errors.AsType[E](err) }

// isOut is true where nobody would hear anything of the registry now, whichever image and credentials he has.
func isOut(f failure) bool {
	reason, _, _ := describe(f, keychain{})
	return reason == ReasonTimeout || reason == ReasonUnreachable
}

func whyForbidden(keys keychain) string {
	if len(keys.credentials) > 0 {
		return "takes none of the Pod's credentials for it"
	}
	return "doesn't show it without credentials"
}

func remedyForbidden(host string, keys keychain) string {
	switch {
	case len(keys.unreadable) > 0:
		return fmt.Sprintf("correct the imagePullSecrets (%s), or set command", strings.Join(keys.unreadable, ", "))
	case len(keys.credentials) > 0:
		return "correct the imagePullSecrets, or set command"
	}
	return fmt.Sprintf("add an imagePullSecret for %s, or set command", host)
}

// isForbidden is true of what another credential may mend. Some registries say so of an image that isn't there, too: they don't tell
// strangers which of the two it is.
func isForbidden(err error) bool {
	var refused *transport.Error
	return errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden)
}

// isMissing is true of what another credential may mend, too: some registries hide what somebody may not see.
func isMissing(err error) bool {
	var refused *transport.Error
	return errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound
}

func asBusy(err error) (*busyError, bool) {
	return errors.AsType[*busyError](err)
}
