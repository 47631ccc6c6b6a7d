package entrypoint

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// Options configure a Resolver. They are the field "images" of the operator's configuration file.
type Options struct {
	// Mirrors are tried before a registry itself. The key is the registry's host as in image names ("docker.io" for Docker Hub), the values
	// are base URLs, http or https, in the order of the tries. Default: none.
	Mirrors map[string][]string `json:"mirrors,omitempty"`
	// CABundle holds certificate authorities in PEM, which are trusted in addition to the system's. Default: none.
	CABundle string `json:"caBundle,omitempty"`
	// PlainHTTP lists the registries, HOST or HOST:PORT, that are asked without TLS. Default: none.
	PlainHTTP []string `json:"plainHTTP,omitempty"`
	// AllowedRegistries lists the only registries that are asked, HOST or HOST:PORT. A * matches one part of the host name, or a piece of
	// one. Default: all.
	AllowedRegistries []string `json:"allowedRegistries,omitempty"`
	// AllowedAddresses lists addresses or ranges, such as 127.0.0.0/8, that are allowed although they are loopback, link-local or a cloud's
	// metadata service. Default: none.
	AllowedAddresses []string `json:"allowedAddresses,omitempty"`
	// Commands lists images whose command is known without a look-up. Default: none.
	Commands []StaticCommand `json:"commands,omitempty"`
	// Timeout bounds one Resolve with all its requests. Each mirror gets an equal share of it. Maximum: MaxTimeout. Default:
	// DefaultTimeout.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// TagTTL is how long a tag's digest, and the permission to read it, are cached. imagePullPolicy Always ignores it. Default:
	// DefaultTagTTL.
	TagTTL metav1.Duration `json:"tagTTL,omitzero"`
	// FailureTTL is how long a failure is cached. imagePullPolicy Always ignores it, unless the registry is unreachable. Default:
	// DefaultFailureTTL.
	FailureTTL metav1.Duration `json:"failureTTL,omitzero"`
	// CacheSize is how many images are cached. Default: DefaultCacheSize.
	CacheSize int `json:"cacheSize,omitempty"`

	// Secrets reads the pull secrets. If nil, none are used.
	Secrets SecretReader `json:"-"`
	// Clock is for tests. Default: the real clock.
	Clock clock.PassiveClock `json:"-"`
}

