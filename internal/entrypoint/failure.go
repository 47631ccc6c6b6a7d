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
	"sync/atomic"
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

// IsRefusal reports whether a registry, or the configuration, has said no. The next try may help if somebody pushes the image or corrects a
// Secret, but not by itself, as it may while a registry is out.
func (e *Error) IsRefusal() bool {
	switch e.Reason {
	case ReasonNotFound, ReasonUnauthorised, ReasonNotAllowed, ReasonBlocked:
		return true
	}
	return false
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

// fault is why a registry didn't give what it was asked for. It has this program's own words alone, and few of them: it is kept in mind, and
// what a registry says can be long, and can repeat a credential.
type fault struct {
	// reason is one of those of Error.
	reason string
	// why and remedy are for the user. Empty, they depend on the Pod's credentials.
	why, remedy string
	// status is that of the registry's answer, if that is the fault.
	status int
	// busyUntil is when a registry that limits the rate of requests may be asked again. saidBusy is false if that is a guess.
	busyUntil time.Time
	saidBusy  bool
	// isOutage says that nobody with the same credentials would hear anything of the registry, whichever image it is about.
	isOutage bool
	// isElsewhere says that it was another host's, to which the registry had redirected.
	isElsewhere bool
	// unfit is set if the registry has told all, and a step can't run it.
	unfit *unfitError
	// log is for the operator's log, and told says that it has it.
	log  string
	told atomic.Bool
}

func (f *fault) Error() string { return f.log }

func (f *fault) Unwrap() error {
	if f.unfit == nil {
		return nil
	}
	return f.unfit
}

func (f *fault) isBusy() bool { return !f.busyUntil.IsZero() }

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
		known := faultOf(f)
		why := known.why
		e.Reason, e.Remedy, e.RetryAfter = known.reason, known.remedy, 0
		if known.reason == ReasonUnauthorised {
			why, e.Remedy = whyForbidden(keys), remedyForbidden(host(f.source), keys)
		}
		if known.saidBusy {
			e.RetryAfter = max(known.busyUntil.Sub(now), time.Second)
		}
		causes = append(causes, fmt.Sprintf("the registry %s %s", host(f.source), why))
	}
	e.Cause = "can't be asked for its command, because " + strings.Join(causes, ", and ")
	return e
}

// What the user hears of a registry that can't be asked at all. It is the same for all causes: who may create a Pod chooses the host and the
// port, and would learn from the difference which of them exist behind the operator's network policies.
const (
	unreachable       = "can't be reached, isn't trusted, or doesn't answer in time"
	remedyUnreachable = "correct the image, or set command; the operator's log has the cause"
)

// faultOf says in a few words of ours what went wrong with a registry, and what helps.
func faultOf(f failure) *fault {
	if known, ok := errors.AsType[*fault](f.err); ok {
		return known
	}
	known := classify(f.err)
	known.log = cause(f)
	if unanswered, ok := errors.AsType[*unansweredError](f.err); ok {
		known.isElsewhere = unanswered.redirected
		known.isOutage = unanswered.isOutage() && (known.reason == ReasonTimeout || known.reason == ReasonUnreachable)
	}
	return known
}

