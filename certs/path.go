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
	"k8s.io/utils/ptr"
)

// Only the API server may call the webhook, because a response reveals a namespace's Task. Few clusters give the API server a client
// certificate. So the webhook has a path that cannot be guessed. The operator writes it into the MutatingWebhookConfiguration, which
// Kubernetes' default roles let only administrators and the cluster's own controllers read.
const (
	// Pattern matches every path of the webhook. It is a pattern of http.ServeMux, and the label of metrics.
	Pattern = pathPrefix + "{secret}"
	// TasksPattern matches every path of the webhook that validates Tasks.
	TasksPattern = tasksPrefix + "{secret}"
	// UnmutatedPath is open to everyone. The last webhooks of the configuration call it to refuse a Pod that no replica has mutated. Only
	// they have failurePolicy Fail: if the API server cannot call such a webhook, it shows the user its URL.
	UnmutatedPath = "/unmutated"

	pathPrefix  = "/mutate-pods/"
	tasksPrefix = "/validate-tasks/"
)

// formerPaths bounds the paths that are accepted although the webhook configuration no longer has them.
const formerPaths = 8

// pathOf returns the path of a certificate. All replicas derive the same one from its key.
func pathOf(c certificate) (string, error) {
	if c == nil {
		return "", nil
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", errors.New("the certificate's key cannot be encoded in PKCS #8") // without the cause, which could repeat the key
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("path of taskflow's webhook"))
	return pathPrefix + hex.EncodeToString(mac.Sum(nil)), nil
}

// tasksPathOf returns the path of the webhook that validates Tasks, for the path of the one that mutates Pods. Nobody can tell the latter from the
// former: a role may allow to read one webhook configuration, and not the other.
func tasksPathOf(path string) string {
	digest := sha256.Sum256([]byte("path for Tasks, beside " + path))
	return tasksPrefix + hex.EncodeToString(digest[:])
}

// isSecret reports whether pathOf may return the path.
func isSecret(path string) bool {
	secret, ok := strings.CutPrefix(path, pathPrefix)
	decoded, err := hex.DecodeString(secret)
	return ok && err == nil && len(decoded) == sha256.Size
}

// paths decides which paths are accepted, and when the webhook configuration gets a new one.
type paths struct {
	settle time.Duration

	mutex sync.Mutex
	// live are the paths in the webhook configuration, and the path of the Secret's certificate.
	live map[string]bool
	// former are accepted until these times, because an API server may not know the new configuration yet.
	former map[string]time.Time
	// next waits to be written since then.
	next  string
	since time.Time
	// configured is whether each webhook of the configuration has an accepted path.
	configured bool
}

// offer takes the path of the Secret's certificate (empty if there is none) and the paths in the webhook configuration. It reports whether
// to write the path now, or after how long to offer it again. A path waits until every replica must know it, unless the configuration has
// no path that a replica accepts.
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
	if path == "" || current || !p.configured { // without a path in use, there is nothing to lose
		p.next = ""
		return path != "" && !current, 0
	}
	if path != p.next {
		p.next, p.since = path, now
	}
	again = max(p.settle-now.Sub(p.since), 0)
	return again == 0, again
}

// retire replaces the live paths. The previous ones are accepted for a while.
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

// accepts reports whether the API server may call this path. Its duration does not depend on the path.
func (p *paths) accepts(path string, now time.Time) bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	found := 0
	compare := func(known string) {
		found |= subtle.ConstantTimeCompare([]byte(known), []byte(path)) | subtle.ConstantTimeCompare([]byte(tasksPathOf(known)), []byte(path))
	}
	for known := range p.live {
		compare(known)
	}
	for known, until := range p.former {
		if !now.After(until) {
			compare(known)
		}
	}
	return found == 1
}

// check returns what keeps the API server from calling.
func (p *paths) check() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if !p.configured {
		return errors.New("the webhook configuration does not have the webhook's path yet; the operator writes it, and needs permission to update it")
	}
	return nil
}

// Guard passes on requests to an accepted path. It refuses all others without reading them. The handler is for Pattern and TasksPattern.
func (k *Keeper) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !k.paths.accepts(r.URL.Path, k.clock.now()) {
			w.Header().Set("Connection", "close") // otherwise the server reads the body to reuse the connection
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secretWebhooks returns the webhooks with a secret path.
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

// pathsOf returns the paths of webhooks. The default is "/".
func pathsOf(references []*admissionv1.ServiceReference) []string {
	var paths []string
	for _, service := range references {
		paths = append(paths, ptr.Deref(service.Path, "/"))
	}
	return paths
}
