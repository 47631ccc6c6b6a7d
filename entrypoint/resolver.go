package entrypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// DefaultTimeout is Options.Timeout where that is zero.
const DefaultTimeout = 10 * time.Second

// maxResponse bounds what is read of one response. Whoever writes a Pod chooses the registry, which could send without end;
// 4 MiB is also how much of a manifest the distribution specification wants registries to take.
const maxResponse = 4 << 20

// Options are where and how a Resolver asks.
type Options struct {
	// Mirrors are asked before a registry itself: by the registry's host as image names write it ("docker.io" for
	// Docker Hub), the base URLs, http or https, in the order in which they are tried. Default: none.
	Mirrors map[string][]string
	// PlainHTTPHosts are the registries, host or host:port, that are spoken to without TLS. Default: those that
	// go-containerregistry takes to be local.
	PlainHTTPHosts []string
	// Timeout bounds one Resolve, all requests together. A mirror may use its equal share of it. Default: DefaultTimeout.
	Timeout time.Duration
}

// Resolver reads the commands of images from their registries, anonymously. It is safe for concurrent use.
type Resolver struct {
	mirrors   map[string][]name.Registry
	plainHTTP []string
	timeout   time.Duration
	transport http.RoundTripper
}

// New fails on a mirror that isn't the base URL of a registry.
func New(o Options) (*Resolver, error) {
	r := &Resolver{
		mirrors:   map[string][]name.Registry{},
		plainHTTP: o.PlainHTTPHosts,
		timeout:   o.Timeout,
		transport: limitedTransport{remote.DefaultTransport.(*http.Transport).Clone()},
	}
	if r.timeout == 0 {
		r.timeout = DefaultTimeout
	}
	for _, host := range slices.Sorted(maps.Keys(o.Mirrors)) {
		registry, err := name.NewRegistry(host, name.StrictValidation)
		if err != nil {
			return nil, fmt.Errorf("mirrors of %q: that must be a registry's HOST or HOST:PORT", host)
		}
		key := registry.RegistryStr() // "docker.io" and "index.docker.io" are the same
		for _, base := range o.Mirrors[host] {
			mirror, ok := parseMirror(base)
			if !ok {
				return nil, fmt.Errorf("mirrors of %q: %q must be http://HOST[:PORT] or https://HOST[:PORT]", host, base)
			}
			r.mirrors[key] = append(r.mirrors[key], mirror)
		}
	}
	return r, nil
}

func parseMirror(base string) (name.Registry, bool) {
	parsed, err := url.Parse(base)
	if err != nil || parsed.Hostname() == "" {
		return name.Registry{}, false
	}
	// What is left of it must be all of it: a path, a query or a password would be passed over in silence.
	bare := url.URL{Scheme: parsed.Scheme, Host: parsed.Host}
	if strings.TrimSuffix(base, "/") != bare.String() {
		return name.Registry{}, false
	}
	options := []name.Option{name.StrictValidation}
	switch parsed.Scheme {
	case "http":
		options = append(options, name.Insecure)
	case "https":
	default:
		return name.Registry{}, false
	}
	registry, err := name.NewRegistry(parsed.Host, options...)
	return registry, err == nil
}

// limitedTransport fails the reading of a response that is longer than maxResponse.
type limitedTransport struct {
	inner http.RoundTripper
}

func (t limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.inner.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxResponse)
	return response, nil
}

// Error is why the command of an image isn't known: one sentence that names the image, the cause and the remedy. What a registry
// said is never part of it.
type Error struct {
	Image string
	// Cause is what the sentence says of the image, such as "has neither ENTRYPOINT nor CMD".
	Cause string
	// Remedy is what the user can do, an imperative such as "set command" (of the step).
	Remedy string
	// Permanent says that only another image or another Pod mends it; otherwise the next try may do.
	Permanent bool
}

func (e *Error) Error() string {
	return fmt.Sprintf("image %q %s: %s", e.Image, e.Cause, e.Remedy)
}

// setCommand is the remedy that helps nearly always: nobody needs to ask the image then.
const setCommand = "set command"

// Resolve finds the command of a container for linux, within Options.Timeout. Its errors are *Error, one sentence for the user, or that
// of ctx.
func (r *Resolver) Resolve(ctx context.Context, request Request) (Command, error) {
	image, architecture := request.Image, request.Architecture
	ref, err := r.parse(image)
	if err != nil {
		return Command{}, &Error{Image: image, Cause: "has an invalid name", Remedy: "correct it", Permanent: true}
	}
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()

	sources := r.sources(ref)
	var causes []string
	for i, source := range sources {
		command, err := r.readWithin(limited, len(sources)-i, source, architecture)
		if err == nil {
			return command, nil
		}
		if ctx.Err() != nil {
			return Command{}, ctx.Err()
		}
		if unfit, ok := errors.AsType[*unfitError](err); ok {
			return Command{}, &Error{Image: image, Cause: unfit.cause, Remedy: unfit.remedy, Permanent: true}
		}
		causes = append(causes, fmt.Sprintf("the registry %s %s", host(source), describe(err)))
	}
	cause := "can't be asked for its command, because " + strings.Join(causes, ", and ")
	return Command{}, &Error{Image: image, Cause: cause, Remedy: setCommand}
}

// host is the registry of ref as image names write it.
func host(ref name.Reference) string {
	if host := ref.Context().RegistryStr(); host != name.DefaultRegistry {
		return host
	}
	return "docker.io"
}

func (r *Resolver) parse(image string) (name.Reference, error) {
	ref, err := name.ParseReference(image)
	if err != nil || !slices.Contains(r.plainHTTP, ref.Context().RegistryStr()) {
		return ref, err
	}
	return name.ParseReference(image, name.Insecure)
}

