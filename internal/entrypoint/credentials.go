package entrypoint

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// SecretReader reads one Secret from the API server.
type SecretReader func(ctx context.Context, namespace, name string) (*corev1.Secret, error)

// credential is an entry of a pull secret.
type credential authn.Basic

// keychain is what a Pod can show to the registry of one image, in the order in which it is tried. The last try is anonymous.
type keychain struct {
	credentials []credential
	// unreadable are the pull secrets that were skipped.
	unreadable []string
	// namespace is the Pod's.
	namespace string
}

// fingerprint identifies the credentials in a cache, without keeping them. It is a cryptographic hash, so that no Pod can forge another
// one's.
func (k keychain) fingerprint() [sha256.Size]byte {
	hash := sha256.New()
	for _, c := range k.credentials {
		fmt.Fprintf(hash, "%q %q ", c.Username, c.Password)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// authenticators returns what to try in turn. Anonymous is last: a bad pull secret must not hide an image that is public.
func (k keychain) authenticators() []authn.Authenticator {
	var all []authn.Authenticator
	for _, c := range k.credentials {
		all = append(all, (*authn.Basic)(&c))
	}
	return append(all, authn.Anonymous)
}

const (
	// maxSecrets bounds the pull secrets of one look-up. Each costs a request to the API server.
	maxSecrets = 32
	// maxCredentials bounds the credentials that are shown to a registry for one image.
	maxCredentials = 32
)

// keychainFor reads the request's pull secrets and keeps what is meant for the image. It skips a secret that is missing or malformed, as
// the kubelet does.
func (r *Resolver) keychainFor(ctx context.Context, request Request, image name.Reference) (keychain, error) {
	var ring []ringEntry
	k := keychain{namespace: request.Namespace}
	if len(request.PullSecrets) > maxSecrets {
		return keychain{}, &fault{
			reason: ReasonSecret, isPermanent: true, why: fmt.Sprintf("cannot be resolved: the Pod has more than %d imagePullSecrets", maxSecrets),
			remedy: fmt.Sprintf("set command, or at most %d imagePullSecrets", maxSecrets), log: "too many pull secrets",
		}
	}
	for _, secretName := range request.PullSecrets {
		if r.options.Secrets == nil || secretName == "" {
			continue
		}
		var entries []ringEntry
		secret, err := r.readSecret(ctx, request.Namespace, secretName)
		switch {
		case err == nil:
			entries, err = parseSecret(secret)
		case !apierrors.IsNotFound(err):
			return keychain{}, &fault{
				reason: ReasonSecret, why: fmt.Sprintf("the API server did not return the Secret %q", secretName),
				log: fmt.Sprintf("reading the Secret %q: %v", secretName, err),
			}
		}
		if err != nil {
			logf.FromContext(ctx).Info("Skipped a pull secret", "namespace", request.Namespace, "secret", secretName, "why", err.Error())
			k.unreadable = append(k.unreadable, secretName)
		}
		ring = append(ring, entries...)
	}
	k.credentials = matching(ring, kubeletName(image))
	k.credentials = k.credentials[:min(len(k.credentials), maxCredentials)]
	return k, nil
}

// secretsOfPodKey is the key of a *sync.Map in a context: functions that return the pull secrets of one Pod, by name.
type secretsOfPodKey struct{}

// readSecret reads a Secret once for all images of a Pod, if ctx is ResolveAll's.
func (r *Resolver) readSecret(ctx context.Context, namespace, secretName string) (*corev1.Secret, error) {
	read := sync.OnceValues(func() (*corev1.Secret, error) { return r.options.Secrets(ctx, namespace, secretName) })
	if known, ok := ctx.Value(secretsOfPodKey{}).(*sync.Map); ok {
		first, _ := known.LoadOrStore(secretName, read)
		read = first.(func() (*corev1.Secret, error))
	}
	return read()
}

// kubeletName is a repository's name as the kubelet matches it against pull secrets.
func kubeletName(image name.Reference) string {
	return host(image) + "/" + image.Context().RepositoryStr()
}

// ringEntry is a credential and the registries that it is meant for: HOST[:PORT][/PATH]. A * matches one part of the host name, or a piece
// of one.
type ringEntry struct {
	pattern string
	credential
}

var errNotPullSecret = errors.New("its type is neither kubernetes.io/dockerconfigjson nor kubernetes.io/dockercfg")

// parseSecret reads the entries of a pull secret. Its errors reveal nothing of the secret's values.
func parseSecret(secret *corev1.Secret) ([]ringEntry, error) {
	entries := map[string]json.RawMessage{}
	var err error
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]json.RawMessage `json:"auths"`
		}
		err = json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &config)
		entries = config.Auths
	case corev1.SecretTypeDockercfg:
		err = json.Unmarshal(secret.Data[corev1.DockerConfigKey], &entries)
	default:
		return nil, errNotPullSecret
	}
	if err != nil {
		return nil, errors.New("its content is not valid JSON for its type")
	}
	var ring []ringEntry
	var malformed error
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		entry, err := parseEntry(entries[key])
		if err != nil {
			malformed = fmt.Errorf("its entry %q %w", key, err)
			continue
		}
		if pattern, ok := patternOf(key); ok && entry != (credential{}) {
			ring = append(ring, ringEntry{pattern, entry})
		}
	}
	return ring, malformed
}

