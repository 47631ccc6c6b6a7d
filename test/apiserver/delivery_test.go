//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/test/wait"
	"github.com/taskflow/taskflow-operator/webhook"
)

// deliveryOf returns how the agent gets into the Pod.
func deliveryOf(pod *corev1.Pod) string {
	switch image := pod.Spec.Volumes[0].Image; {
	case len(pod.Spec.InitContainers) > 0:
		return contract.DeliveryInit
	case image != nil && image.Reference == "taskflow/agent":
		return contract.DeliveryImage
	}
	return fmt.Sprintf("not at all: %+v", pod.Spec)
}

// TestAgentDelivery proves that with --agent-delivery=auto each new Pod mounts the agent's image if all nodes can do so at that time, and
// gets an init container otherwise. The Pod's own annotation takes precedence.
func TestAgentDelivery(t *testing.T) { // not parallel: all other tests need a cluster without nodes
	namespace := cluster.NewNamespace(t, "privileged")
	number := 0
	dryRun := func(ctx context.Context, annotations map[string]string) (string, error) {
		number++
		pod := podWithLabels(namespace, fmt.Sprint("pod-", number), sequentialLabel(), echo("a"))
		pod.Annotations = annotations
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			return "", err
		}
		return deliveryOf(pod), nil
	}
	await := func(t *testing.T, want string) {
		t.Helper()
		wait.For(t, "the delivery "+want, func(ctx context.Context) error {
			got, err := dryRun(ctx, nil)
			if err != nil {
				return err
			}
			if got != want {
				return fmt.Errorf("it is %s", got)
			}
			return nil
		})
		for _, own := range []string{contract.DeliveryInit, contract.DeliveryImage} {
			got, err := dryRun(t.Context(), map[string]string{contract.DeliveryAnnotation: own})
			if err != nil || got != own {
				t.Errorf("a Pod that asks for %s has %s, %v", own, got, err)
			}
		}
	}
	await(t, contract.DeliveryInit)
	first := join(t, "first", "v1.37.2", "containerd://2.4.2")
	await(t, contract.DeliveryImage)
	second := join(t, "second", "v1.35.3", "containerd://2.4.2")
	await(t, contract.DeliveryInit)
	upgrade(t, second, "v1.36.0", "containerd://2.3.0")
	await(t, contract.DeliveryImage)
	upgrade(t, first, "v1.37.2", "containerd://1.7.27")
	await(t, contract.DeliveryInit)
	for _, node := range []*corev1.Node{first, second} {
		if err := cluster.Delete(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		await(t, map[*corev1.Node]string{first: contract.DeliveryImage, second: contract.DeliveryInit}[node])
	}
}

// TestAgentDeliveryWithoutTheRight proves that an operator without the right to watch nodes works as if it knew none, and that it sees them
// once it has the right.
func TestAgentDeliveryWithoutTheRight(t *testing.T) { // not parallel, for the same reason as TestAgentDelivery
	node := join(t, "node", "v1.37.2", "containerd://2.4.2")
	config := rest.CopyConfig(environment.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: operator}
	forbidden := make(chan struct{})
	var once sync.Once
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if err == nil && response.StatusCode == http.StatusForbidden {
				once.Do(func() { close(forbidden) })
			}
			return response, err
		})
	})
	options := cache.Options{Scheme: cluster.Scheme(), ByObject: map[client.Object]cache.ByObject{}}
	webhook.CacheNodes(options.ByObject)
	informers, err := cache.New(config, options)
	if err != nil {
		t.Fatal(err)
	}
	others := webhook.NewNodes(informers, podspec.DeliveryAuto)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, start := range []func(context.Context) error{informers.Start, others.Start} {
		running.Go(func() {
			if err := start(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	defer func() { stop(); running.Wait() }()
	select {
	case <-forbidden:
	case <-time.After(time.Minute):
		t.Fatal("the nodes were not asked for")
	}
	if others.ImageVolumes() {
		t.Error("the operator reports that the nodes can mount images, although it has not seen them")
	}
	applyRoles(t, func(object *unstructured.Unstructured) bool {
		return object.GetKind() == "ClusterRoleBinding" && object.GetName() != "taskflow-operator-nodes" || object.GetKind() == "RoleBinding"
	}, "rbac/nodes.yaml", "rbac/bindings.yaml")
	wait.For(t, "the nodes to be seen", func(context.Context) error {
		if !others.ImageVolumes() {
			return errors.New("they are not")
		}
		return nil
	})

	if err := cluster.Delete(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the webhook to know that there is no node", func(context.Context) error {
		if nodes.ImageVolumes() {
			return errors.New("it doesn't")
		}
		return nil
	})
}

// join creates a node that is deleted when the test ends.
func join(t *testing.T, name, kubelet, runtime string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	cluster.Make(t, node)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), node); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	upgrade(t, node, kubelet, runtime)
	return node
}

// upgrade sets the node's versions.
func upgrade(t *testing.T, node *corev1.Node, kubelet, runtime string) {
	t.Helper()
	before := node.DeepCopy()
	node.Status.NodeInfo = corev1.NodeSystemInfo{OperatingSystem: "linux", KubeletVersion: kubelet, ContainerRuntimeVersion: runtime}
	if err := cluster.Status().Patch(t.Context(), node, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// TestAgentDeliveryKeepsClass proves that a Pod which mounts the agent's image satisfies PodSecurity's level restricted and requests no
// more than its steps do. So a Guaranteed Pod stays Guaranteed, unlike one with the init container.
func TestAgentDeliveryKeepsClass(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	cluster.Make(t, namespace)
	step := echo("a")
	step.SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		RunAsNonRoot:             new(true),
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	step.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	for delivery, want := range map[string]corev1.PodQOSClass{
		contract.DeliveryInit:  corev1.PodQOSBurstable,
		contract.DeliveryImage: corev1.PodQOSGuaranteed,
	} {
		pod := podWithLabels(namespace.Name, "pod-"+delivery, sequentialLabel(), step)
		pod.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
		cluster.Make(t, pod)
		if diff := cmp.Diff(want, pod.Status.QOSClass); diff != "" {
			t.Errorf("%s: the Pod's class (-want +got):\n%s", delivery, diff)
		}
	}
}