// sources are the references to ask for in turn: at the mirrors, then at the registry itself.
func (r *Resolver) sources(ref name.Reference) []name.Reference {
	var sources []name.Reference
	for _, mirror := range r.mirrors[ref.Context().RegistryStr()] {
		repository := mirror.Repo(ref.Context().RepositoryStr())
		if digest, ok := ref.(name.Digest); ok {
			sources = append(sources, repository.Digest(digest.DigestStr()))
		} else {
			sources = append(sources, repository.Tag(ref.Identifier()))
		}
	}
	return append(sources, ref)
}

// unfitError is the middle of a permanent Error: the image is there, and a step can't run it without a command.
type unfitError struct {
	cause, remedy string
}

func (e *unfitError) Error() string { return e.cause + ": " + e.remedy }

// readWithin reads in the first of the equal shares of the time that ctx has left, so that a mirror that never answers leaves time
// for the sources after it.
func (r *Resolver) readWithin(ctx context.Context, shares int, ref name.Reference, architecture string) (Command, error) {
	if deadline, ok := ctx.Deadline(); ok && shares > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	return r.read(ctx, ref, architecture)
}

func (r *Resolver) read(ctx context.Context, ref name.Reference, architecture string) (Command, error) {
	options := []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(r.transport),
		// The caller tries again, with a back-off of its own.
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
	}
	descriptor, err := remote.Get(ref, options...)
	if err != nil {
		return Command{}, err
	}
	command, err := readDescriptor(ctx, descriptor, architecture)
	if err == nil && len(command.Entrypoint)+len(command.Cmd) == 0 {
		err = &unfitError{"has neither ENTRYPOINT nor CMD", setCommand}
	}
	return command, err
}

func readDescriptor(ctx context.Context, descriptor *remote.Descriptor, architecture string) (Command, error) {
	// It is a Content-Type header, to which some registries add a charset.
	mediaType, _, _ := strings.Cut(string(descriptor.MediaType), ";")
	if types.MediaType(mediaType).IsIndex() {
		index, err := descriptor.ImageIndex()
		if err != nil {
			return Command{}, err
		}
		return readIndex(ctx, index, architecture)
	}
	image, err := descriptor.Image()
	if err != nil {
		return Command{}, err
	}
	return readImage(image)
}

// readImage leaves the architecture be, as container runtimes do with an image that is not in an index.
func readImage(image v1.Image) (Command, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return Command{}, err
	}
	if config.OS != "" && config.OS != "linux" {
		return Command{}, lacks("") // which it is made for instead would be the registry's words
	}
	return commandOf(config), nil
}

func commandOf(config *v1.ConfigFile) Command {
	command := Command{Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd}
	if slices.Equal(command.Entrypoint, []string{""}) {
		command.Entrypoint = nil
	}
	return command
}

// readIndex reads the images for linux and the architecture, which may be several (variants, or all architectures), and
// wants them to agree. Attestations, which an index may list beside its images, are of platform unknown/unknown.
func readIndex(ctx context.Context, index v1.ImageIndex, architecture string) (Command, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return Command{}, err
	}
	var first *Command
	for _, entry := range manifest.Manifests {
		// Entries may hold their images in themselves, thousands of them, and then there is no request that would fail.
		if ctx.Err() != nil {
			return Command{}, ctx.Err()
		}
		if !entry.MediaType.IsImage() || entry.Platform != nil && !fits(entry.Platform, architecture) {
			continue
		}
		image, err := index.Image(entry.Digest)
		if err != nil {
			return Command{}, err
		}
		config, err := image.ConfigFile()
		if err != nil {
			return Command{}, err
		}
		// An entry need not say its platform. Container runtimes then take that of the image's configuration.
		if entry.Platform == nil && !fits(config.Platform(), architecture) {
			continue
		}
		command := commandOf(config)
		if first == nil {
			first = &command
		}
		if !command.equal(*first) {
			return Command{}, differs(architecture)
		}
	}
	if first == nil {
		return Command{}, lacks(architecture)
	}
	return *first, nil
}

func fits(platform *v1.Platform, architecture string) bool {
	return platform != nil && platform.OS == "linux" && (architecture == "" || platform.Architecture == architecture)
}

func differs(architecture string) error {
	if architecture == "" {
		return &unfitError{"has different commands for different platforms", setCommand + ", or a nodeSelector on kubernetes.io/arch"}
	}
	return &unfitError{"has different commands for the variants of linux/" + architecture, setCommand}
}

func lacks(architecture string) error {
	if architecture == "" {
		return &unfitError{"isn't made for linux", "set one that is"}
	}
	return &unfitError{"isn't made for linux/" + architecture, "set one that is, or another nodeSelector on kubernetes.io/arch"}
}

// describe says in a few words of ours what went wrong with a registry. Its own words may hold anything, and are of no use to
// the user.
func describe(err error) string {
	var certificate *tls.CertificateVerificationError
	var refused *transport.Error
	var network net.Error
	switch {
	// Of a registry that is taken to be local, err is two errors, of the try with TLS and of that without: what the first says of
	// the certificate explains why there was a second.
	case errors.As(err, &certificate):
		return "has a certificate that isn't trusted"
	case errors.As(err, &refused):
		switch refused.StatusCode {
		// Registries answer so for an image that isn't there, too: they don't tell strangers which of the two it is.
		case http.StatusUnauthorized, http.StatusForbidden:
			return "has no such image that everybody may read"
		case http.StatusNotFound:
			return "has no such image"
		case http.StatusTooManyRequests:
			return "limits the rate of requests"
		}
		return fmt.Sprintf("answers with status %d", refused.StatusCode)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "doesn't answer in time"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "has no TLS"
	case errors.As(err, &network):
		return "can't be reached"
	}
	return "answers with something that can't be read as an image"
}
