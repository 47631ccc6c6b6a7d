package entrypoint

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
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
	return slices.Contains([]string{ReasonNotFound, ReasonUnauthorised, ReasonNotAllowed, ReasonBlocked}, e.Reason)
}

// The reasons of an Error. To add one: add it here, return a fault with it where the cause is found (or from classify, for an error of a
// library), and describe its text in docs/images.md.
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

// fault is why a registry did not return what it was asked for. It is cached, so it holds only short texts of this program: the words of a
// registry can be long, and can contain a credential.
type fault struct {
	// reason is one of the Reason constants.
	reason string
	// why and remedy are for the user. HOST in why stands for the registry. The default remedy is setCommand. Both are empty if they depend
	// on the Pod's credentials.
	why, remedy string
	// isPermanent is true if the image exists, but a step cannot run it without a command.
	isPermanent bool
	// host is the registry or mirror. faultOf sets it.
	host string
	// status is the HTTP status of the answer, or 0.
	status int
	// busyUntil is when a registry that limits the request rate may be asked again. saidBusy is false if the registry did not say when.
	busyUntil time.Time
	saidBusy  bool
	// isOutage is true if the registry is unreachable for these credentials, regardless of the image.
	isOutage bool
	// isElsewhere is true if a host to which the registry redirected caused the fault.
	isElsewhere bool
	// log is the cause for the operator's log. told is set once it is logged.
	log  string
	told atomic.Bool
}

func (f *fault) Error() string { return f.log }

func (f *fault) isBusy() bool { return !f.busyUntil.IsZero() }

// explain makes one Error of the faults of all sources. The last source is the registry itself, so its reason and remedy count.
func explain(image string, keys keychain, now time.Time, faults ...*fault) *Error {
	e := &Error{Image: image}
	var causes []string
	for _, f := range faults {
		if f.isPermanent {
			return &Error{Image: image, Reason: f.reason, Cause: f.why, Remedy: f.remedy, Permanent: true}
		}
		why := f.why
		e.Reason, e.Remedy, e.RetryAfter = f.reason, cmp.Or(f.remedy, setCommand), 0
		if f.reason == ReasonUnauthorised {
			why, e.Remedy = forbidden(f.host, keys)
		}
		if f.saidBusy {
			e.RetryAfter = max(f.busyUntil.Sub(now), time.Second)
		}
		causes = append(causes, strings.Replace(why, "HOST", f.host, 1))
	}
	e.Cause = "cannot be resolved: " + strings.Join(causes, ", and ")
	return e
}

// faultOf returns the fault behind an error of a source, and classifies an error that has none.
func faultOf(source name.Reference, err error) *fault {
	known, ok := errors.AsType[*fault](err)
	if !ok {
		known = classify(err)
	}
	if known.host != "" {
		return known // complete, and maybe shared
	}
	known.host, known.log = host(source), cause(source, err)
	if unanswered, ok := errors.AsType[*unansweredError](err); ok {
		known.isElsewhere = unanswered.redirected
		known.isOutage = unanswered.isOutage() && (known.reason == ReasonTimeout || known.reason == ReasonUnreachable)
	}
	return known
}

// unreached is the fault of a registry that cannot be asked at all. Its text is the same for all causes. The author of a Pod chooses host
// and port, and could otherwise find out which of them exist behind the operator's network policies.
func unreached(reason string) *fault {
	return &fault{reason: reason, why: unreachable, remedy: "fix image, or set command; the operator's log has the cause"}
}

const unreachable = "HOST is unreachable, is not trusted, or does not answer in time"

// classify maps an error of a library to a fault. The order of the cases matters: an error may match several.
func classify(err error) *fault {
	var certificate *tls.CertificateVerificationError
	var refused *transport.Error
	var network net.Error
	var connection *net.OpError
	var dns *net.DNSError
	var tooLarge *http.MaxBytesError
	switch {
	// If plain HTTP is allowed, err joins the errors of both attempts. The certificate error of the first one explains why there was a second.
	case errors.As(err, &certificate):
		return unreached(ReasonUntrusted)
	case isForbidden(err):
		return &fault{reason: ReasonUnauthorised, status: http.StatusForbidden}
	case isMissing(err):
		return &fault{
			reason: ReasonNotFound, status: http.StatusNotFound, why: "not found in HOST",
			remedy: "fix image, or set command, which is required if an earlier step pushes the image",
		}
	case errors.As(err, &refused):
		return &fault{reason: ReasonServerError, status: refused.StatusCode, why: fmt.Sprintf("HOST returned status %d", refused.StatusCode)}
	case errors.As(err, &dns) && dns.IsNotFound:
		return unreached(ReasonUnreachable)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return unreached(ReasonTimeout)
	case errors.As(err, &tooLarge):
		return &fault{reason: ReasonUnreadable, why: "HOST returned more than " + inBinary(tooLarge.Limit)}
	case errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, errPlainHTTP) && !errors.As(err, &connection):
		return unreached(ReasonUntrusted)
	case errors.As(err, &network):
		return unreached(ReasonUnreachable)
	}
	return &fault{reason: ReasonUnreadable, why: "HOST returned content that is not an image"}
}

// inBinary formats a bound.
func inBinary(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}

// forbidden returns the text for a registry that denied access to the Pod.
func forbidden(host string, keys keychain) (why, remedy string) {
	why, remedy = "HOST denies access with the Pod's credentials", "fix the imagePullSecrets, or set command"
	if len(keys.credentials) == 0 {
		why, remedy = "HOST denies access without credentials", fmt.Sprintf("add an imagePullSecret for %s, or set command", host)
	}
	if len(keys.unreadable) > 0 {
		remedy = fmt.Sprintf("fix the imagePullSecrets (%s), or set command", strings.Join(keys.unreadable, ", "))
	}
	return why, remedy
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