// StaticCommand is the known command of an image.
type StaticCommand struct {
	// Image is written as in a container.
	Image      string   `json:"image"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
}

// Defaults and bounds of Options.
const (
	DefaultTimeout    = 8 * time.Second
	DefaultTagTTL     = 30 * time.Second
	DefaultFailureTTL = 5 * time.Second
	DefaultCacheSize  = 1000

	// MaxTimeout leaves one of the ten seconds that an admission may take.
	MaxTimeout = 9 * time.Second
	maxTTL     = 10 * time.Minute
	maxCache   = 10_000
	// maxKept bounds each cache, in bytes.
	maxKept = 32 << 20
	// maxFlights and namespaceFlights bound the look-ups in progress, in total and of one namespace.
	maxFlights, namespaceFlights = 256, 32
)

// contentTTL is for content that never changes: such an entry leaves only when newer ones need its place.
const contentTTL = 100 * 365 * 24 * time.Hour

// New returns a Resolver. For invalid options it returns one sentence that names the field.
func New(o Options) (*Resolver, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Resolver{
		options:  o,
		clock:    o.Clock,
		mirrors:  map[string][]name.Registry{},
		static:   map[string]image{},
		answers:  newExpiring[question, answer](o.Clock, o.CacheSize, maxKept),
		failures: newExpiring[question, *fault](o.Clock, o.CacheSize, maxKept),
		outages:  newExpiring[question, outage](o.Clock, o.CacheSize, maxKept),
		contents: newExpiring[contentKey, image](o.Clock, o.CacheSize, maxKept),
		limiter:  fair.NewLimiter(maxFlights, namespaceFlights),
		bodies:   fair.NewLimiter(maxBodies, namespaceBodies),
	}
	plainMirrors, err := r.addMirrors(o.Mirrors)
	if err != nil {
		return nil, err
	}
	for _, host := range o.PlainHTTP {
		if registry, err := name.NewRegistry(host, name.StrictValidation); err != nil || registry.RegistryStr() != host {
			return nil, fmt.Errorf("plainHTTP: %q must be HOST or HOST:PORT", host)
		}
	}
	for _, pattern := range o.AllowedRegistries {
		_, err := path.Match(pattern, "")
		if err != nil || pattern == "" || strings.ContainsAny(pattern, "/ @") {
			return nil, fmt.Errorf("allowedRegistries: %q must be HOST or HOST:PORT, where * matches one part of the host name", pattern)
		}
	}
	for _, known := range o.Commands {
		ref, err := name.ParseReference(known.Image)
		if err != nil {
			return nil, fmt.Errorf("commands: %q is not a valid image name", known.Image)
		}
		if len(known.Entrypoint)+len(known.Cmd) == 0 {
			return nil, fmt.Errorf("commands: %q has neither entrypoint nor cmd; set one of them", known.Image)
		}
		r.static[ref.Name()] = image{platforms: []platformCommand{{command: Command{Entrypoint: known.Entrypoint, Cmd: known.Cmd}}}}
	}
	addresses, err := parseAddresses(o.AllowedAddresses)
	if err != nil {
		return nil, err
	}
	authorities, err := parseBundle(o.CABundle)
	if err != nil {
		return nil, err
	}
	r.transport = newGuard(guard{plainHTTP: slices.Concat(o.PlainHTTP, plainMirrors), allowed: addresses, now: o.Clock.Now}, authorities)
	return r, nil
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		field    string
		value    *metav1.Duration
		standard time.Duration
		most     time.Duration
	}{
		{"timeout", &o.Timeout, DefaultTimeout, MaxTimeout},
		{"tagTTL", &o.TagTTL, DefaultTagTTL, maxTTL},
		{"failureTTL", &o.FailureTTL, DefaultFailureTTL, maxTTL},
	} {
		if d.value.Duration == 0 {
			d.value.Duration = d.standard
		}
		if d.value.Duration < 0 || d.value.Duration > d.most {
			return o, fmt.Errorf("%s: %s must be above 0s and at most %s", d.field, d.value.Duration, d.most)
		}
	}
	if o.CacheSize == 0 {
		o.CacheSize = DefaultCacheSize
	}
	if o.CacheSize < 0 || o.CacheSize > maxCache {
		return o, fmt.Errorf("cacheSize: %d must be above 0 and at most %d", o.CacheSize, maxCache)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o, nil
}

// addMirrors returns the hosts of the mirrors without TLS.
func (r *Resolver) addMirrors(mirrors map[string][]string) (plain []string, err error) {
	for _, host := range slices.Sorted(maps.Keys(mirrors)) {
		registry, err := name.NewRegistry(host, name.StrictValidation)
		if err != nil {
			return nil, fmt.Errorf("mirrors: the key %q must be HOST or HOST:PORT", host)
		}
		key := registry.RegistryStr() // "docker.io" and "index.docker.io" are the same
		for _, base := range mirrors[host] {
			mirror, ok := parseMirror(base)
			if !ok {
				return nil, fmt.Errorf("mirrors[%q]: %q must be http://HOST[:PORT] or https://HOST[:PORT]", host, base)
			}
			r.mirrors[key] = append(r.mirrors[key], mirror)
			if strings.HasPrefix(base, "http://") {
				plain = append(plain, mirror.RegistryStr())
			}
		}
	}
	return plain, nil
}

func parseMirror(base string) (name.Registry, bool) {
	scheme, host, _ := strings.Cut(strings.TrimSuffix(base, "/"), "://")
	options := []name.Option{name.StrictValidation}
	if scheme == "http" {
		options = append(options, name.Insecure)
	}
	registry, err := name.NewRegistry(host, options...) // refuses a path, a query or a password, which would be ignored silently
	return registry, err == nil && !strings.HasPrefix(host, ":") && (scheme == "http" || scheme == "https")
}

func parseAddresses(all []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range all {
		prefix, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil {
			prefix, err = address.Prefix(address.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("allowedAddresses: %q must be an address or a range, such as 127.0.0.0/8", text)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

// parseBundle returns nil for an empty bundle.
func parseBundle(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	for rest := bytes.TrimSpace([]byte(bundle)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("caBundle: it contains something else than certificates in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("caBundle: parsing a certificate: %w", err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}
