package entrypoint_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

const (
	robot  = "robot"
	s3cret = "s3cret"
)

// private is a registry with basic authentication or tokens. Only the robot account may read repositories below "private/"; all others are
// public.
type private struct {
	tokens bool
	behind http.Handler

	mutex sync.Mutex
	asked []string // method, path, and the credential
}

func (p *private) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		p.serveToken(w, r)
		return
	}
	token := "Bearer " + r.URL.Query().Get("token")
	if p.tokens {
		token = r.Header.Get("Authorization")
	} else if username, password, ok := r.BasicAuth(); ok {
		token = "Bearer " + username + ":" + password
	}
	who := "anonymous"
	switch token {
	case "Bearer " + robot + ":" + s3cret:
		who = "robot"
	case "Bearer ", "Bearer :", "":
	default:
		who = "stranger"
	}
	p.mutex.Lock()
	p.asked = append(p.asked, fmt.Sprintf("%s %s as %s", r.Method, r.URL.Path, who))
	p.mutex.Unlock()
	challenged := r.URL.Path == "/v2/" && (token == "" || !p.tokens && who == "anonymous")
	if challenged || strings.HasPrefix(r.URL.Path, "/v2/private/") && who != "robot" || who == "stranger" {
		challenge := `Basic realm="x"`
		if p.tokens {
			challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host)
		}
		w.Header().Set("WWW-Authenticate", challenge)
		status(http.StatusUnauthorized)(w, r)
		return
	}
	p.behind.ServeHTTP(w, r)
}

func (p *private) serveToken(w http.ResponseWriter, r *http.Request) {
	username, password, _ := r.BasicAuth()
	if username != "" && (username != robot || password != s3cret) {
		status(http.StatusUnauthorized)(w, r)
		return
	}
	content("application/json", fmt.Sprintf(`{"token": "%s:%s"}`, username, password))(w, r)
}

// requests returns the requests since the last call.
func (p *private) requests() []string {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

// secrets are the pull secrets of the namespace "default".
type secrets map[string]*corev1.Secret

func (s secrets) read(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	secret, ok := s[name]
	switch {
	case name == "forbidden":
		return nil, errors.New("the API server's own words")
	case !ok || namespace != "default":
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return secret, nil
}

func dockerConfig(host, username, password string) *corev1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	return &corev1.Secret{
		Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, host, auth)},
	}
}

