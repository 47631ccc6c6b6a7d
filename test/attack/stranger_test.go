//go:build e2e

package attack

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/attack/ask"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// The attacker is a Pod of a tenant, without a token. It reaches every Service and every Pod, as without a NetworkPolicy.

const password = "correct-horse-battery"

// openPath is the path of the webhook that refuses unmutated Pods, for every caller. Its handler knows nothing of Tasks.
const openPath = "/unmutated"

// TestStrangerReadsNoTask has a Pod call the webhook about a Pod in another namespace that names a Task there, as the API server does: at
// the known path, at guessed ones, and with a self-made client certificate. No answer is a review or contains anything of the Task, and the
// answers don't reveal whether the Task exists.
func TestStrangerReadsNoTask(t *testing.T) {
	t.Parallel()
	victim := cluster.NewNamespace(t, "baseline")
	task := harness.NewTask(victim, "backup", harness.Shell("dump", "pg_dump"))
	task.Spec.Steps[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: password}}
	task.Spec.Suspend = true
	cluster.Make(t, task)
	var requests []ask.Request
	for _, host := range slices.Concat(serviceAddresses(t, "taskflow-webhook"), podAddresses(t, "webhook")) {
		for _, name := range []string{"backup", "nothing"} {
			body := review(victim, name, `[{"name":"task","image":"task"}]`, "")
			for _, path := range []string{"/mutate-pods", "/mutate-pods/", "//mutate-pods", "/./mutate-pods", "/mutate-pods/..", "/mutate-pods?timeout=10s", "/mutate-pods/" + strings.Repeat("0", 64), "/validate-tasks/" + strings.Repeat("0", 64), openPath, "/"} {
				requests = append(requests, ask.Request{URL: "https://" + host + path, Body: body})
			}
			requests = append(requests, ask.Request{URL: "https://" + host + "/mutate-pods", Body: body, Certificate: "kube-apiserver"})
		}
	}
	said := map[string]string{}
	for _, answer := range stranger(t, requests...) {
		if !strings.HasSuffix(answer.URL, openPath) {
			wantNoReview(t, answer)
		}
		if before, ok := said[answer.URL]; ok && before != answer.Body {
			t.Errorf("%s: the answers for a Task that exists and for one that doesn't differ: %.200q, %.200q", answer.URL, before, answer.Body)
		}
		said[answer.URL] = answer.Body
		for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), "pg_dump", `"backup"`} {
			if strings.Contains(answer.Body, secret) || strings.Contains(decoded(answer.Body), secret) {
				t.Errorf("%s: the answer has %q of a Task in another namespace", answer.URL, secret)
			}
		}
	}
}

// TestStrangerUsesNoPullSecret has a Pod call the webhook about a Pod in another namespace with that namespace's pull secret and an image
// in the attacker's registry. The registry gets no password, and no answer reveals whether the secret exists.
func TestStrangerUsesNoPullSecret(t *testing.T) {
	t.Parallel()
	var heard sync.Map
	host := serveHTTP(t, plainRegistry(7), func(w http.ResponseWriter, r *http.Request) {
		heard.Store(r.Header.Get("Authorization"), r.URL.Path)
		w.Header().Set("WWW-Authenticate", `Basic realm="mine"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	victim := cluster.NewNamespace(t, "baseline")
	cluster.Make(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: victim, Name: "pull"},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths": {%q: {"username": "robot", "password": %q}}}`, host, password)},
	})
	var requests []ask.Request
	for _, address := range serviceAddresses(t, "taskflow-webhook") {
		for _, secret := range []string{"pull", "none"} {
			body := review(victim, "", fmt.Sprintf(`[{"name":"a","image":"%s/private/app:1"}]`, host), fmt.Sprintf(`,"imagePullSecrets":[{"name":%q}]`, secret))
			requests = append(requests, ask.Request{URL: "https://" + address + "/mutate-pods", Body: body})
		}
	}
	for _, answer := range stranger(t, requests...) {
		wantNoReview(t, answer)
	}
	heard.Range(func(authorization, path any) bool {
		t.Errorf("the attacker's registry was asked for %s, with the authorization %q", path, authorization)
		return true
	})
}

