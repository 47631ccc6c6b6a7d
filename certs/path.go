package certs

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// Only the API server may call the webhook, because an answer holds what the Task of a namespace holds. Few clusters give the API server a
// client certificate. So the webhook answers at a path that nobody can guess: the operator writes it into the
// MutatingWebhookConfiguration, which the default roles of Kubernetes let nobody read but administrators and the cluster's own controllers.
const (
	// Pattern matches every path that the webhook may have. It is a pattern of http.ServeMux, and the label of metrics.
	Pattern = pathPrefix + "{secret}"
	// UnmutatedPath is open to everybody. The last webhooks of the configuration refuse a Pod there that no replica has mutated, and they
	// alone have the failurePolicy Fail: the API server tells the user the URL of such a webhook when it can't call it.
	UnmutatedPath = "/unmutated"

	pathPrefix = "/mutate-pods/"
)

// formerPaths bounds how many paths are accepted that the webhook configuration no longer has.
const formerPaths = 8

// pathOf returns the path that belongs to a certificate. Every replica derives the same one, and it changes with the certificate's key.
func pathOf(c certificate) (string, error) {
	if c == nil {
		return "", nil
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", errors.New("the certificate's key can't be encoded in PKCS #8") // never what it holds
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("path of taskflow's webhook"))
	return pathPrefix + hex.EncodeToString(mac.Sum(nil)), nil
}

// isSecret reports whether a path is one that pathOf may return.
func isSecret(path string) bool {
	secret, ok := strings.CutPrefix(path, pathPrefix)
	decoded, err := hex.DecodeString(secret)
	return ok && err == nil && len(decoded) == sha256.Size
}

// paths decides by which paths the API server may call the webhook, and when the webhook configuration gets another one.
type paths struct {
	settle time.Duration

	mutex sync.Mutex
	// live are the paths in the webhook configuration and the one that belongs to the certificate in the Secret.
	live map[string]bool
	// former were live, and are accepted until then: an API server may not know the new configuration yet.
	former map[string]time.Time
	// next waits since then to be written.
	next  string
	since time.Time
	// configured reports whether each webhook of the configuration has a path that is accepted.
	configured bool
}

// offer takes the path that belongs to the certificate in the Secret (empty: there is none) and the paths that the webhook configuration has. It
// returns whether the former is to be written into the configuration now or, if it has to wait, when to offer it again. A path waits until
// every replica must know it, unless the configuration has none that a replica accepts.
func (p *paths) offer(path string, configured []string, now time.Time) (write bool, again time.Duration) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	live := map[string]bool{}
	if path != "" {
		live[path] = true
	}
	p.configured = len(configured) > 0
	current := true
	for _, c := range configured {
		if isSecret(c) {
			live[c] = true
		} else {
			p.configured = false
		}
		current = current && c == path
	}
	p.retire(live, now)
	switch {
	case path == "" || current:
		p.next = ""
	case !p.configured: // there is nothing to lose
		p.next = ""
		return true, 0
	case path != p.next:
		p.next, p.since = path, now
		return false, p.settle
	case now.Sub(p.since) < p.settle:
		return false, p.settle - now.Sub(p.since)
	default:
		return true, 0
	}
	return false, 0
}

// retire replaces the live paths, and accepts the ones before for some time.
func (p *paths) retire(live map[string]bool, now time.Time) {
	if p.former == nil {
		p.former = map[string]time.Time{}
	}
	for path := range p.live {
		if !live[path] {
			p.former[path] = now.Add(p.settle)
		}
	}
	maps.DeleteFunc(p.former, func(path string, until time.Time) bool { return live[path] || now.After(until) })
	for len(p.former) > formerPaths {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(p.former)), func(a, b string) int { return p.former[a].Compare(p.former[b]) })
		delete(p.former, oldest)
	}
	p.live = live
}

// accepts reports whether the API server may call the webhook by this path. It takes as long for every path of the same length.
func (p *paths) accepts(path string, now time.Time) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found := 0
	for known := range p.live {
		found |= subtle.ConstantTimeCompare([]byte(known), []byte(path))
	}
	for known, until := range p.former {
		if !now.After(until) {
			found |= subtle.ConstantTimeCompare([]byte(known), []byte(path))
		}
	}
	return found == 1
}

// check reports what keeps the API server from calling.
func (p *paths) check() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.configured {
		return errors.New("the webhook configuration doesn't have the webhook's path yet; the operator writes it, and must be allowed to update it")
	}
	return nil
}

// Guard passes on the requests that come by a path of the webhook. It answers all others without reading them. Its handler is for Pattern.
func (k *Keeper) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !k.paths.accepts(r.URL.Path, k.clock.now()) {
			w.Header().Set("Connection", "close") // else the server would read the body to use the connection again
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secretWebhooks returns the webhooks of a configuration that are called by a secret path.
func secretWebhooks(config *admissionv1.MutatingWebhookConfiguration) []*admissionv1.ServiceReference {
	var references []*admissionv1.ServiceReference
	for i := range config.Webhooks {
		service := config.Webhooks[i].ClientConfig.Service
		if service != nil && (service.Path == nil || *service.Path != UnmutatedPath) {
			references = append(references, service)
		}
	}
	return references
}

// pathsOf returns the paths that webhooks are called by. A webhook without one is called by "/".
func pathsOf(references []*admissionv1.ServiceReference) []string {
	var paths []string
	for _, service := range references {
		if service.Path == nil {
			paths = append(paths, "/")
		} else {
			paths = append(paths, *service.Path)
		}
	}
	return paths
}
