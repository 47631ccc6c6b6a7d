package entrypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Error explains why the command of an image is unknown, in one sentence: image, cause and remedy. It never contains the words of a
// registry.
type Error struct {
	Image string
	// Reason is the cause in one word, one of the Reason constants. It is the label of taskflow_image_lookups_total.
	Reason string
	// Cause continues the sentence after the image, such as "has neither ENTRYPOINT nor CMD".
	Cause string
	// Remedy is an imperative for the user. It names fields of the step, such as "set command".
	Remedy string
	// Permanent is true if only a change of the Pod helps. Otherwise a retry may succeed.
	Permanent bool
	// RetryAfter is how long the registry asks to be left alone. 0 means that it did not say, or that only a mirror did.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("image %q %s; %s", e.Image, e.Cause, e.Remedy)
}

// IsRefusal reports whether a registry, or the operator's configuration, refused the look-up. A retry succeeds only after a change, such as
// a push or a new Secret. A registry that is down may recover by itself.
func (e *Error) IsRefusal() bool {
	switch e.Reason {
	case ReasonNotFound, ReasonUnauthorised, ReasonNotAllowed, ReasonBlocked:
		return true
	}
	return false
}

// The reasons of an Error. To add one: add it here, return a fault with it from classify (or an *unfitError, if the image itself is the cause),
// and describe its text in docs/images.md.
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

// setCommand is the remedy for nearly every cause: with a command, the image is not looked up.
const setCommand = "set command, or add the image to images.commands in the operator's configuration"

// unfitError is the inner part of a permanent Error: the image exists, but a step cannot run it without a command.
type unfitError struct {
	reason, cause, remedy string
}

func (e *unfitError) Error() string { return e.cause + "; " + e.remedy }

// missingError reports that an index lists a platform whose manifest or configuration the registry does not have.
type missingError struct{ platform string }

func (e *missingError) Error() string { return "listed for " + e.platform + ", but missing" }

// fault is why a registry did not return what it was asked for. It is cached, so it holds only short texts of this program: the words of a
// registry can be long, and can contain a credential.
type fault struct {
	// reason is one of the Reason constants.
	reason string
	// why and remedy are for the user. HOST in why stands for the registry. Both are empty if they depend on the Pod's credentials.
	why, remedy string
	// status is the HTTP status of the answer, or 0.
	status int
	// busyUntil is when a registry that limits the request rate may be asked again. saidBusy is false if the registry did not say when.
	busyUntil time.Time
	saidBusy  bool
	// isOutage is true if the registry is unreachable for these credentials, regardless of the image.
	isOutage bool
	// isElsewhere is true if a host to which the registry redirected caused the fault.
	isElsewhere bool
	// unfit is set if the registry answered, but a step cannot run the image.
	unfit *unfitError
	// log is the cause for the operator's log. told is set once it is logged.
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

// failure is what went wrong with one source, a mirror or the registry itself.
type failure struct {
	source name.Reference
	err    error
}

// explain makes one Error of the failures of all sources. The last source is the registry itself, so its reason and remedy count.
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
				Cause: fmt.Sprintf("cannot be resolved: the API server did not return the Secret %q", secret.secret),
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
		causes = append(causes, strings.Replace(why, "HOST", host(f.source), 1))
	}
	e.Cause = "cannot be resolved: " + strings.Join(causes, ", and ")
	return e
}

// The text for a registry that cannot be asked at all is the same for all causes. The author of a Pod chooses host and port, and could
// otherwise find out which of them exist behind the operator's network policies.
const (
	unreachable       = "HOST is unreachable, is not trusted, or does not answer in time"
	remedyUnreachable = "fix image, or set command; the operator's log has the cause"
)

// faultOf returns the fault behind a failure, and classifies an error that is none yet.
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