// TestStrangerFloodsTheWebhook has a Pod send reviews of 60,000 containers to the webhook while a tenant creates Pods. Each of the tenant's
// Pods is admitted within seconds, and the flood costs the operator neither its memory nor much CPU time.
func TestStrangerFloodsTheWebhook(t *testing.T) {
	const clients, reviewBound = 5, 2 * time.Second
	before := replicas(t)
	body := review("default", "", ask.Containers, "")
	var requests []ask.Request
	for _, host := range serviceAddresses(t, "taskflow-webhook") {
		for _, path := range []string{"/mutate-pods", "/validate-tasks/" + strings.Repeat("0", 64), openPath} {
			requests = append(requests, ask.Request{URL: "https://" + host + path, Body: body, Containers: 60_000, Clients: clients})
		}
	}
	answers := strangerBeside(t, func() { admitPods(t, 20, 5*time.Second) }, requests...)
	for _, answer := range answers {
		if answer.Bytes > 1<<20 {
			t.Errorf("%s: the answer has %d bytes", answer.URL, answer.Bytes)
		}
	}
	computed := wantUnharmed(t, before)
	if each := computed / time.Duration(len(answers)); each > reviewBound {
		t.Errorf("each of %d reviews cost %s of processor time, more than %s", len(answers), each, reviewBound)
	}
}

// TestStrangerStarvesMetrics has a Pod request the metrics with wrong tokens, with 150 clients in parallel. Prometheus still gets them
// soon.
func TestStrangerStarvesMetrics(t *testing.T) {
	const clients, flood, bound = 150, 25 * time.Second, 3 * time.Second
	before := replicas(t)
	scrape := scraper(t)
	if _, _, err := scrape(); err != nil {
		t.Fatal(err)
	}
	var requests []ask.Request
	for _, host := range podAddresses(t, "metrics") {
		requests = append(requests, ask.Request{URL: "https://" + host + "/metrics", Token: "wrong", Clients: clients / len(podAddresses(t, "metrics")), For: flood})
	}
	var slowest time.Duration
	scrapes := 0
	for _, answer := range strangerWhile(t, func() {
		_, took, err := scrape()
		if err != nil {
			t.Errorf("after %s: %v", took.Round(time.Millisecond), err)
		}
		slowest = max(slowest, took)
		scrapes++
	}, requests...) {
		if answer.Code == http.StatusOK {
			t.Errorf("%s: a wrong token got the metrics", answer.URL)
		}
	}
	t.Logf("the slowest of %d scrapes took %s", scrapes, slowest.Round(time.Millisecond))
	if slowest > bound {
		t.Errorf("a scrape took %s, more than %s", slowest.Round(time.Millisecond), bound)
	}
	wantUnharmed(t, before)
}

