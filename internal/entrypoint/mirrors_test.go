package entrypoint_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestResolveWrongContent proves that neither a registry nor a mirror can serve other content for a digest.
func TestResolveWrongContent(t *testing.T) {
	behind := newRegistry()
	push(t, serve(t, behind)+"/app:v1", dockerImage(t, "linux/amd64", other))
	liar := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before, _, found := strings.Cut(r.URL.Path, "/manifests/"); found {
			r.URL.Path = before + "/manifests/v1"
		}
		behind.ServeHTTP(w, r)
	}))
	honest := serve(t, newRegistry())
	digest := push(t, honest+"/app:v1", dockerImage(t, "linux/amd64", app))

	cases := map[string]struct {
		mirror, host string
		want         outcome
	}{
		"registry": {host: liar, want: outcome{
			Sentence: unresolved(liar+"/app@"+digest, liar, "serves content that does not match the digest"),
		}},
		"mirror": {mirror: liar, host: honest, want: outcome{Command: appCommand}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var options entrypoint.Options
			if c.mirror != "" {
				options.Mirrors = map[string][]string{c.host: {"http://" + c.mirror}}
			}
			image := c.host + "/app@" + digest
			if diff := cmp.Diff(c.want, resolve(t, newResolver(t, options), entrypoint.Request{Image: image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
			}
		})
	}
}

// TestResolveMirror proves that every spelling of a Docker Hub image is found on its mirror, at Docker Hub's path, and that Docker Hub,
// which the tests cannot reach, is not asked.
func TestResolveMirror(t *testing.T) {
	mirror := serve(t, newRegistry())
	digest := push(t, mirror+"/library/busybox:1.28", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/library/busybox:latest", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/devopscube/kubernetes-job-demo:latest", dockerImage(t, "linux/amd64", app))

	for _, key := range []string{"docker.io", "index.docker.io"} {
		resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{key: {"http://" + mirror + "/"}}})
		for _, image := range []string{
			"busybox:1.28",
			"library/busybox:1.28",
			"docker.io/busybox:1.28",
			"docker.io/library/busybox:1.28",
			"index.docker.io/library/busybox:1.28",
			"busybox",
			"busybox@" + digest,
			"busybox:1.28@" + digest,
			"devopscube/kubernetes-job-demo",
		} {
			t.Run(key+" "+image, func(t *testing.T) {
				if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: image})); diff != "" {
					t.Errorf("Resolve(%q) (-want +got):\n%s", image, diff)
				}
			})
		}
	}
}

// TestResolveMirrorOfAnother proves that a mirror is asked only for its own registry's images.
func TestResolveMirrorOfAnother(t *testing.T) {
	mirror, origin := serve(t, newRegistry()), serve(t, newRegistry())
	push(t, mirror+"/app:v1", dockerImage(t, "linux/amd64", other))
	push(t, origin+"/app:v1", dockerImage(t, "linux/amd64", app))

	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{"docker.io": {"http://" + mirror}}})
	if diff := cmp.Diff(outcome{Command: appCommand}, resolve(t, resolver, entrypoint.Request{Image: origin + "/app:v1"})); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
}

