package webhook

import (
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

func nodeInfo(kubelet, runtime string) corev1.NodeSystemInfo {
	return corev1.NodeSystemInfo{KubeletVersion: kubelet, ContainerRuntimeVersion: runtime, OperatingSystem: "linux"}
}

func node(name string, info corev1.NodeSystemInfo) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{NodeInfo: info}}
}

// TestImageVolumeProblem proves which versions can mount an image, as clouds and distributions write them, and that unknown versions can't.
func TestImageVolumeProblem(t *testing.T) {
	kubelet := func(version string) string {
		return `its kubelet is "` + version + `", and must be 1.36 or later`
	}
	oldRuntime := func(version, first string) string {
		return `its container runtime is "` + version + `", and must be ` + first + ` or later`
	}
	otherRuntime := func(version string) string {
		return `its container runtime is "` + version + `", and must be containerd or CRI-O`
	}
	for _, c := range []struct{ kubelet, runtime, want string }{
		{"v1.36.0", "containerd://2.3.0", ""},
		{"v1.37.2", "containerd://2.4.2", ""},
		{"v1.36.2+k3s1", "containerd://2.3.2-k3s1", ""},
		{"v1.36.1-gke.1000", "containerd://2.3.4", ""},
		{"v1.36.0-eks-abcdef", "containerd://3.0.0", ""},
		{"v1.36.4", "cri-o://1.36.0", ""},
		{"v1.36.1+rke2r1", "cri-o://1.37.0-dev", ""},
		{"v2.0.0", "containerd://2.3.0", ""},
		{"v1.35.9", "containerd://2.3.0", kubelet("v1.35.9")}, // on by default there, and may be off
		{"v1.30.0", "containerd://2.3.0", kubelet("v1.30.0")},
		{"v1.4.0", "containerd://2.3.0", kubelet("v1.4.0")},
		{"", "containerd://2.3.0", kubelet("")},
		{"fake", "kwok", kubelet("fake")},
		{"v1.36.1", "containerd://2.2.3-k3s1", oldRuntime("containerd://2.2.3-k3s1", "2.3")},
		{"v1.36.1", "containerd://1.7.24~ds1", oldRuntime("containerd://1.7.24~ds1", "2.3")},
		{"v1.36.1", "containerd://Unknown", oldRuntime("containerd://Unknown", "2.3")},
		{"v1.36.1", "containerd", oldRuntime("containerd", "2.3")},
		{"v1.36.1", "cri-o://1.35.2", oldRuntime("cri-o://1.35.2", "1.36")},
		{"v1.36.1", "docker://29.6.2", otherRuntime("docker://29.6.2")},
		{"v1.36.1", "", otherRuntime("")}, // a virtual kubelet's
		{"v1.36.1", "mycontainerd://2.3.0", otherRuntime("mycontainerd://2.3.0")},
	} {
		if diff := cmp.Diff(c.want, imageVolumeProblem(nodeInfo(c.kubelet, c.runtime))); diff != "" {
			t.Errorf("kubelet %q, runtime %q (-want +got):\n%s", c.kubelet, c.runtime, diff)
		}
	}
}

// TestNodes proves that one node that can't mount images decides for all, that Windows nodes don't count, and that the answer is false before all
// nodes are known.
func TestNodes(t *testing.T) {
	able, unable := nodeInfo("v1.36.0", "containerd://2.3.0"), nodeInfo("v1.36.0", "docker://29")
	windows := nodeInfo("v1.30.0", "containerd://1.7.0")
	windows.OperatingSystem = "windows"
	n := NewNodes(nil, podspec.DeliveryAuto)
	ctx := t.Context()
	for _, turn := range []struct {
		what string
		do   func()
		want bool
	}{
		{"a node that can, of some", func() { n.see(ctx, node("a", able)) }, false},
		{"there are no more", func() { n.change(ctx, func() { n.isSynced = true }) }, true},
		{"another one that can", func() { n.see(ctx, node("b", able)) }, true},
		{"one that can't joins", func() { n.see(ctx, node("c", unable)) }, false},
		{"a second", func() { n.see(ctx, node("d", unable)) }, false},
		{"the first is upgraded", func() { n.see(ctx, node("c", able)) }, false},
		{"the second goes", func() { n.forget(ctx, node("d", unable)) }, true},
		{"a Windows node joins", func() { n.see(ctx, node("w", windows)) }, true},
		{"a node is downgraded", func() { n.see(ctx, node("a", unable)) }, false},
		{"it goes, which was missed", func() { n.forget(ctx, toolscache.DeletedFinalStateUnknown{Key: "a"}) }, true},
		{"all that can go", func() { n.forget(ctx, node("b", able)); n.forget(ctx, node("c", able)) }, false},
	} {
		turn.do()
		if got := n.ImageVolumes(); got != turn.want {
			t.Errorf("%s: ImageVolumes is %t, want %t", turn.what, got, turn.want)
		}
	}
}

// TestNodesLog proves that the log has the answer once all nodes are known, and when it changes.
func TestNodesLog(t *testing.T) {
	able, unable := nodeInfo("v1.36.0", "containerd://2.3.0"), nodeInfo("v1.36.0", "docker://29")
	const (
		reason = `"node"="b" "reason"="its container runtime is \"docker://29\", and must be containerd or CRI-O"`
		all    = `"level"=0 "msg"="Every node can mount the agent's image" "nodes"=2`
	)
	for delivery, unables := range map[string]string{
		podspec.DeliveryAuto:   `"level"=0 "msg"="An init container delivers the agent, because not every node can mount its image" ` + reason,
		contract.DeliveryImage: `"level"=0 "msg"="No step can start on a node that can't mount the agent's image: set --agent-delivery to auto or init" ` + reason,
	} {
		var told []string
		ctx := logf.IntoContext(t.Context(), funcr.New(func(_, line string) { told = append(told, line) }, funcr.Options{}))
		n := NewNodes(nil, delivery)
		n.see(ctx, node("a", able))
		n.see(ctx, node("b", unable))
		n.change(ctx, func() { n.isSynced = true })
		n.see(ctx, node("c", unable))
		n.forget(ctx, node("c", unable))
		n.see(ctx, node("b", able))
		n.see(ctx, node("b", unable))
		if diff := cmp.Diff([]string{unables, all, unables}, told); diff != "" {
			t.Errorf("%s: the log (-want +got):\n%s", delivery, diff)
		}
	}
}

// TestCacheNodes proves that the cache keeps only the fields of a node that are read, and passes tombstones on.
func TestCacheNodes(t *testing.T) {
	byObject := map[client.Object]cache.ByObject{}
	CacheNodes(byObject)
	full := node("a", nodeInfo("v1.36.0", "containerd://2.3.0"))
	full.UID, full.ResourceVersion = "uid", "7"
	want := full.DeepCopy()
	full.Labels, full.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d"}
	full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	full.Spec.PodCIDR = "10.0.0.0/24"
	full.Status.Images = []corev1.ContainerImage{{Names: []string{"large"}}}
	full.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	tombstone := toolscache.DeletedFinalStateUnknown{Key: "a"}
	if len(byObject) != 1 {
		t.Fatalf("the options are %v, want those of one kind", byObject)
	}
	for _, by := range byObject {
		for _, c := range []struct{ object, want any }{{full, want}, {tombstone, tombstone}} {
			got, err := by.Transform(c.object)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what is kept (-want +got):\n%s", diff)
			}
		}
	}
}
