package webhook

import (
	"context"
	"fmt"
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

// Nodes watches whether every node can mount an image as a volume, and logs when that changes.
type Nodes struct {
	cache    cache.Cache
	delivery string

	mutex    sync.Mutex
	nodes    map[string]string // why a node can't mount images, by the node's name; "" if it can
	isSynced bool
	isLogged bool // the value of canMount
	canMount bool
}

// NewNodes returns a Nodes that watches nothing until it is started. Delivery is the delivery that the operator is configured with.
func NewNodes(c cache.Cache, delivery string) *Nodes {
	return &Nodes{cache: c, delivery: delivery, nodes: map[string]string{}}
}

// CacheNodes makes the cache keep only the fields of nodes that Nodes reads.
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

// ImageVolumes reports whether every node can mount an image as a volume. It returns false while that is unknown, and if there are no nodes,
// because the first node may not be able to.
func (n *Nodes) ImageVolumes() bool {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	return n.canMount
}

// Start watches the nodes until the context ends. It doesn't block the manager: without the permission to list nodes, the watch never syncs.
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
		n.change(ctx, func() { n.isSynced = true })
		<-ctx.Done()
	}
	return nil
}

func (n *Nodes) see(ctx context.Context, object any) {
	node, ok := object.(*corev1.Node)
	if !ok || node.Status.NodeInfo.OperatingSystem == string(corev1.Windows) {
		return // no step can run there
	}
	reason := imageVolumeProblem(node.Status.NodeInfo)
	n.change(ctx, func() { n.nodes[node.Name] = reason })
}

func (n *Nodes) forget(ctx context.Context, object any) {
	if name, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
		n.change(ctx, func() { delete(n.nodes, name) })
	}
}

// change applies a change, and logs its effect on ImageVolumes.
func (n *Nodes) change(ctx context.Context, apply func()) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	apply()
	node, reason := "", "the cluster has no nodes"
	for name, problem := range n.nodes {
		if problem != "" && (node == "" || name < node) {
			node, reason = name, problem
		}
	}
	can := n.isSynced && len(n.nodes) > 0 && node == ""
	if !n.isSynced || n.isLogged && n.canMount == can {
		return
	}
	n.isLogged, n.canMount = true, can
	log := logf.FromContext(ctx).WithName("nodes")
	switch {
	case can:
		log.Info("Every node can mount the agent's image", "nodes", len(n.nodes))
	case n.delivery == podspec.DeliveryAuto:
		log.Info("An init container delivers the agent, because not every node can mount its image", "node", node, "reason", reason)
	default:
		log.Info("No step can start on a node that can't mount the agent's image: set --agent-delivery to auto or init", "node", node, "reason", reason)
	}
}

// firstKubelet is the first version of Kubernetes in which the feature gate ImageVolume can't be off; nodes don't report feature gates. API servers
// need no check: none is older than a kubelet (Kubernetes' version skew policy).
var firstKubelet = version.MustParseGeneric("1.36")

// firstRuntimes are the first versions of container runtimes that mount images, and permit executing their files, under Kubernetes 1.36. containerd
// 2.1 and 2.2 can, but not in all builds (containerd 2.2.3 of k3s silently mounts an empty directory: k3s-io/k3s#14323), and not with user
// namespaces. CRI-O is released along with Kubernetes. Others, such as cri-dockerd, can't.
var firstRuntimes = map[string]*version.Version{
	"containerd": version.MustParseGeneric("2.3"),
	"cri-o":      version.MustParseGeneric("1.36"),
}

// imageVolumeProblem returns why a node can't mount an image as a volume, or "" if it can.
func imageVolumeProblem(info corev1.NodeSystemInfo) string {
	if kubelet, err := version.ParseGeneric(info.KubeletVersion); err != nil || kubelet.LessThan(firstKubelet) {
		return fmt.Sprintf("its kubelet is %q, and must be %s or later", info.KubeletVersion, firstKubelet)
	}
	name, number, _ := strings.Cut(info.ContainerRuntimeVersion, "://")
	first, known := firstRuntimes[name]
	if !known {
		return fmt.Sprintf("its container runtime is %q, and must be containerd or CRI-O", info.ContainerRuntimeVersion)
	}
	if runtime, err := version.ParseGeneric(number); err != nil || runtime.LessThan(first) {
		return fmt.Sprintf("its container runtime is %q, and must be %s or later", info.ContainerRuntimeVersion, first)
	}
	return ""
}
