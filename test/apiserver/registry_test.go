//go:build apiserver

package apiserver

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// admissionTimeout is how long the API server waits for the webhook (timeoutSeconds in config/webhook).
const admissionTimeout = 10 * time.Second

// registriesAuthority returns the CA bundle for the registries of these tests.
func registriesAuthority() string {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func serve(t *testing.T, handler http.Handler) (server *httptest.Server, host string) {
	t.Helper()
	server = httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	return server, server.Listener.Addr().String()
}

// newRegistry returns a registry with the image app:v1, which runs /app.
func newRegistry(t *testing.T) http.Handler {
	t.Helper()
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server, host := serve(t, handler)
	ref, err := name.ParseReference(host + "/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.Config(empty.Image, v1.Config{Entrypoint: []string{"/app"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithTransport(server.Client().Transport), remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	return handler
}

// wantRefused creates a labelled Pod with a step without a command, and checks the refusal.
func wantRefused(t *testing.T, image, why, remedy string) {
	t.Helper()
	pod := podWithLabels(cluster.NewNamespace(t, "privileged"), "refused", sequentialLabel(), corev1.Container{Name: "a", Image: image})
	began := time.Now()
	err := cluster.Create(t.Context(), pod)
	took := time.Since(began)
	host, _, _ := strings.Cut(image, "/")
	want := fmt.Sprintf(`admission webhook "sequential-a.taskflow.practice.com" denied the request: the container "a": image %q cannot be resolved: %s %s; %s`, image, host, why, remedy)
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("creating the Pod (-want +got):\n%s", diff)
	}
	if took >= admissionTimeout {
		t.Errorf("the refusal took %s, want less than %s", took, admissionTimeout)
	}
}

// TestSilentRegistry proves that a Pod whose image's registry never answers is refused with a sentence about it before the API server's own
// timeout. The operator has its default timeout.
func TestSilentRegistry(t *testing.T) {
	t.Parallel()
	_, host := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	wantRefused(t, host+"/app:v1", "is unreachable, is not trusted, or does not answer in time", "fix image, or set command; the operator's log has the cause")
}

// TestBusyRegistry proves that a registry which asks for a pause (Retry-After) refuses a Pod at once and keeps a Task waiting. The operator
// makes no request before the pause is over, and the Task continues by itself afterwards.
func TestBusyRegistry(t *testing.T) {
	t.Parallel()
	const wait = 8 * time.Second // longer than the operator remembers a failure, and than the first back-offs
	behind := newRegistry(t)
	var mutex sync.Mutex
	var asked []time.Time // requests for the digest
	_, host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			mutex.Lock()
			asked = append(asked, time.Now())
			first := len(asked) == 1
			mutex.Unlock()
			if first {
				w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		behind.ServeHTTP(w, r)
	}))
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "waiting", Namespace: cluster.NewNamespace(t, "privileged")}}
	task.Spec.Steps = []v1alpha1.Step{{Container: corev1.Container{Name: "a", Image: host + "/app:v1"}}}
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to wait", func(s v1alpha1.TaskStatus) bool { return len(s.Conditions) > 0 })
	want := fmt.Sprintf(`step "a": image "%[1]s/app:v1" cannot be resolved: %[1]s returned status 503; `+
		`set command, or add the image to images.commands in the operator's configuration`, host)
	got := status.Conditions[0]
	if diff := cmp.Diff([]string{v1alpha1.ReasonEntrypointUnresolved, want}, []string{got.Reason, got.Message}); diff != "" {
		t.Errorf("the condition (-want +got):\n%s", diff)
	}
	wantRefused(t, host+"/app:v1", "returned status 503", "set command, or add the image to images.commands in the operator's configuration")
	if diff := cmp.Diff(map[string]string{"a": "1 /app"}, agents(t, awaitPod(t, task))); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	mutex.Lock()
	defer mutex.Unlock()
	if len(asked) != 2 || asked[1].Sub(asked[0]) < wait {
		t.Errorf("the registry was asked at %v, want twice, and the second time %s after the first", asked, wait)
	}
}
