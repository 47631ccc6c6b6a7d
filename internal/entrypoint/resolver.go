package entrypoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// Resolver finds the commands of images in their registries. It is safe for concurrent use.
//
// Its caches are bounded in bytes. The registry decides who may read an image: a digest is cached for a short time, under a fingerprint of
// the credentials that got it. Commands are cached under repository and digest, so that only a registry's digest gives access to them.
// Failures are cached for a short time, too, in this program's own words.
type Resolver struct {
	options   Options
	clock     clock.PassiveClock
	mirrors   map[string][]name.Registry
	static    map[string]image // by full image name
	transport http.RoundTripper
	answers   *expiring[question, answer]
	failures  *expiring[question, *fault]
	outages   *expiring[question, outage] // of registries
	contents  *expiring[contentKey, image]
	flights   singleflight.Group
	limiter   *fair.Limiter // of flights, by namespace
	bodies    *fair.Limiter // see session
}

// question asks for the digest of a reference, with given credentials. As a key of outages, the reference is a registry alone.
type question struct {
	reference string
	who       [sha256.Size]byte
}

// answer is a digest, and the index of the credential that got it.
type answer struct {
	digest v1.Hash
	by     int
	// session is the one that got the digest, to be reused.
	session *session
}

type contentKey struct {
	repository string
	digest     v1.Hash
}

// maxImageName bounds the names that are looked up and cached. Registries accept shorter names only.
const maxImageName = 1024

// Resolve returns the command of a Linux container. It takes at most Options.Timeout, and nine tenths of the time left in ctx. Its errors
// are *Error, one sentence for the user, or ctx's error.
func (r *Resolver) Resolve(ctx context.Context, request Request) (Command, error) {
	began := r.clock.Now()
	command, err := r.resolve(ctx, request)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	count(err, r.clock.Since(began))
	if err != nil {
		return Command{}, err
	}
	return command, nil
}

func (r *Resolver) resolve(ctx context.Context, request Request) (Command, error) {
	ref, err := r.parse(request.Image)
	if err != nil {
		return Command{}, &Error{
			Image: request.Image[:min(len(request.Image), maxImageName)], Reason: ReasonInvalidName,
			Cause: "has an invalid name", Remedy: "fix image", Permanent: true,
		}
	}
	if known, ok := r.static[ref.Name()]; ok {
		return choose(known, request, nil)
	}
	if !r.allows(host(ref)) {
		return Command{}, &Error{
			Image: request.Image, Reason: ReasonNotAllowed,
			Cause:  fmt.Sprintf("is in the registry %s, which images.allowedRegistries does not list", host(ref)),
			Remedy: setCommand,
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeoutFor(ctx))
	defer cancel()
	keys, err := r.keychainFor(ctx, request, ref)
	if err != nil {
		return Command{}, explain(request.Image, keys, r.clock.Now(), logged(ctx, request, ref, err))
	}
	always := alwaysPulls(request, ref)
	sources := r.sources(ref)
	var faults []*fault
	for i, source := range sources {
		var command Command
		found, digest, err := r.readWithin(ctx, len(sources)-i, source, keys, always)
		if err == nil {
			command, err = choose(found, request, func() string { return pinned(ref, digest) })
		}
		if _, unfit := errors.AsType[*Error](err); err == nil || unfit {
			return command, err
		}
		faults = append(faults, logged(ctx, request, source, err))
		if ctx.Err() != nil {
			break
		}
	}
	return Command{}, explain(request.Image, keys, r.clock.Now(), faults...)
}

// logged returns the fault behind an error, and writes its cause to the operator's log. If the user's sentence hides the cause, the level is
// info, once for each cached fault. Otherwise the level is debug.
func logged(ctx context.Context, request Request, source name.Reference, err error) *fault {
	log, f := logf.FromContext(ctx), faultOf(source, err)
	if f.why != unreachable || f.told.Swap(true) {
		log = log.V(1)
	}
	log.Info("Cannot resolve the command of an image", "namespace", request.Namespace, "image", request.Image, "registry", f.host, "why", f.log)
	return f
}

// timeoutFor leaves the caller a tenth of ctx's time to report the error.
func (r *Resolver) timeoutFor(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(r.options.Timeout.Duration, time.Until(deadline)*9/10)
	}
	return r.options.Timeout.Duration
}

