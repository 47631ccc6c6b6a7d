package entrypoint

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestMatching proves which entries of pull secrets are used for an image, and in which order: those that the kubelet would use
// (k8s.io/kubernetes/pkg/credentialprovider, keyring_test.go).
func TestMatching(t *testing.T) {
	cases := map[string]struct {
		keys  []string
		image string // as kubeletName returns it
		want  []string
	}{
		"host":                              {[]string{"ghcr.io"}, "ghcr.io/me/app", []string{"ghcr.io"}},
		"another host":                      {[]string{"quay.io"}, "ghcr.io/me/app", nil},
		"URL":                               {[]string{"https://ghcr.io", "http://ghcr.io/"}, "ghcr.io/me/app", []string{"http://ghcr.io/", "https://ghcr.io"}},
		"API versions":                      {[]string{"https://ghcr.io/v1/", "ghcr.io/v2/"}, "ghcr.io/me/app", []string{"ghcr.io/v2/", "https://ghcr.io/v1/"}},
		"API version and path":              {[]string{"ghcr.io/v2/me"}, "ghcr.io/me/app", []string{"ghcr.io/v2/me"}},
		"port":                              {[]string{"registry:5000"}, "registry:5000/app", []string{"registry:5000"}},
		"another port":                      {[]string{"registry:5000"}, "registry:5001/app", nil},
		"no port":                           {[]string{"registry"}, "registry:5000/app", nil},
		"path":                              {[]string{"ghcr.io/me"}, "ghcr.io/me/app", []string{"ghcr.io/me"}},
		"path of a name alike":              {[]string{"ghcr.io/me"}, "ghcr.io/meme/app", []string{"ghcr.io/me"}}, // as in the kubelet
		"another path":                      {[]string{"ghcr.io/you"}, "ghcr.io/me/app", nil},
		"longer path first":                 {[]string{"ghcr.io", "ghcr.io/me/app", "ghcr.io/me"}, "ghcr.io/me/app", []string{"ghcr.io/me/app", "ghcr.io/me", "ghcr.io"}},
		"wildcard":                          {[]string{"*.example.com"}, "a.example.com/app", []string{"*.example.com"}},
		"wildcard in a part":                {[]string{"*-docker.pkg.dev"}, "eu-docker.pkg.dev/app", []string{"*-docker.pkg.dev"}},
		"several wildcards":                 {[]string{"*.dkr.ecr.*.amazonaws.com"}, "1.dkr.ecr.eu-1.amazonaws.com/app", []string{"*.dkr.ecr.*.amazonaws.com"}},
		"wildcard for no part":              {[]string{"*.example.com"}, "example.com/app", nil},
		"wildcard for two parts":            {[]string{"*.example.com"}, "a.b.example.com/app", nil},
		"wildcard and port":                 {[]string{"*.example.com:5000"}, "a.example.com:5000/app", []string{"*.example.com:5000"}},
		"wildcard alone":                    {[]string{"*"}, "registry/app", []string{"*"}},
		"malformed pattern":                 {[]string{"[.example.com"}, "a.example.com/app", nil},
		"Docker Hub":                        {[]string{"docker.io"}, "docker.io/library/busybox", []string{"docker.io"}},
		"Docker Hub, as Docker writes it":   {[]string{"https://index.docker.io/v1/"}, "docker.io/library/busybox", []string{"https://index.docker.io/v1/"}},
		"Docker Hub, as it was written":     {[]string{"index.docker.io"}, "docker.io/me/app", []string{"index.docker.io"}},
		"Docker Hub, of its name first":     {[]string{"https://index.docker.io/v1/", "docker.io"}, "docker.io/me/app", []string{"docker.io"}},
		"Docker Hub's for no other":         {[]string{"https://index.docker.io/v1/"}, "ghcr.io/me/app", nil},
		"Docker Hub's for no other's alias": {[]string{"https://index.docker.io/v1/"}, "docker.io.example.com/me/app", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var auths []string
			for _, key := range c.keys {
				auths = append(auths, fmt.Sprintf(`%q: {"username": %q, "password": "p"}`, key, key))
			}
			ring, err := parseSecret(&corev1.Secret{
				Type: corev1.SecretTypeDockercfg,
				Data: map[string][]byte{corev1.DockerConfigKey: []byte("{" + strings.Join(auths, ", ") + "}")},
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, found := range matching(ring, c.image) {
				got = append(got, found.Username)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("credentials for %s (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

// TestParseSecret proves which forms of pull secrets are read, and that a malformed entry does not affect the others.
func TestParseSecret(t *testing.T) {
	auth := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	const notJSON = "its content is not valid JSON for its type"
	cases := map[string]struct {
		kind    corev1.SecretType
		content string
		want    []credential
		refused string
	}{
		"username and password": {content: `{"auths": {"a": {"username": "u", "password": "p"}}}`, want: []credential{{"u", "p"}}},
		"auth":                  {content: `{"auths": {"a": {"auth": "` + auth("u:p:q") + `"}}}`, want: []credential{{"u", "p:q"}}},
		"auth before username":  {content: `{"auths": {"a": {"username": "x", "password": "y", "auth": "` + auth("u:p") + `"}}}`, want: []credential{{"u", "p"}}},
		"auth without padding":  {content: `{"auths": {"a": {"auth": "dTpw"}, "b": {"auth": "dTpwcQ"}}}`, want: []credential{{"u", "p"}, {"u", "pq"}}},
		"other fields":          {content: `{"HttpHeaders": {}, "credsStore": "x", "auths": {"a": {"username": "u", "password": "p", "email": "e"}}}`, want: []credential{{"u", "p"}}},
		"dockercfg":             {kind: corev1.SecretTypeDockercfg, content: `{"a": {"username": "u", "password": "p"}}`, want: []credential{{"u", "p"}}},
		"nothing in an entry":   {content: `{"auths": {"a": {}}}`},
		"no entries":            {content: `{}`},
		"another type":          {kind: corev1.SecretTypeOpaque, content: `{"auths": {}}`, refused: errNotPullSecret.Error()},
		"not JSON":              {content: `s3cret`, refused: notJSON},
		"empty":                 {content: ``, refused: notJSON},
		"of the other form":     {kind: corev1.SecretTypeDockercfg, content: `[]`, refused: notJSON},
		"one malformed entry": {
			content: `{"auths": {"a": "s3cret", "b": {"username": "u", "password": "p"}}}`,
			want:    []credential{{"u", "p"}}, refused: `its entry "a" is not a JSON object of strings`,
		},
		"one malformed auth": {
			content: `{"auths": {"a": {"auth": "s3cret!"}, "b": {"username": "u", "password": "p"}}}`,
			want:    []credential{{"u", "p"}}, refused: `its entry "a" has an auth that is not base64 of USERNAME:PASSWORD`,
		},
		"auth without a colon": {
			content: `{"auths": {"a": {"auth": "` + auth("s3cret") + `"}}}`, refused: `its entry "a" has an auth that is not base64 of USERNAME:PASSWORD`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			key := corev1.DockerConfigJsonKey
			if c.kind == "" {
				c.kind = corev1.SecretTypeDockerConfigJson
			} else {
				key = corev1.DockerConfigKey
			}
			ring, err := parseSecret(&corev1.Secret{Type: c.kind, Data: map[string][]byte{key: []byte(c.content)}})
			var got []credential
			for _, entry := range ring {
				got = append(got, entry.credential)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
			var refused string
			if err != nil {
				refused = err.Error()
			}
			if diff := cmp.Diff(c.refused, refused); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFingerprint proves that different credentials never have the same fingerprint.
func TestFingerprint(t *testing.T) {
	seen := map[[32]byte]keychain{}
	for _, k := range []keychain{
		{},
		{credentials: []credential{{"u", "p"}}},
		{credentials: []credential{{"u", "q"}}},
		{credentials: []credential{{"up", ""}}},
		{credentials: []credential{{"", "up"}}},
		{credentials: []credential{{"u\" \"p", ""}}},
		{credentials: []credential{{"u", "p"}, {"v", "q"}}},
		{credentials: []credential{{"v", "q"}, {"u", "p"}}},
		{credentials: []credential{{"u", "p\" \"v"}, {"q", ""}}},
	} {
		if other, taken := seen[k.fingerprint()]; taken {
			t.Errorf("%q and %q have the same fingerprint", k, other)
		}
		seen[k.fingerprint()] = k
	}
}
