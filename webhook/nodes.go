package webhook

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=list;watch

// Nodes knows whether every node can mount an image as a volume, and says in the log when that changes. It watches them, and keeps of
// each a name and a sentence.
type Nodes struct {
	cache    cache.Cache
	delivery string

	mutex  sync.Mutex
	able   map[string]struct{} // the names of the nodes that can
	unable map[string]string   // by the names of those that can't: why
	synced bool
	told   bool // in the log, once
	can    bool
}

// NewNodes watches nothing before it is started. Delivery is that of the operator.
func NewNodes(c cache.Cache, delivery string) *Nodes {
	return &Nodes{cache: c, delivery: delivery, able: map[string]struct{}{}, unable: map[string]string{}}
}

// CacheNodes makes the cache keep of nodes what Nodes reads.
func CacheNodes(byObject map[client.Object]cache.ByObject) {
	byObject[&corev1.Node{}] = cache.ByObject{Transform: func(object any) (any, error) {
		node, ok := object.(*corev1.Node)
		if !ok {
			return object, nil // a tombstone
		}
		return &corev1.Node{
			TypeMeta:   node.TypeMeta,
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion},
			Status:     corev1.NodeStatus{NodeInfo: node.Status.NodeInfo},
		}, nil
	}}
}

// ImageVolumes says whether every node can. It is false while that isn't known, and where there is no node: what comes next may be anything.
func (n *Nodes) ImageVolumes() bool {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.can
}

// Start watches the nodes until the context ends. Nobody waits for it: without the right to read nodes, nothing is known of them.
func (n *Nodes) Start(ctx context.Context) error {
	informer, err := n.cache.GetInformer(ctx, &corev1.Node{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watching the nodes: %w", err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { n.see(ctx, object) },
		UpdateFunc: func(_, object any) { n.see(ctx, object) },
		DeleteFunc: func(object any) { n.forget(ctx, object) },
	})
	if err != nil {
		return fmt.Errorf("watching the nodes: %w", err)
	}
	if toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		n.change(ctx, func() { n.synced = true })
		<-ctx.Done()
	}
	return nil
}

func (n *Nodes) see(ctx context.Context, object any) {
	node, ok := object.(*corev1.Node)
	if !ok || node.Status.NodeInfo.OperatingSystem == string(corev1.Windows) {
		return // no step runs there
	}
	why := whyNoImageVolumes(node.Status.NodeInfo)
	n.change(ctx, func() {
		delete(n.able, node.Name)
		delete(n.unable, node.Name)
		if why == "" {
			n.able[node.Name] = struct{}{}
		} else {
			n.unable[node.Name] = why
		}
	})
}

func (n *Nodes) forget(ctx context.Context, object any) {
	name, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(object)
	if err != nil {
		return
	}
	n.change(ctx, func() {
		delete(n.able, name)
		delete(n.unable, name)
	})
}

func (n *Nodes) change(ctx context.Context, edit func()) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	edit()
	can := n.synced && len(n.able) > 0 && len(n.unable) == 0
	if !n.synced || n.told && n.can == can {
		return
	}
	n.told, n.can = true, can
	node, why := "", "there is no node"
	if len(n.unable) > 0 {
		node = slices.Min(slices.Collect(maps.Keys(n.unable)))
		why = n.unable[node]
	}
	log := logf.FromContext(ctx).WithName("nodes")
	switch {
	case can:
		log.Info("Every node can mount the agent's image", "nodes", len(n.able))
	case n.delivery == podspec.DeliveryAuto:
		log.Info("The agent is delivered by an init container, since not every node can mount its image", "node", node, "why", why)
	default:
		log.Info("No step can start on a node that can't mount the agent's image: set --agent-delivery to auto or init", "node", node, "why", why)
	}
}

// Before this version of Kubernetes the feature gate ImageVolume may be off, which no node tells. API servers aren't looked at: none is
// older than a kubelet (Kubernetes' version skew policy).
var firstKubelet = version.MustParseGeneric("1.36")

// firstRuntimes are the versions from which a container runtime mounts images, and lets what is in them be executed, under Kubernetes 1.36:
// containerd 2.1 and 2.2 do so too, but not in all builds (containerd 2.2.3 of k3s mounts an empty directory, and says nothing:
// k3s-io/k3s#14323), and with gaps (user namespaces). CRI-O is released along with Kubernetes. The others, as cri-dockerd, don't.
var firstRuntimes = map[string]*version.Version{
	"containerd": version.MustParseGeneric("2.3"),
	"cri-o":      version.MustParseGeneric("1.36"),
}

// whyNoImageVolumes is empty for a node that can mount an image as a volume.
func whyNoImageVolumes(info corev1.NodeSystemInfo) string {
	if kubelet, err := version.ParseGeneric(info.KubeletVersion); err != nil || kubelet.LessThan(firstKubelet) {
		return fmt.Sprintf("its kubelet is %q, and has to be %s or newer", info.KubeletVersion, firstKubelet)
	}
	name, number, _ := strings.Cut(info.ContainerRuntimeVersion, "://")
	first, known := firstRuntimes[name]
	if !known {
		return fmt.Sprintf("its container runtime is %q, and has to be containerd or CRI-O", info.ContainerRuntimeVersion)
	}
	if runtime, err := version.ParseGeneric(number); err != nil || runtime.LessThan(first) {
		return fmt.Sprintf("its container runtime is %q, and has to be %s or newer", info.ContainerRuntimeVersion, first)
	}
	return ""
}
