// Package harness is what the tests at an API server share: the objects that they create, what they wait for, and the cluster as other users
// see it.
package harness

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/kube"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// Cluster is a client with the calls that tests repeat. A call fails the test if it can't do what its name says.
type Cluster struct {
	client.WithWatch
	// Config is of the client's user, who may do everything.
	Config *rest.Config
	// Clientset reads logs, which the client can't. Nil: the cluster has no nodes.
	Clientset *kubernetes.Clientset
}

// Connect connects to the test cluster for TestMain, and ends the process if it can't.
func Connect() Cluster {
	logf.SetLogger(logr.Discard())
	config, err := ctrl.GetConfig()
	if err == nil {
		var cluster Cluster
		if cluster.WithWatch, cluster.Clientset, err = kube.ConnectToTestCluster(); err == nil {
			cluster.Config = config
			return cluster
		}
	}
	fmt.Fprintf(os.Stderr, "connecting to the test cluster (`make test` does it all): %v\n", err)
	os.Exit(1)
	panic("unreachable")
}

// Make creates the object.
func (c Cluster) Make(t *testing.T, object client.Object, options ...client.CreateOption) {
	t.Helper()
	if err := c.Create(t.Context(), object, options...); err != nil {
		t.Fatal(err)
	}
}

// AwaitTask polls the Task until its status is as wanted, and returns the status. The failure shows the last status.
func (c Cluster) AwaitTask(t *testing.T, task *v1alpha1.Task, what string, wanted func(v1alpha1.TaskStatus) bool) v1alpha1.TaskStatus {
	t.Helper()
	wait.For(t, what, func(ctx context.Context) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
			return err
		}
		if !wanted(task.Status) {
			return fmt.Errorf("the status is %+v", task.Status)
		}
		return nil
	})
	return task.Status
}

// InPhase is a condition for AwaitTask.
func InPhase(phases ...v1alpha1.TaskPhase) func(v1alpha1.TaskStatus) bool {
	return func(status v1alpha1.TaskStatus) bool { return slices.Contains(phases, status.Phase) }
}

// AwaitPod polls the Pod until it is in one of the phases.
func (c Cluster) AwaitPod(t *testing.T, pod *corev1.Pod, phases ...corev1.PodPhase) {
	t.Helper()
	wait.For(t, fmt.Sprintf("the Pod %s to be one of %v", pod.Name, phases), func(ctx context.Context) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if !slices.Contains(phases, pod.Status.Phase) {
			return fmt.Errorf("it is %s: %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
}

// Log returns the log of a container.
func (c Cluster) Log(t *testing.T, namespace, pod, container string) string {
	t.Helper()
	content, err := c.Clientset.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("reading the log of %s: %v", container, err)
	}
	return string(content)
}

// NewNamespace creates a namespace and deletes it when the test ends. The level is PodSecurity's. A cluster with nodes creates the ServiceAccount
// of each namespace, and NewNamespace waits for it.
func (c Cluster) NewNamespace(t *testing.T, level string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "test-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": level},
	}}
	c.Make(t, namespace)
	if c.Clientset == nil {
		return namespace.Name
	}
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), namespace); err != nil {
			t.Errorf("deleting the namespace: %v", err)
		}
	})
	wait.For(t, "the default ServiceAccount", func(ctx context.Context) error {
		return c.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: "default"}, &corev1.ServiceAccount{})
	})
	return namespace.Name
}