func (r *Resolver) parse(image string) (name.Reference, error) {
	if len(image) > maxImageName {
		return nil, errors.New("the name is too long")
	}
	ref, err := name.ParseReference(image)
	if err != nil || !slices.Contains(r.options.PlainHTTP, ref.Context().RegistryStr()) {
		return ref, err
	}
	return name.ParseReference(image, name.Insecure)
}

// dockerHubHost is Docker Hub in image names. The library calls it name.DefaultRegistry.
const dockerHubHost = "docker.io"

// host returns the registry of ref as image names write it.
func host(ref name.Reference) string {
	if host := ref.Context().RegistryStr(); host != name.DefaultRegistry {
		return host
	}
	return dockerHubHost
}

func (r *Resolver) allows(host string) bool {
	allowed := r.options.AllowedRegistries
	return len(allowed) == 0 || slices.ContainsFunc(allowed, func(pattern string) bool { return hostFits(pattern, host) })
}

// pinned adds the digest to the reference. The tag stays, for readers.
func pinned(ref name.Reference, digest v1.Hash) string {
	repository := host(ref) + "/" + ref.Context().RepositoryStr()
	if tag, ok := ref.(name.Tag); ok {
		repository += ":" + tag.TagStr()
	}
	return repository + "@" + digest.String()
}

// sources returns the references to try in turn: at the mirrors, then at the registry itself.
func (r *Resolver) sources(ref name.Reference) []name.Reference {
	mirrors := r.mirrors[ref.Context().RegistryStr()]
	sources := make([]name.Reference, 0, len(mirrors)+1)
	for _, mirror := range mirrors {
		repository := mirror.Repo(ref.Context().RepositoryStr())
		if digest, ok := ref.(name.Digest); ok {
			sources = append(sources, repository.Digest(digest.DigestStr()))
		} else {
			sources = append(sources, repository.Tag(ref.Identifier()))
		}
	}
	return append(sources, ref)
}

// lookup asks one source for one Pod.
type lookup struct {
	*Resolver
	source name.Reference
	keys   keychain
	// asked is the key of the look-up, and registry the key of its registry's outage.
	asked, registry question
}

// readWithin reads from a source within one of the equal shares of ctx's time, so that a mirror that never answers leaves time for the
// others.
func (r *Resolver) readWithin(ctx context.Context, shares int, source name.Reference, keys keychain, always bool) (image, v1.Hash, error) {
	if deadline, ok := ctx.Deadline(); ok && shares > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	who := keys.fingerprint()
	l := lookup{r, source, keys, question{source.Name(), who}, question{source.Context().RegistryStr(), who}}
	answer, err := l.answer(ctx, always)
	if err != nil {
		return image{}, v1.Hash{}, err
	}
	found, err := l.content(ctx, answer)
	return found, answer.digest, err
}

// answer returns the digest that the reference has for these credentials.
func (l lookup) answer(ctx context.Context, always bool) (answer, error) {
	if !always {
		if known, ok := l.failures.get(l.asked); ok {
			return answer{}, known
		}
		if known, ok := l.answers.get(l.asked); ok {
			cacheHits.WithLabelValues("digest", "hit").Inc()
			return known, nil
		}
	}
	if known := l.outage(); known != nil {
		return answer{}, known
	}
	cacheHits.WithLabelValues("digest", "miss").Inc()
	return fly(ctx, l, fmt.Sprintf("digest %s %x", l.asked.reference, l.asked.who), func(ctx context.Context) (answer, error) {
		if known, ok := l.answers.get(l.asked); ok && !always { // another flight has landed since
			return known, nil
		}
		got, err := l.authorise(ctx)
		if err != nil {
			return answer{}, l.remember(err)
		}
		l.outages.drop(l.registry)
		l.answers.add(l.asked, answer{digest: got.digest, by: got.by}, l.asked.size(), l.options.TagTTL.Duration)
		return got, nil
	})
}

// entrySize is about what a cache entry takes beside its texts, in bytes.
const entrySize = 512

func (q question) size() int { return entrySize + len(q.reference) }

// outage is why a registry is not asked with these credentials for any image, and until when: it limits the request rate, or is
// unreachable.
type outage struct {
	why   *fault
	until time.Time
}

// outageTTL is how long an outage stays cached after its end, for the next request. It exceeds maxRetryAfter.
const outageTTL = 2 * maxRetryAfter

func (l lookup) suspend(why *fault, until time.Time) {
	l.outages.add(l.registry, outage{why, until}, l.registry.size(), outageTTL)
}

