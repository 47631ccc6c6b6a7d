package entrypoint_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// recordingLog returns a logger with a verbosity, and what it logs.
func recordingLog(verbosity int) (logr.Logger, *strings.Builder) {
	var told strings.Builder
	return funcr.NewJSON(func(entry string) { told.WriteString(entry + "\n") }, funcr.Options{Verbosity: verbosity}), &told
}

// TestCauseInLog proves that the log has the cause of a failed look-up: at level debug, or at level info if the user's sentence hides it.
// It never contains a secret, although the registry gets the credentials and repeats them wherever it can.
func TestCauseInLog(t *testing.T) {
	const signature = "signed-by-the-storage"
	basic := base64.StdEncoding.EncodeToString([]byte(robot + ":" + s3cret))
	// echo contains everything that must not be logged.
	echo := func(r *http.Request) string {
		return strings.Join([]string{marker, robot, s3cret, basic, signature, r.Header.Get("Authorization")}, " ")
	}
	answer := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, echo(r))
		}
	}
	challenge := func(format string) http.HandlerFunc { // with the registry's host
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", strings.ReplaceAll(format, "HOST", r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, echo(r))
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
	}
	tokens := challenge(`Bearer realm="http://` + s3cret + `@HOST/token",service="` + signature + `"`)
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)

	cases := map[string]struct {
		ping, token, manifest http.HandlerFunc // nil means a registry with basic authentication
		image                 string           // if not at HOST
		timeout               time.Duration    // 0 for more than an answer takes
		want                  string
	}{
		"status":                     {manifest: answer(http.StatusBadGateway), want: "HOST: status 502"},
		"status at first":            {ping: answer(http.StatusInternalServerError), want: "HOST: status 500"},
		"a success that is none":     {ping: answer(http.StatusAccepted), want: "HOST: status 202"},
		"credentials refused":        {manifest: challenge("Basic"), want: "HOST: status 401"},
		"rate limit":                 {manifest: answer(http.StatusTooManyRequests), want: "HOST: status 429, retry after 2"},
		"not found in HOST":          {manifest: answer(http.StatusNotFound), want: "HOST: status 404"},
		"token refused":              {ping: tokens, token: answer(http.StatusForbidden), want: "HOST: status 403"},
		"no token":                   {ping: tokens, token: answer(http.StatusOK), want: "an error of type *json.SyntaxError"},
		"token of another name":      {ping: tokens, token: content("application/json", `{"secret": "`+s3cret+`"}`), want: "an error of type *errors.errorString"},
		"token that isn't a text":    {ping: tokens, token: content("application/json", `{"expires_in": "`+s3cret+`"}`), want: "an error of type *json.UnmarshalTypeError"},
		"challenge without a realm":  {ping: challenge(`Bearer service="` + s3cret + `"`), want: "an error of type *errors.errorString"},
		"tokens elsewhere":           {ping: challenge(`Bearer realm="http://` + s3cret + `@127.0.0.3/` + signature + `"`), want: "credentials are not sent to its token service"},
		"not HTTP":                   {manifest: raw(echo), want: "HOST: an error of type"},
		"connection closed":          {manifest: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: "HOST: EOF"},
		"redirect to a dead host":    {manifest: redirect("http://" + robot + ":" + s3cret + "@" + deadHost + "/" + signature + "?sig=" + signature), want: deadHost + ": dial tcp " + deadHost + ": connect: connection refused"},
		"redirect to what isn't TLS": {manifest: redirect("http://127.0.0.3/" + signature + "?sig=" + signature), want: "127.0.0.3: plain HTTP is not allowed"},
		"silence":                    {manifest: hang, timeout: 2 * time.Second, want: "HOST: context deadline exceeded"},
		"not an image":               {manifest: content("text/html", marker+s3cret), want: "not an image"},
		"nothing listens":            {image: deadHost + "/app:v1", want: deadHost + ": dial tcp " + deadHost + ": connect: connection refused"},
		"untrusted certificate":      {image: addressOf(untrusted) + "/app:v1", want: addressOf(untrusted) + ": tls: failed to verify certificate: x509: certificate signed by unknown authority"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer := c.manifest
				switch r.URL.Path {
				case "/v2/":
					answer = c.ping
					if answer == nil {
						answer = challenge(`Basic realm="x"`)
					}
				case "/token":
					answer = c.token
				}
				answer(w, r)
			}))
			image := c.image
			if image == "" {
				image = host + "/app:v1"
			}
			resolver := newResolver(t, entrypoint.Options{
				PlainHTTP: []string{host, deadHost},
				Timeout:   metav1.Duration{Duration: c.timeout},
				Secrets:   secrets{"right": dockerConfig(strings.Split(image, "/")[0], robot, s3cret)}.read,
			})
			request := entrypoint.Request{Namespace: "default", Image: image, PullSecrets: []string{"right"}}
			for verbosity, want := range []string{"", strings.ReplaceAll(c.want, "HOST", host)} {
				logger, told := recordingLog(verbosity)
				_, err := resolver.Resolve(logf.IntoContext(t.Context(), logger), request)
				if err == nil {
					t.Fatal("Resolve has no error")
				}
				if strings.Contains(err.Error(), "the operator's log has the cause") {
					want = strings.ReplaceAll(c.want, "HOST", host)
				}
				checkLogged(t, told.String(), image, want)
				for _, secret := range []string{marker, s3cret, basic, signature} {
					if strings.Contains(told.String(), secret) {
						t.Errorf("the log has %q: %s", secret, told)
					}
				}
			}
		})
	}
}

// checkLogged expects one entry whose cause starts with want, or none if want is empty.
func checkLogged(t *testing.T, told, image, want string) {
	t.Helper()
	if want == "" {
		if told != "" {
			t.Errorf("the log has without debug: %s", told)
		}
		return
	}
	var entry struct{ Namespace, Image, Registry, Why string }
	if err := json.Unmarshal([]byte(told), &entry); err != nil {
		t.Fatalf("the log is %q: %v", told, err)
	}
	if diff := cmp.Diff([]string{"default", image, strings.Split(image, "/")[0]}, []string{entry.Namespace, entry.Image, entry.Registry}); diff != "" {
		t.Errorf("the entry (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(entry.Why, want) {
		t.Errorf("the cause is %q, want %q", entry.Why, want)
	}
}

// raw answers with bytes that are not HTTP.
func raw(echo func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer connection.Close()
		fmt.Fprintf(connection, "%s\r\n", echo(r))
	}
}

// TestSecretCauseInLog proves that the log has the reason why the API server did not return a Secret, which the user does not see.
func TestSecretCauseInLog(t *testing.T) {
	logger, told := recordingLog(1)
	resolver := newResolver(t, entrypoint.Options{Secrets: secrets{}.read})
	request := entrypoint.Request{Namespace: "default", Image: "registry.example.com/app", PullSecrets: []string{"forbidden"}}
	_, err := resolver.Resolve(logf.IntoContext(t.Context(), logger), request)
	if _, ok := errors.AsType[*entrypoint.Error](err); !ok {
		t.Fatalf("Resolve: %v", err)
	}
	checkLogged(t, told.String(), request.Image, `reading the Secret "forbidden": the API server's own words`)
}
