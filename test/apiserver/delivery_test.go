//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// deliveryOf says how the agent was put into a Pod.
func deliveryOf(pod *corev1.Pod) string {
	switch image := pod.Spec.Volumes[0].Image; {
	case len(pod.Spec.InitContainers) > 0:
		return contract.DeliveryInit
	case image != nil && image.Reference == "taskflow/agent":
		return contract.DeliveryImage
	}
	return fmt.Sprintf("not at all: %+v", pod.Spec)
}

// With --agent-delivery=auto each new Pod gets the agent as all nodes can have it at that time: as a volume while all are able to mount
// it, and else by an init container. What a Pod says itself comes before that.
func TestAgentDelivery(t *testing.T) { // not parallel: all other tests are of a cluster without nodes
	namespace := newNamespace(t)
	number := 0
	dryRun := func(ctx context.Context, annotations map[string]string) (string, error) {
		number++
		pod := plainPod(namespace, fmt.Sprint("pod-", number), sequentialLabel(), echo("a"))
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
	join := func(t *testing.T, name, kubelet, runtime string) *corev1.Node {
		t.Helper()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := cluster.Create(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cluster.Delete(context.WithoutCancel(t.Context()), node); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
		upgrade(t, node, kubelet, runtime)
		return node
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

// upgrade gives a node other versions.
func upgrade(t *testing.T, node *corev1.Node, kubelet, runtime string) {
	t.Helper()
	before := node.DeepCopy()
	node.Status.NodeInfo = corev1.NodeSystemInfo{OperatingSystem: "linux", KubeletVersion: kubelet, ContainerRuntimeVersion: runtime}
	if err := cluster.Status().Patch(t.Context(), node, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// A Pod that mounts the agent's image satisfies PodSecurity's level restricted (PEERS row 12), and asks for nothing more than its steps
// do: one that is Guaranteed stays so, which the init container takes from it (PEERS row 11).
func TestAgentDeliveryKeepsClass(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := cluster.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
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
		pod := plainPod(namespace.Name, "pod-"+delivery, sequentialLabel(), step)
		pod.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
		createPod(t, pod)
		if diff := cmp.Diff(want, pod.Status.QOSClass); diff != "" {
			t.Errorf("%s: the Pod's class (-want +got):\n%s", delivery, diff)
		}
	}
}