// classify maps an error to its reason, its text for the user and the remedy. The order of the cases matters: an error may match several.
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
			reason: ReasonBlocked, why: "HOST has a loopback, link-local or metadata address",
			remedy: "set command, or add the address to images.allowedAddresses in the operator's configuration",
		}
	// If plain HTTP is allowed, err joins the errors of both attempts. The certificate error of the first one explains why there was a second.
	case errors.As(err, &certificate):
		return &fault{reason: ReasonUntrusted, why: unreachable, remedy: remedyUnreachable}
	case isForbidden(err):
		return &fault{reason: ReasonUnauthorised, status: http.StatusForbidden}
	case isMissing(err):
		return &fault{
			reason: ReasonNotFound, status: http.StatusNotFound, why: "not found in HOST",
			remedy: "fix image, or set command, which is required if an earlier step pushes the image",
		}
	case errors.As(err, &missing):
		return &fault{
			reason: ReasonNotFound, why: "HOST lists it for " + missing.platform + " but does not have that platform",
			remedy: "push that platform, or set command",
		}
	}
	if busy, ok := errors.AsType[*busyError](err); ok {
		known := &fault{reason: ReasonRateLimited, why: "HOST limits the request rate", remedy: setCommand}
		if busy.status != http.StatusTooManyRequests {
			known.reason, known.why = ReasonServerError, fmt.Sprintf("HOST returned status %d", busy.status)
		}
		known.status, known.busyUntil, known.saidBusy, known.isElsewhere = busy.status, busy.until, busy.said, busy.redirected
		return known
	}
	switch {
	case errors.Is(err, errRealm):
		return &fault{
			reason: ReasonBlocked, why: "HOST issues its tokens at a private address without a DNS name, or without TLS",
			remedy: "set command, or give the registry's token service a DNS name and TLS",
		}
	case errors.As(err, &refused):
		return &fault{reason: ReasonServerError, status: refused.StatusCode, why: fmt.Sprintf("HOST returned status %d", refused.StatusCode), remedy: setCommand}
	case errors.Is(err, errRedirects):
		return &fault{reason: ReasonUnreadable, why: "HOST redirects too often", remedy: setCommand}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &fault{reason: ReasonUnreachable, why: unreachable, remedy: remedyUnreachable}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return &fault{reason: ReasonTimeout, why: unreachable, remedy: remedyUnreachable}
	case errors.Is(err, errWrongDigest):
		return &fault{reason: ReasonWrongDigest, why: "HOST serves content that does not match the digest", remedy: setCommand}
	case errors.As(err, &tooLarge):
		return &fault{reason: ReasonUnreadable, why: "HOST returned more than " + inBinary(tooLarge.Limit), remedy: setCommand}
	case errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errPlainHTTP) && !errors.As(err, &connection):
		return &fault{reason: ReasonUntrusted, why: unreachable, remedy: remedyUnreachable}
	case errors.As(err, &network):
		return &fault{reason: ReasonUnreachable, why: unreachable, remedy: remedyUnreachable}
	}
	return &fault{reason: ReasonUnreadable, why: "HOST returned content that is not an image", remedy: setCommand}
}

// inBinary formats a bound.
func inBinary(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

func whyForbidden(keys keychain) string {
	if len(keys.credentials) > 0 {
		return "HOST denies access with the Pod's credentials"
	}
	return "HOST denies access without credentials"
}

func remedyForbidden(host string, keys keychain) string {
	switch {
	case len(keys.unreadable) > 0:
		return fmt.Sprintf("fix the imagePullSecrets (%s), or set command", strings.Join(keys.unreadable, ", "))
	case len(keys.credentials) > 0:
		return "fix the imagePullSecrets, or set command"
	}
	return fmt.Sprintf("add an imagePullSecret for %s, or set command", host)
}

// isForbidden reports whether the registry denied access, so that another credential may help. Some registries also answer so for an image
// that does not exist, to hide which images do.
func isForbidden(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// isMissing reports whether the registry answered 404. Another credential may help here, too: some registries hide private images this way.
func isMissing(err error) bool { return statusOf(err) == http.StatusNotFound }

// statusOf returns the status of a registry's refusal, or 0.
func statusOf(err error) int {
	if known, ok := errors.AsType[*fault](err); ok {
		return known.status
	}
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		return refused.StatusCode
	}
	return 0
}
