//go:build e2e

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestPrivateRegistry proves that looking up the command of a private image uses its pull secret, as pulling its layers does: the Pod's or
// the ServiceAccount's, and the right one of several, for registries with passwords and with tokens. Without a secret, the Task waits and
// names the remedy. The operator uses no secret of another namespace, and follows the registry to no address that isn't a registry's. No
// password and no token gets into the operator's log or into an event, regardless of the registry's answers.
func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	began := metav1.Now()
	const username, password, guess, plaintext = "robot", "correct-horse-battery", "guess-horse-battery", "plain:horse:battery"
	namespace, elsewhere := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	pullSecret(t, elsewhere, "right-elsewhere", username, password)
	config := v1.Config{Entrypoint: []string{"/opt/argv", "private"}}
	image := argvImage(t, oci.HostPlatform(), config)
	pullSecret(t, namespace, "right", username, password)
	pullSecret(t, namespace, "wrong", username, guess)
	malformed := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "malformed", Namespace: namespace},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths": {%q: {"auth": %q}}}`, hostRegistry, plaintext)},
	}
	cluster.Make(t, malformed)
	account := &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Name: "puller", Namespace: namespace},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "right"}},
	}
	cluster.Make(t, account)
	private := func(t *testing.T, name string, spec corev1.PodSpec) *v1alpha1.Task {
		task := harness.NewTask(namespace, name, corev1.Container{Name: "only", Image: hostRegistry + "/private/" + name + ":v1"})
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: spec}
		cluster.Make(t, task)
		return task
	}

	for scheme, challenge := range map[string]string{"password": passwordChallenge, "token": tokenChallenge} {
		t.Run(scheme, func(t *testing.T) { // one after the other, because they have the same address
			serveRegistry(t, challenge, username, password)
			for secret, spec := range map[string]corev1.PodSpec{
				"of-the-pod":             {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "right"}}},
				"of-the-service-account": {ServiceAccountName: "puller"},
				"second-of-two":          {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "wrong"}, {Name: "right"}}},
			} {
				t.Run(secret, func(t *testing.T) {
					name := scheme + "-" + secret
					push(t, hostRegistry+"/private/"+name+":v1", image, remote.WithAuth(&authn.Basic{Username: username, Password: password}))
					task := private(t, name, spec)
					cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
					if got := cluster.Log(t, namespace, name, "only"); !strings.HasPrefix(got, "0 \"/opt/argv\"\n1 \"private\"\n") {
						t.Errorf("the log is %q", got)
					}
				})
			}
		})
	}
	serveRegistry(t, tokenChallenge, username, password)
	t.Run("labelled-pod", func(t *testing.T) {
		ref := push(t, hostRegistry+"/private/labelled-pod:v1", image, remote.WithAuth(&authn.Basic{Username: username, Password: password}))
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "labelled-pod", Namespace: namespace, Labels: map[string]string{contract.SequentialLabel: "true"}},
			Spec: corev1.PodSpec{
				ServiceAccountName: "puller",
				RestartPolicy:      corev1.RestartPolicyNever,
				Containers:         []corev1.Container{{Name: "first", Image: ref}, {Name: "second", Image: ref, Args: []string{"again"}}},
			},
		}
		cluster.Make(t, pod)
		wait.For(t, "the Pod to succeed", func(ctx context.Context) error {
			err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			if err == nil && pod.Status.Phase != corev1.PodSucceeded {
				err = fmt.Errorf("its phase is %s", pod.Status.Phase)
			}
			return err
		})
		for container, want := range map[string]string{"first": "0 \"/opt/argv\"\n1 \"private\"\nin ", "second": "0 \"/opt/argv\"\n1 \"private\"\n2 \"again\"\nin "} {
			if got := cluster.Log(t, namespace, pod.Name, container); !strings.HasPrefix(got, want) {
				t.Errorf("the log of %s is %q", container, got)
			}
		}
		refused := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "refused", Namespace: namespace, Labels: pod.Labels}, Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "first", Image: ref}},
		}}
		err := cluster.Create(t.Context(), refused)
		if want := "denies access without credentials; add an imagePullSecret for " + hostRegistry + ", or set command"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("creating a Pod without the secret: %v, want a refusal with %q", err, want)
		}
	})
	for name, c := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"none": {
			corev1.PodSpec{},
			"denies access without credentials; add an imagePullSecret for " + hostRegistry + ", or set command",
		},
		"wrong": {
			corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "wrong"}}},
			"denies access with the Pod's credentials; fix the imagePullSecrets, or set command",
		},
		"malformed": {
			corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "malformed"}}},
			"denies access without credentials; fix the imagePullSecrets (malformed), or set command",
		},
		"of-another-namespace": {
			corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "right-elsewhere"}}},
			"denies access without credentials; fix the imagePullSecrets (right-elsewhere), or set command",
		},
		"by-the-path-of-another-namespace": {
			corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "../../" + elsewhere + "/secrets/right-elsewhere"}}},
			`the API server did not return the Secret "../../`,
		},
		"redirected": {
			corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "right"}}},
			"has a loopback, link-local or metadata address",
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := private(t, name, c.spec)
			status := cluster.AwaitTask(t, task, "the Task to wait", func(status v1alpha1.TaskStatus) bool {
				return slices.ContainsFunc(status.Conditions, func(c metav1.Condition) bool { return c.Reason == v1alpha1.ReasonEntrypointUnresolved })
			})
			wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonEntrypointUnresolved, c.want)
		})
	}
	basic := func(password string) string {
		return base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	}
	wantUntold(t, namespace, began, password, guess, plaintext, registryToken, basic(password), basic(guess))
}