// admitPods creates labelled Pods one after another, without running them, and checks how long the slowest took.
func admitPods(t *testing.T, count int, bound time.Duration) {
	t.Helper()
	namespace := cluster.NewNamespace(t, "baseline")
	var slowest time.Duration
	for i := range count {
		began := time.Now()
		pod := harness.NewSequentialPod(namespace, fmt.Sprintf("pod-%d", i), harness.Shell("only", "true"))
		if err := cluster.Create(t.Context(), pod, client.DryRunAll); err != nil {
			t.Errorf("a tenant's Pod, after %s: %v", time.Since(began).Round(time.Millisecond), err)
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest of %d tenants' Pods was admitted after %s", count, slowest.Round(time.Millisecond))
	if slowest > bound {
		t.Errorf("a tenant's Pod was admitted after %s, more than %s", slowest.Round(time.Millisecond), bound)
	}
}

// review returns an AdmissionReview as the API server sends it. The task and the rest of the Pod's spec may be empty.
func review(namespace, task, containers, more string) string {
	labels := fmt.Sprintf(`{%q:"true"}`, contract.SequentialLabel)
	if task != "" {
		labels = fmt.Sprintf(`{%q:%q}`, contract.TaskLabel, task)
	}
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"version":"v1","kind":"Pod"},"resource":{"version":"v1","resource":"pods"},`+
		`"namespace":%[1]q,"operation":"CREATE","userInfo":{"username":"system:serviceaccount:kube-system:job-controller"},`+
		`"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":%[1]q,"labels":%[2]s},"spec":{"restartPolicy":"Never","containers":%[3]s%[4]s}}}}`,
		namespace, labels, containers, more)
}

func wantNoReview(t *testing.T, answer ask.Answer) {
	t.Helper()
	if answer.Code/100 == 2 || strings.Contains(answer.Body, "AdmissionReview") {
		t.Errorf("%s: the webhook answers a stranger: %d %.300s", answer.URL, answer.Code, answer.Body)
	}
}

// decoded returns the patch in an answer.
func decoded(body string) string {
	var answer struct{ Response struct{ Patch []byte } }
	_ = json.Unmarshal([]byte(body), &answer) // there may be none
	return string(answer.Response.Patch)
}

// stranger sends the requests from a Pod without a token.
func stranger(t *testing.T, requests ...ask.Request) []ask.Answer {
	t.Helper()
	return strangerBeside(t, func() {}, requests...)
}

// strangerBeside is like stranger and calls meanwhile once.
func strangerBeside(t *testing.T, meanwhile func(), requests ...ask.Request) []ask.Answer {
	t.Helper()
	pod := startStranger(t, requests)
	meanwhile()
	return heardBy(t, pod)
}

// strangerWhile is like stranger and calls meanwhile repeatedly.
func strangerWhile(t *testing.T, meanwhile func(), requests ...ask.Request) []ask.Answer {
	t.Helper()
	pod := startStranger(t, requests)
	for pod.Status.Phase == corev1.PodRunning {
		meanwhile()
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			t.Fatal(err)
		}
	}
	return heardBy(t, pod)
}

func startStranger(t *testing.T, requests []ask.Request) *corev1.Pod {
	t.Helper()
	image, err := strangerImage()
	if err != nil {
		t.Fatal(err)
	}
	if err := oci.Push(t.Context(), clusterRegistry+"/attack/stranger:latest", image, oci.PlainHTTP); err != nil {
		t.Fatal(err)
	}
	argument, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	pod := harness.NewPod(cluster.NewNamespace(t, "baseline"), "stranger", corev1.Container{
		Name: "stranger", Image: clusterRegistry + "/attack/stranger:latest", Args: []string{string(argument)},
	})
	pod.Spec.AutomountServiceAccountToken = new(false)
	cluster.Make(t, pod)
	waited(t, time.Minute, "stranger", func(ctx context.Context) (bool, error) {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return pod.Status.Phase != corev1.PodPending, err
	})
	return pod
}

func heardBy(t *testing.T, pod *corev1.Pod) []ask.Answer {
	t.Helper()
	cluster.AwaitPod(t, pod, corev1.PodSucceeded, corev1.PodFailed)
	said := cluster.Log(t, pod.Namespace, pod.Name, "stranger")
	if pod.Status.Phase != corev1.PodSucceeded {
		t.Fatalf("the stranger failed: %s", said)
	}
	var answers []ask.Answer
	for line := range strings.Lines(said) {
		var answer ask.Answer
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatalf("the stranger said %q: %v", line, err)
		}
		answers = append(answers, answer)
	}
	if len(answers) == 0 {
		t.Fatal("the stranger heard nothing")
	}
	return answers
}

// strangerImage builds the image once.
var strangerImage = sync.OnceValues(func() (v1.Image, error) {
	content, err := harness.BuildProgram("./stranger")
	if err != nil {
		return nil, err
	}
	return oci.Image(oci.HostPlatform(), []oci.File{{Path: "stranger", Mode: 0o555, Content: content}}, v1.Config{Entrypoint: []string{"/stranger"}, User: "65532:65532"})
})