// outage returns the current fault of the registry, or nil if the caller shall ask it. After an outage ends, one caller asks, and the
// others get the old fault until that caller is done: a dead registry would otherwise hold all of them for a full timeout, again and again.
func (l lookup) outage() *fault {
	known, ok := l.outages.get(l.registry)
	if !ok {
		return nil
	}
	now := l.clock.Now()
	if !now.After(known.until) {
		return known.why
	}
	l.suspend(known.why, now.Add(l.options.Timeout.Duration))
	return nil
}

// endOutage records that the registry answers again, regardless of the image. Otherwise the first caller after an outage, with an image
// that takes long, would make all others wait.
func (l lookup) endOutage() {
	if known, ok := l.outages.get(l.registry); ok && !known.why.isBusy() {
		l.outages.drop(l.registry)
	}
}

// remember caches a failure, as an outage of the registry if it is one, and returns the cached fault.
func (l lookup) remember(err error) *fault {
	known := faultOf(l.source, err)
	switch {
	case known.isBusy() && !known.isElsewhere:
		l.suspend(known, known.busyUntil)
	case known.isOutage:
		l.suspend(known, l.clock.Now().Add(l.options.FailureTTL.Duration))
	default:
		l.outages.drop(l.registry)
		l.failures.add(l.asked, known, l.asked.size()+len(known.log), l.options.FailureTTL.Duration)
	}
	return known
}

// authorise tries each credential until the registry accepts one.
func (l lookup) authorise(ctx context.Context) (answer, error) {
	var worst error
	for i, authenticator := range l.keys.authenticators() {
		opened, err := l.open(ctx, authenticator)
		if err == nil {
			var digest v1.Hash
			if digest, err = opened.digest(ctx, l.source.Identifier()); err == nil {
				return answer{digest, i, opened}, nil
			}
		}
		known := faultOf(l.source, err)
		// A timeout after the first credential is no outage: less time was left.
		known.isOutage = known.isOutage && i == 0
		// Of several refusals, "not found" tells more than "forbidden".
		if worst == nil || isForbidden(worst) && !isForbidden(known) {
			worst = known
		}
		if !isForbidden(known) && !isMissing(known) {
			break
		}
	}
	return answer{}, worst
}

// content returns the image of the answer's digest.
func (l lookup) content(ctx context.Context, a answer) (image, error) {
	key := contentKey{l.source.Context().Name(), a.digest}
	if known, ok := l.contents.get(key); ok {
		cacheHits.WithLabelValues("command", "hit").Inc()
		return known, nil
	}
	if known := l.outage(); known != nil {
		return image{}, known
	}
	cacheHits.WithLabelValues("command", "miss").Inc()
	return fly(ctx, l, fmt.Sprintf("command %s %s %x", key.repository, key.digest, l.asked.who), func(ctx context.Context) (found image, err error) {
		if known, ok := l.contents.get(key); ok { // another flight has landed since
			return known, nil
		}
		opened := a.session
		if opened == nil {
			opened, err = l.open(ctx, l.keys.authenticators()[a.by])
		}
		if err == nil {
			found, err = opened.image(ctx, a.digest)
		}
		if err != nil {
			return image{}, l.remember(err)
		}
		l.outages.drop(l.registry)
		ttl := contentTTL
		if found.isSparse() {
			ttl = l.options.TagTTL.Duration
		}
		l.contents.add(key, found, entrySize+len(key.repository)+sizeOf(found.platforms), ttl)
		return found, nil
	})
}

// fly runs do once for all callers of a namespace that ask for the same. It goes on if the first caller leaves, within Options.Timeout, which
// begins when the namespace gets its turn.
func fly[T any](ctx context.Context, l lookup, what string, do func(context.Context) (T, error)) (T, error) {
	var none T
	namespace := l.keys.namespace
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	landed := l.flights.DoChan(namespace+" "+what, func() (any, error) {
		detached := context.WithoutCancel(ctx)
		waiting, giveUp := context.WithTimeout(detached, l.options.Timeout.Duration)
		defer giveUp()
		if err := l.limiter.Acquire(waiting, namespace); err != nil {
			return none, err
		}
		defer l.limiter.Release(namespace)
		bounded, cancel := context.WithTimeout(detached, l.options.Timeout.Duration)
		defer cancel()
		return do(bounded)
	})
	select {
	case result := <-landed:
		if result.Err != nil {
			return none, result.Err
		}
		return result.Val.(T), nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}
