//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// replica serves the webhook at replicaPath and counts its calls. A dead one answers none.
type replica struct {
	calls atomic.Int32
	dead  atomic.Bool
}

var webhookReplicas = map[string]*replica{"a": {}, "b": {}}

func replicaPath(name string) string { return "/replica-" + name }

func registerReplicas(server ctrlwebhook.Server, handler http.Handler) {
	for name, r := range webhookReplicas {
		server.Register(replicaPath(name), http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			r.calls.Add(1)
			if r.dead.Load() {
				panic(http.ErrAbortHandler) // the connection breaks
			}
			handler.ServeHTTP(w, request)
		}))
	}
}

// TestReplicas proves that the API server calls only the first replica while that is alive, and the second one otherwise. The condition of
// the second call is the same as the policy's that refuses unmutated Pods.
func TestReplicas(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	configuration := callReplicas(t, namespace)
	sameCondition(t, configuration)
	sequential := func() *corev1.Pod { return podWithLabels(namespace, "x", sequentialLabel(), echo("a"), echo("b")) }
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "template"}}
	task.Spec.Suspend, task.Spec.Steps = true, []v1alpha1.Step{{Container: echo("a")}, {Container: echo("b")}}
	cluster.Make(t, task)
	// A copy of a Pod that has run: without the webhook all of its steps would start at once.
	mutated := sequential()
	cluster.Make(t, mutated, client.DryRunAll)
	hasRun := func(key, value string) *corev1.Pod {
		pod := mutated.DeepCopy()
		pod.ObjectMeta = metav1.ObjectMeta{Name: "copy", Namespace: namespace, Labels: pod.Labels, Annotations: pod.Annotations}
		pod.Annotations[key] = value
		return pod
	}
	const first, second, dead, alive = "a", "b", true, false
	const both = first + first + second // the first replica again, because the second one has changed the Pod
	for name, c := range map[string]struct {
		pod         *corev1.Pod
		firstIsDead bool
		asked       string
	}{
		"both are alive":                         {sequential(), alive, first},
		"the first one is dead":                  {sequential(), dead, both},
		"the first one is dead, a Task":          {podWithLabels(namespace, "x", taskLabel(task.Name), echo("a"), echo("b")), dead, both},
		"a copy, both are alive":                 {hasRun(contract.OrderAnnotation, "2"), alive, first},
		"a copy, the first one is dead":          {hasRun(contract.OrderAnnotation, "2"), dead, both},
		"a halted copy":                          {hasRun(contract.HaltAnnotation, "Cancelled"), dead, both},
		"a copy of one that has not begun":       {hasRun(contract.OrderAnnotation, "1"), dead, first},
		"without a label, the first one is dead": {podWithLabels(namespace, "x", nil, echo("a")), dead, ""},
	} {
		t.Run(name, func(t *testing.T) {
			webhookReplicas[first].dead.Store(c.firstIsDead)
			defer webhookReplicas[first].dead.Store(false)
			before := replicaCalls()
			cluster.Make(t, c.pod, client.DryRunAll)
			after := replicaCalls()
			asked := strings.Repeat(first, int(after[first]-before[first])) + strings.Repeat(second, int(after[second]-before[second]))
			if diff := cmp.Diff(c.asked, asked); diff != "" {
				t.Errorf("replicas that were asked (-want +got):\n%s", diff)
			}
			if len(c.pod.Labels) == 0 {
				return
			}
			if diff := cmp.Diff([]string{"1", ""}, []string{c.pod.Annotations[contract.OrderAnnotation], c.pod.Annotations[contract.HaltAnnotation]}); diff != "" {
				t.Errorf("order and halt (-want +got):\n%s", diff)
			}
			for _, container := range c.pod.Spec.Containers {
				if container.Command[0] != contract.AgentPath {
					t.Errorf("the container %s has no agent: %q", container.Name, container.Command)
				}
			}
		})
	}
}

// sameCondition compares the condition of the second replica's webhooks with the policy's.
func sameCondition(t *testing.T, configuration *admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	var policy admissionv1.ValidatingAdmissionPolicy
	content, err := os.ReadFile("../../config/policy/unmutated.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(bytes.Split(content, []byte("\n---\n"))[0], &policy); err != nil {
		t.Fatal(err)
	}
	for _, w := range configuration.Webhooks {
		if strings.HasSuffix(strings.Split(w.Name, ".")[0], "-a") {
			continue // the first replica is called for every Pod
		}
		last := w.MatchConditions[len(w.MatchConditions)-1]
		if diff := cmp.Diff("!("+policy.Spec.Validations[0].Expression+")", last.Expression); diff != "" {
			t.Errorf("%s: the condition %s (-want +got):\n%s", w.Name, last.Name, diff)
		}
	}
}

func replicaCalls() map[string]int32 {
	counts := map[string]int32{}
	for name, r := range webhookReplicas {
		counts[name] = r.calls.Load()
	}
	return counts
}

// callReplicas makes the API server call the replicas for the Pods of a namespace, as config/webhook does, before the webhook of all other
// tests. That one then finds nothing to do.
func callReplicas(t *testing.T, namespace string) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	configuration, err := webhookConfiguration()
	if err != nil {
		t.Fatal(err)
	}
	configuration.Name = "a-replicas"
	for i := range configuration.Webhooks {
		w := &configuration.Webhooks[i]
		path := replicaPath(strings.TrimPrefix(w.ClientConfig.Service.Name, "taskflow-webhook-"))
		if w.ClientConfig.Service.Path != nil {
			path = *w.ClientConfig.Service.Path // a path that no replica serves
		}
		w.ClientConfig, w.NamespaceSelector = served(path), named(namespace)
	}
	createWebhooks(t, configuration)
	wait.For(t, "the replicas to be asked", func(ctx context.Context) error {
		before := replicaCalls()["a"]
		if err := cluster.Create(ctx, podWithLabels(namespace, "probe", sequentialLabel(), echo("a")), client.DryRunAll); err != nil {
			return err
		}
		if replicaCalls()["a"] == before {
			return errors.New("they aren't")
		}
		return nil
	})
	return configuration
}