func parseEntry(content json.RawMessage) (credential, error) {
	var entry struct {
		Username, Password, Auth string
	}
	if err := json.Unmarshal(content, &entry); err != nil {
		return credential{}, errors.New("is not a JSON object of strings")
	}
	if entry.Auth == "" {
		return credential{Username: entry.Username, Password: entry.Password}, nil
	}
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(entry.Auth), "="))
	username, password, found := strings.Cut(string(decoded), ":")
	if err != nil || !found {
		return credential{}, errors.New("has an auth that is not base64 of USERNAME:PASSWORD")
	}
	return credential{Username: username, Password: password}, nil
}

// patternOf returns the key of an entry without the scheme, and without the API version that older clients wrote
// (k8s.io/kubernetes/pkg/credentialprovider, BasicDockerKeyring.Add).
func patternOf(key string) (string, bool) {
	if !strings.HasPrefix(key, "https://") && !strings.HasPrefix(key, "http://") {
		key = "https://" + key
	}
	parsed, err := url.Parse(key)
	if err != nil {
		return "", false
	}
	prefix := parsed.Path
	if strings.HasPrefix(prefix, "/v1/") || strings.HasPrefix(prefix, "/v2/") {
		prefix = prefix[len("/v1"):]
	}
	if prefix == "/" {
		prefix = ""
	}
	return parsed.Host + prefix, true
}

// matching returns the credentials that the kubelet would use for an image, in its order: all whose pattern matches, the longer of two
// patterns with the same start first. For Docker Hub without a match, it returns those of the host that Docker itself writes
// (BasicDockerKeyring.Lookup).
func matching(ring []ringEntry, image string) []credential {
	ring = slices.Clone(ring)
	slices.SortStableFunc(ring, func(a, b ringEntry) int { return strings.Compare(b.pattern, a.pattern) })
	var found, dockerHub []credential
	for _, entry := range ring {
		switch {
		case patternFits(entry.pattern, image):
			found = append(found, entry.credential)
		case entry.pattern == name.DefaultRegistry:
			dockerHub = append(dockerHub, entry.credential)
		}
	}
	if len(found) == 0 && strings.HasPrefix(image, dockerHubHost+"/") {
		found = dockerHub
	}
	return slices.Compact(found)
}

func patternFits(pattern, image string) bool {
	patternHost, prefix, hasPath := strings.Cut(pattern, "/")
	imageHost, repository, _ := strings.Cut(image, "/")
	return hostFits(patternHost, imageHost) && (!hasPath || strings.HasPrefix(repository, prefix))
}

// hostFits compares part by part, so that a * never matches two parts. Ports must be equal.
func hostFits(pattern, host string) bool {
	patternParts, patternPort := splitHost(pattern)
	parts, port := splitHost(host)
	return patternPort == port && slices.EqualFunc(patternParts, parts, func(pattern, part string) bool {
		fits, err := path.Match(pattern, part)
		return fits && err == nil
	})
}

func splitHost(host string) (parts []string, port string) {
	if bare, p, err := net.SplitHostPort(host); err == nil {
		host, port = bare, p
	}
	return strings.Split(host, "."), port
}
