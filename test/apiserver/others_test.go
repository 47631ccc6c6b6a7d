//go:build apiserver

package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// The paths of two webhooks that don't belong to taskflow.
const (
	appendsContainer = "/test-appends-container"
	addsEnv          = "/test-adds-env"
)

// registerOthers registers both. One appends a container, as webhooks of proxies do. The other adds a variable to every container.
func registerOthers(server ctrlwebhook.Server, decoder admission.Decoder) {
	serve := func(path string, edit func(*corev1.Pod)) {
		server.Register(path, &ctrlwebhook.Admission{Handler: admission.HandlerFunc(func(_ context.Context, request admission.Request) admission.Response {
			var pod corev1.Pod
			if err := decoder.Decode(request, &pod); err != nil {
				return admission.Errored(http.StatusBadRequest, err)
			}
			edit(&pod)
			content, err := json.Marshal(pod)
			if err != nil {
				return admission.Errored(http.StatusInternalServerError, err)
			}
			return admission.PatchResponseFromRaw(request.Object.Raw, content)
		})})
	}
	serve(appendsContainer, func(pod *corev1.Pod) {
		if !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "proxy" }) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "proxy", Image: "proxy:1", Command: []string{"proxy"}})
		}
	})
	serve(addsEnv, func(pod *corev1.Pod) {
		for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range containers {
				if !slices.ContainsFunc(containers[i].Env, func(e corev1.EnvVar) bool { return e.Name == "ADDED" }) {
					containers[i].Env = append(containers[i].Env, corev1.EnvVar{Name: "ADDED", Value: "x"})
				}
			}
		}
	})
}

// served returns a client configuration for a path of this process.
func served(path string) admissionv1.WebhookClientConfig {
	hook := environment.WebhookInstallOptions
	url := fmt.Sprintf("https://%s:%d%s", hook.LocalServingHost, hook.LocalServingPort, path)
	return admissionv1.WebhookClientConfig{URL: &url, CABundle: hook.LocalServingCAData}
}

// named returns a selector for one namespace.
func named(namespace string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
}

// createWebhooks creates webhook configurations and deletes them when the test ends. The API server watches configurations and uses a new
// one a moment later.
func createWebhooks(t *testing.T, configuration *admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	cluster.Make(t, configuration)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), configuration); err != nil {
			t.Error(err)
		}
	})
}

// callOther makes the API server call one of the two for the Pods of a namespace. The API server calls webhooks in the order of their
// configurations' names.
func callOther(t *testing.T, namespace, name, path string) {
	t.Helper()
	createWebhooks(t, &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name + "." + namespace},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:                    "test.example.com",
			AdmissionReviewVersions: []string{"v1"},
			ClientConfig:            served(path),
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			NamespaceSelector:  named(namespace),
			ReinvocationPolicy: new(admissionv1.IfNeededReinvocationPolicy),
			SideEffects:        new(admissionv1.SideEffectClassNone),
		}},
	})
	wait.For(t, "the webhook "+path, func(ctx context.Context) error {
		pod := podWithLabels(namespace, "probe", nil, echo("a"))
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			return err
		}
		called := len(pod.Spec.Containers) > 1
		if path == addsEnv {
			called = len(pod.Spec.Containers[0].Env) > 0
		}
		if !called {
			return fmt.Errorf("it isn't called: %+v", pod.Spec)
		}
		return nil
	})
}

// TestOtherWebhooks proves that two other webhooks, each before or after taskflow's, leave a valid Pod: the steps wait for one another, an
// appended container waits for none, and every container has the variable, in both deliveries. The name of taskflow's configuration sorts
// between the others.
func TestOtherWebhooks(t *testing.T) {
	const before, after = "a", "z"
	for _, order := range []struct{ container, env string }{{before, before}, {before, after}, {after, before}, {after, after}} {
		t.Run(fmt.Sprintf("container %s, env %s", order.container, order.env), func(t *testing.T) {
			namespace := cluster.NewNamespace(t, "privileged")
			callOther(t, namespace, order.container+"1", appendsContainer)
			callOther(t, namespace, order.env+"2", addsEnv)
			task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "template", Namespace: namespace}}
			task.Spec.Suspend, task.Spec.Steps = true, []v1alpha1.Step{{Container: echo("a")}, {Container: echo("b")}}
			cluster.Make(t, task)
			placeholder := corev1.Container{Name: "task", Image: "task"}
			steps := map[string]string{contract.StepsAnnotation: "a,b"}
			for name, c := range map[string]struct {
				pod         *corev1.Pod
				annotations map[string]string
				proxyIsStep bool
			}{
				"that names its steps": {pod: podWithLabels(namespace, "x", sequentialLabel(), echo("a"), echo("b")), annotations: steps},
				"that names a Task":    {pod: podWithLabels(namespace, "x", taskLabel("template"), placeholder)},
				// A container that another webhook added earlier looks like a container of the user.
				"whose containers are all steps": {pod: podWithLabels(namespace, "x", sequentialLabel(), echo("a"), echo("b")), proxyIsStep: order.container == before},
			} {
				for delivery, all := range map[string]string{
					contract.DeliveryInit:  "a has it, b has it, proxy has it, taskflow-agent has it",
					contract.DeliveryImage: "a has it, b has it, proxy has it",
				} {
					pod := c.pod.DeepCopy()
					pod.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
					maps.Copy(pod.Annotations, c.annotations)
					cluster.Make(t, pod, client.DryRunAll)
					want := map[string]string{"a": "1 echo a", "b": "2 echo b"}
					if c.proxyIsStep {
						want["proxy"] = "3 proxy"
					}
					if diff := cmp.Diff(want, agents(t, pod)); diff != "" {
						t.Errorf("%s, %s: what the agents are told (-want +got):\n%s", name, delivery, diff)
					}
					var containers []string
					for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
						env := ""
						if slices.Contains(container.Env, corev1.EnvVar{Name: "ADDED", Value: "x"}) {
							env = " has it"
						}
						containers = append(containers, container.Name+env)
					}
					slices.Sort(containers)
					if diff := cmp.Diff(all, strings.Join(containers, ", ")); diff != "" {
						t.Errorf("%s, %s: containers with the variable (-want +got):\n%s", name, delivery, diff)
					}
				}
			}
		})
	}
}