// TestResolveFallback proves that mirrors are tried in order and the registry last, whatever fails at a mirror, and that an error names all
// of them.
func TestResolveFallback(t *testing.T) {
	origin, mirror, bare := serve(t, newRegistry()), serve(t, newRegistry()), serve(t, newRegistry())
	push(t, origin+"/app:v1", dockerImage(t, "linux/amd64", app))
	push(t, mirror+"/app:v1", dockerImage(t, "linux/amd64", other))
	push(t, mirror+"/nothing:v1", dockerImage(t, "linux/amd64", v1.Config{}))
	otherCommand := entrypoint.Command{Entrypoint: []string{"/other"}}

	cases := map[string]struct {
		mirrors []string
		image   string
		want    outcome
	}{
		"the mirror first":           {[]string{mirror}, "app:v1", outcome{Command: otherCommand}},
		"the second mirror":          {[]string{deadHost, mirror}, "app:v1", outcome{Command: otherCommand}},
		"mirror down":                {[]string{deadHost}, "app:v1", outcome{Command: appCommand}},
		"mirrors down":               {[]string{deadHost, deadHost}, "app:v1", outcome{Command: appCommand}},
		"mirror without the image":   {[]string{bare}, "app:v1", outcome{Command: appCommand}},
		"mirror that wants login":    {[]string{serve(t, status(http.StatusUnauthorized))}, "app:v1", outcome{Command: appCommand}},
		"mirror that fails":          {[]string{serve(t, status(http.StatusBadGateway))}, "app:v1", outcome{Command: appCommand}},
		"mirror that serves garbage": {[]string{serve(t, content("text/html", marker))}, "app:v1", outcome{Command: appCommand}},
		"mirror that never answers":  {[]string{serve(t, http.HandlerFunc(hang))}, "app:v1", outcome{Command: appCommand}},
		"none has it": {[]string{deadHost, bare}, "app:v2", outcome{
			Sentence: fmt.Sprintf(`image "%s/app:v2" cannot be resolved: %s is unreachable, is not trusted, or does not answer in time, `+
				`and not found in %s, and not found in %s; fix image, or set command, which is required if an earlier step pushes the image`, origin, deadHost, bare, origin),
		}},
		"a mirror's image without a command": {[]string{mirror}, "nothing:v1", outcome{
			Sentence:  fmt.Sprintf(`image "%s/nothing:v1" has neither ENTRYPOINT nor CMD; %s`, origin, setCommand),
			Permanent: true,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := entrypoint.Options{Mirrors: map[string][]string{}, Timeout: metav1.Duration{Duration: 6 * time.Second}}
			for _, mirror := range c.mirrors {
				options.Mirrors[origin] = append(options.Mirrors[origin], "http://"+mirror)
			}
			if diff := cmp.Diff(c.want, resolve(t, newResolver(t, options), entrypoint.Request{Image: origin + "/" + c.image})); diff != "" {
				t.Errorf("Resolve(%q) (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

// TestNewMirrors proves that New refuses a mirror that it could not ask as written.
func TestNewMirrors(t *testing.T) {
	const (
		base = `mirrors["docker.io"]: %q must be http://HOST[:PORT] or https://HOST[:PORT]`
		key  = `mirrors: the key %q must be HOST or HOST:PORT`
	)
	cases := map[string]struct {
		of, mirror, want string
	}{
		"host":             {"docker.io", "https://mirror.example.com", "<nil>"},
		"trailing slash":   {"docker.io", "https://mirror.example.com/", "<nil>"},
		"host and port":    {"registry.example.com:5000", "http://10.0.0.1:5000", "<nil>"},
		"IPv6":             {"docker.io", "http://[fd00::1]:5000", "<nil>"},
		"nothing":          {"docker.io", "", fmt.Sprintf(base, "")},
		"no scheme":        {"docker.io", "mirror.example.com:5000", fmt.Sprintf(base, "mirror.example.com:5000")},
		"other scheme":     {"docker.io", "ftp://mirror.example.com", fmt.Sprintf(base, "ftp://mirror.example.com")},
		"no host":          {"docker.io", "https://", fmt.Sprintf(base, "https://")},
		"port alone":       {"docker.io", "https://:5000", fmt.Sprintf(base, "https://:5000")},
		"bad port":         {"docker.io", "https://mirror:port", fmt.Sprintf(base, "https://mirror:port")},
		"path":             {"docker.io", "https://mirror/v2", fmt.Sprintf(base, "https://mirror/v2")},
		"query":            {"docker.io", "https://mirror?ns=docker.io", fmt.Sprintf(base, "https://mirror?ns=docker.io")},
		"fragment":         {"docker.io", "https://mirror#a", fmt.Sprintf(base, "https://mirror#a")},
		"login":            {"docker.io", "https://a:b@mirror", fmt.Sprintf(base, "https://a:b@mirror")},
		"of nothing":       {"", "https://mirror", fmt.Sprintf(key, "")},
		"of a URL":         {"https://docker.io", "https://mirror", fmt.Sprintf(key, "https://docker.io")},
		"of a repository":  {"docker.io/library", "https://mirror", fmt.Sprintf(key, "docker.io/library")},
		"of no valid host": {"docker io", "https://mirror", fmt.Sprintf(key, "docker io")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := entrypoint.New(entrypoint.Options{Mirrors: map[string][]string{c.of: {c.mirror}}})
			if diff := cmp.Diff(c.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("New with the mirror %q of %q (-want +got):\n%s", c.mirror, c.of, diff)
			}
		})
	}
}