// wantUntold fails the test if secrets are in the operator's log, which is complete at level debug, or in the events of a namespace.
func wantUntold(t *testing.T, namespace string, since metav1.Time, secrets ...string) {
	t.Helper()
	told := map[string]string{}
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for _, pod := range pods.Items {
		content, err := cluster.Clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{SinceTime: &since}).DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		log.Write(content)
	}
	told["the operator's log"] = log.String()
	for _, evidence := range []string{`"level":"debug"`, "Skipped a pull secret", "Rejected a Pod"} {
		if !strings.Contains(log.String(), evidence) {
			t.Errorf("the operator's log has no %s: it isn't all of it", evidence)
		}
	}
	var list eventsv1.EventList
	if err := cluster.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	told["an event"] = string(content)
	if !strings.Contains(told["an event"], v1alpha1.ReasonEntrypointUnresolved) {
		t.Error("no event tells of the look-up")
	}
	for where, content := range told {
		for _, secret := range secrets {
			if i := strings.Index(content, secret); i >= 0 {
				t.Errorf("%s has the secret %q: ...%s", where, secret, content[max(0, i-300):i+len(secret)])
			}
		}
	}
}

// The private registry's challenges: for a password, or for a token.
const (
	passwordChallenge = `Basic realm="private"`
	tokenChallenge    = `Bearer realm="http://` + hostRegistry + `/token",service="private"`
)

// registryToken is the private registry's answer to a client with the password.
const registryToken = "token-of-the-private-registry"

// serveRegistry serves a registry at hostRegistry that requires a password, or a token for it, and echoes the requests in its errors. It
// redirects requests below /private/redirected to the node's metadata.
func serveRegistry(t *testing.T, challenge, username, password string) {
	t.Helper()
	listener, err := net.Listen("tcp", hostRegistry)
	if err != nil {
		t.Fatal(err)
	}
	behind := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	refuse := func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"errors": [{"code": "DENIED", "message": "who are you? You sent %s %s %s"}]}`, u, p, r.Header.Get("Authorization"))
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		knows := u == username && p == password
		admitted := r.Header.Get("Authorization") == "Bearer "+registryToken
		if challenge == passwordChallenge {
			admitted = knows
		}
		switch {
		case r.URL.Path == "/token" && knows:
			fmt.Fprintf(w, `{"token": %q}`, registryToken)
		case !admitted:
			refuse(w, r)
		case strings.Contains(r.URL.Path, "/private/redirected/"):
			http.Redirect(w, r, "https://169.254.169.254"+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			behind.ServeHTTP(w, r)
		}
	})}
	go func() { _ = server.Serve(listener) }() // until the test closes it
	t.Cleanup(func() { _ = server.Close() })
}

func pullSecret(t *testing.T, namespace, name, username, password string) {
	t.Helper()
	config := fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, hostRegistry, username, password)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(config)},
	}
	cluster.Make(t, secret)
}