func classify(err error) *fault {
	var certificate *tls.CertificateVerificationError
	var refused *transport.Error
	var blocked *blockedError
	var missing *missingError
	var network net.Error
	var connection *net.OpError
	var dns *net.DNSError
	var tooLarge *http.MaxBytesError
	var unfit *unfitError
	switch {
	case errors.As(err, &unfit):
		return &fault{reason: unfit.reason, unfit: unfit}
	case errors.As(err, &blocked):
		return &fault{
			reason: ReasonBlocked, why: "is at a loopback, link-local or metadata address",
			remedy: "set command, or have allowedAddresses name it in taskflow's configuration",
		}
	// Of a registry that may be spoken to without TLS, err is two errors, of the try with TLS and of that without: what the first
	// says of the certificate explains why there was a second.
	case errors.As(err, &certificate):
		return &fault{reason: ReasonUntrusted, why: unreachable, remedy: remedyUnreachable}
	case isForbidden(err):
		return &fault{reason: ReasonUnauthorised, status: http.StatusForbidden}
	case isMissing(err):
		return &fault{
			reason: ReasonNotFound, status: http.StatusNotFound, why: "has no such image",
			remedy: "correct the image, or set command, which the image needs if an earlier step pushes it",
		}
	case errors.As(err, &missing):
		return &fault{
			reason: ReasonNotFound, why: "lists it for " + missing.platform + " and doesn't have that",
			remedy: "push it for that platform, too, or set command",
		}
	}
	if busy, ok := errors.AsType[*busyError](err); ok {
		known := &fault{reason: ReasonRateLimited, why: "limits the rate of requests", remedy: setCommand}
		if busy.status != http.StatusTooManyRequests {
			known.reason, known.why = ReasonServerError, fmt.Sprintf("answers with status %d", busy.status)
		}
		known.status, known.busyUntil, known.saidBusy, known.isElsewhere = busy.status, busy.until, busy.said, busy.redirected
		return known
	}
	switch {
	case errors.Is(err, errRealm):
		return &fault{
			reason: ReasonBlocked, why: "has its tokens at a private address without a name, or without TLS",
			remedy: "set command, or give the registry's token service a name and TLS",
		}
	case errors.As(err, &refused):
		return &fault{reason: ReasonServerError, status: refused.StatusCode, why: fmt.Sprintf("answers with status %d", refused.StatusCode), remedy: setCommand}
	case errors.Is(err, errRedirects):
		return &fault{reason: ReasonUnreadable, why: "redirects too often", remedy: setCommand}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &fault{reason: ReasonUnreachable, why: unreachable, remedy: remedyUnreachable}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return &fault{reason: ReasonTimeout, why: unreachable, remedy: remedyUnreachable}
	case errors.Is(err, errWrongDigest):
		return &fault{reason: ReasonWrongDigest, why: "serves something else than what the digest stands for", remedy: setCommand}
	case errors.As(err, &tooLarge):
		return &fault{reason: ReasonUnreadable, why: "answers with more than " + inBinary(tooLarge.Limit), remedy: setCommand}
	case errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errPlainHTTP) && !errors.As(err, &connection):
		return &fault{reason: ReasonUntrusted, why: unreachable, remedy: remedyUnreachable}
	case errors.As(err, &network):
		return &fault{reason: ReasonUnreachable, why: unreachable, remedy: remedyUnreachable}
	}
	return &fault{reason: ReasonUnreadable, why: "answers with something that can't be read as an image", remedy: setCommand}
}

// inBinary writes a bound.
func inBinary(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// maxCause bounds what the log has of one error. Certificates alone can have thousands of names.
const maxCause = 512

// cause is what the log has of an error, for whoever runs the registry or what is between: the words of this program and of the system, and
// which host it was about. Any others may be those of a registry, which could repeat a credential; an address behind the host may be one.
func cause(f failure) string {
	err := f.err
	why, who := fmt.Sprintf("an error of type %T", innermost(err)), ""
	if errors.Is(err, context.DeadlineExceeded) { // the request's own time is over, or first that of who waits for it, which names nobody
		who = host(f.source)
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		if address, err := url.Parse(asked.URL); err == nil {
			who = address.Host
		}
	}
	if refused, ok := errors.AsType[*transport.Error](err); ok && refused.Request != nil {
		why, who = fmt.Sprintf("status %d", refused.StatusCode), refused.Request.URL.Host
	} else if spoken := inOurWords(err); spoken != nil {
		why = spoken.Error()
	}
	if who != "" {
		why = who + ": " + why
	}
	if len(why) > maxCause {
		why = strings.ToValidUTF8(why[:maxCause], "") + "..."
	}
	return strings.Clone(why)
}

// innermost is the error that says what a request of the HTTP client has failed for, or the error itself.
func innermost(err error) error {
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err
		if unanswered, ok := errors.AsType[*unansweredError](err); ok {
			err = unanswered.err
		}
	}
	return err
}

// inOurWords returns nil for an error that may have the words of a registry.
func inOurWords(err error) error {
	for _, as := range []func(error) (error, bool){
		as[*fault], as[*secretError], as[*unfitError], as[*missingError], as[*busyError], as[*blockedError], as[*http.MaxBytesError],
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
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// isMissing is true of what another credential may mend, too: some registries hide what somebody may not see.
func isMissing(err error) bool { return statusOf(err) == http.StatusNotFound }

// statusOf is that of a registry's refusal, or 0.
func statusOf(err error) int {
	if known, ok := errors.AsType[*fault](err); ok {
		return known.status
	}
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		return refused.StatusCode
	}
	return 0
}