// TestResolveCredentials proves which credentials a registry gets, as the kubelet would show them, and the error if none helps.
func TestResolveCredentials(t *testing.T) {
	for _, scheme := range []string{"basic", "tokens"} {
		t.Run(scheme, func(t *testing.T) {
			registry := &private{tokens: scheme == "tokens", behind: newRegistry()}
			host := serve(t, registry)
			open := serve(t, registry.behind)
			push(t, open+"/private/app:v1", dockerImage(t, "linux/amd64", app))
			push(t, open+"/public/app:v1", dockerImage(t, "linux/amd64", app))
			dockercfg := &corev1.Secret{
				Type: corev1.SecretTypeDockercfg,
				Data: map[string][]byte{corev1.DockerConfigKey: fmt.Appendf(nil, `{%q: {"username": %q, "password": %q}}`, "http://"+host, robot, s3cret)},
			}
			both := dockerConfig(host, "robot", "guess")
			both.Data[corev1.DockerConfigJsonKey] = fmt.Appendf(nil, `{"auths": {%q: {"username": "robot", "password": "guess"}, %q: {"username": %q, "password": %q}}}`,
				host+"/private", host, robot, s3cret)
			pullSecrets := secrets{
				"right":     dockerConfig(host, robot, s3cret),
				"wrong":     dockerConfig(host, robot, "guess"),
				"elsewhere": dockerConfig("registry.example.com", robot, s3cret),
				"dockercfg": dockercfg,
				"both":      both,
				"malformed": {Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(marker)}},
			}
			const (
				none    = "denies access without credentials"
				refused = "denies access with the Pod's credentials"
			)
			cases := map[string]struct {
				secrets []string
				image   string
				want    string // why it is not resolved
			}{
				"none":                          {nil, "private/app:v1", none},
				"the right one":                 {[]string{"right"}, "private/app:v1", ""},
				"dockercfg":                     {[]string{"dockercfg"}, "private/app:v1", ""},
				"the wrong one":                 {[]string{"wrong"}, "private/app:v1", refused},
				"the second of two":             {[]string{"wrong", "right"}, "private/app:v1", ""},
				"the second entry of one":       {[]string{"both"}, "private/app:v1", ""},
				"another registry's":            {[]string{"elsewhere"}, "private/app:v1", none},
				"missing":                       {[]string{"missing", "right"}, "private/app:v1", ""},
				"malformed":                     {[]string{"malformed", "right"}, "private/app:v1", ""},
				"the wrong one, for a public":   {[]string{"wrong"}, "public/app:v1", ""},
				"another's, for a public":       {[]string{"elsewhere"}, "public/app:v1", ""},
				"malformed, for a public":       {[]string{"malformed"}, "public/app:v1", ""},
				"the right one, no such image":  {[]string{"right"}, "private/app:v2", "not found in HOST"},
				"several, no such public image": {[]string{"wrong", "right"}, "public/app:v2", "not found in HOST"},
			}
			for name, c := range cases {
				t.Run(name, func(t *testing.T) {
					resolver := newResolver(t, entrypoint.Options{Secrets: pullSecrets.read})
					image := host + "/" + c.image
					want := outcome{Command: appCommand}
					if c.want != "" {
						want = outcome{Sentence: unresolved(image, host, c.want)}
					}
					request := entrypoint.Request{Namespace: "default", Image: image, PullSecrets: c.secrets}
					if diff := cmp.Diff(want, resolve(t, resolver, request)); diff != "" {
						t.Errorf("Resolve (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

// TestResolveSecretFailure proves the errors for a pull secret that is unusable, and for one that the API server does not return. They
// never contain the secret's values.
func TestResolveSecretFailure(t *testing.T) {
	host := serve(t, &private{behind: newRegistry()})
	image := host + "/private/app:v1"
	pullSecrets := secrets{"malformed": {
		Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(marker)},
	}}
	resolver := newResolver(t, entrypoint.Options{Secrets: pullSecrets.read})
	for secret, want := range map[string]string{
		"malformed": fmt.Sprintf("image %q cannot be resolved: %s denies access without credentials; "+
			"fix the imagePullSecrets (malformed), or set command", image, host),
		"missing": fmt.Sprintf("image %q cannot be resolved: %s denies access without credentials; "+
			"fix the imagePullSecrets (missing), or set command", image, host),
		"forbidden": fmt.Sprintf("image %q cannot be resolved: the API server did not return the Secret \"forbidden\"; "+
			setCommand, image),
	} {
		request := entrypoint.Request{Namespace: "default", Image: image, PullSecrets: []string{secret}}
		if diff := cmp.Diff(outcome{Sentence: want}, resolve(t, resolver, request)); diff != "" {
			t.Errorf("Resolve with the secret %q (-want +got):\n%s", secret, diff)
		}
	}
}

// TestCacheKeepsAccess proves that the cache gives no other credential access to an image: a command that one credential has brought into the cache
// stays hidden without credentials, with wrong ones, from another namespace, by digest, and through a registry of the attacker's that
// claims to have the digest.
func TestCacheKeepsAccess(t *testing.T) {
	registry := &private{behind: newRegistry()}
	host := serve(t, registry)
	digest := push(t, serve(t, registry.behind)+"/private/app:v1", dockerImage(t, "linux/amd64", app))
	pullSecrets := secrets{"right": dockerConfig(host, robot, s3cret), "wrong": dockerConfig(host, robot, "guess")}
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodHead {
			w.Header().Set("Docker-Content-Digest", digest)
			return
		}
		if r.URL.Path != "/v2/" {
			status(http.StatusNotFound)(w, r)
		}
	}))
	resolver := newResolver(t, entrypoint.Options{Secrets: pullSecrets.read})
	allowed := func() {
		t.Helper()
		for _, ref := range []string{":v1", "@" + digest} {
			request := entrypoint.Request{Namespace: "default", Image: host + "/private/app" + ref, PullSecrets: []string{"right"}}
			if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, request)); diff != "" {
				t.Errorf("Resolve of who may (-want +got):\n%s", diff)
			}
		}
	}
	allowed()
	for name, request := range map[string]entrypoint.Request{
		"no secret":              {Namespace: "default", Image: host + "/private/app:v1"},
		"no secret, by digest":   {Namespace: "default", Image: host + "/private/app@" + digest},
		"wrong secret":           {Namespace: "default", Image: host + "/private/app:v1", PullSecrets: []string{"wrong"}},
		"wrong secret, digest":   {Namespace: "default", Image: host + "/private/app@" + digest, PullSecrets: []string{"wrong"}},
		"another namespace":      {Namespace: "other", Image: host + "/private/app:v1", PullSecrets: []string{"right"}},
		"another repository":     {Namespace: "default", Image: host + "/public/app@" + digest, PullSecrets: []string{"right"}},
		"a registry of his own":  {Namespace: "default", Image: liar + "/private/app:v1"},
		"of his own, by digest":  {Namespace: "default", Image: liar + "/private/app@" + digest},
		"of his own, other path": {Namespace: "default", Image: liar + "/app@" + digest},
	} {
		if got := resolve(t, resolver, request); got.Sentence == "" {
			t.Errorf("%s: Resolve gives %+v, want a refusal", name, got.Command)
		}
	}
	registry.requests()
	allowed()
	if asked := registry.requests(); len(asked) > 0 {
		t.Errorf("the refusals have emptied the cache of who may: the registry is asked %q", asked)
	}
}

// TestResolveMirrorCredentials proves that a mirror gets the same credentials as the registry itself, as with containerd.
func TestResolveMirrorCredentials(t *testing.T) {
	registry := &private{behind: newRegistry()}
	mirror := serve(t, registry)
	ref, err := name.ParseReference(mirror + "/private/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	image := dockerImage(t, "linux/amd64", app)
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: robot, Password: s3cret})); err != nil {
		t.Fatal(err)
	}
	resolver := newResolver(t, entrypoint.Options{
		Mirrors: map[string][]string{"docker.io": {"http://" + mirror}},
		Secrets: secrets{"hub": dockerConfig("https://index.docker.io/v1/", robot, s3cret)}.read,
	})
	request := entrypoint.Request{Namespace: "default", Image: "private/app:v1", PullSecrets: []string{"hub"}}
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, request)); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}
