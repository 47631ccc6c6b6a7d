//go:build e2e

// Package e2e runs Tasks on the real node of test/cluster, with taskflow installed as `make deploy-local` does it. hack/test.sh
// prepares both.
package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/go-logr/logr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/kube"
	"github.com/taskflow/taskflow-operator/test/tenant"
	"github.com/taskflow/taskflow-operator/test/wait"
)

const operatorNamespace = "taskflow-system"

// operatorDeployments are config/manager's, one for each replica.
var operatorDeployments = []string{"taskflow-operator-a", "taskflow-operator-b"}

var (
	cluster   client.WithWatch
	clientset *kubernetes.Clientset // for logs
)

func TestMain(m *testing.M) {
	logf.SetLogger(logr.Discard())
	var err error
	if cluster, clientset, err = kube.ConnectToTestCluster(); err != nil {
		fmt.Fprintf(os.Stderr, "connecting to the test cluster (`make test` does it all): %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newNamespace makes a namespace that goes when the test ends, and has its ServiceAccount. The level is of PodSecurity.
func newNamespace(t *testing.T, level string) string {
	t.Helper()
	return tenant.Namespace(t, cluster, "e2e-", level)
}

// create makes the Task.
func create(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	if err := cluster.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
}

// awaitTask waits until the Task is as wanted, and returns it. When the test fails, the Task's status is in its output.
func awaitTask(t *testing.T, task *v1alpha1.Task, what string, wanted func(v1alpha1.TaskStatus) bool) v1alpha1.TaskStatus {
	t.Helper()
	return wait.ForTask(t, cluster, task, what, wanted)
}

// deliveries are the ways in which the agent gets into a Pod. The operator of `make deploy-local` uses the first, unless the Pod says more.
var deliveries = []string{contract.DeliveryInit, contract.DeliveryImage}

// deliver makes the Task's Pods have the agent in one of them.
func deliver(task *v1alpha1.Task, delivery string) {
	if task.Spec.Template == nil {
		task.Spec.Template = &v1alpha1.PodTemplate{}
	}
	metav1.SetMetaDataAnnotation(&task.Spec.Template.Metadata, contract.DeliveryAnnotation, delivery)
}

func inPhase(phase v1alpha1.TaskPhase) func(v1alpha1.TaskStatus) bool {
	return func(status v1alpha1.TaskStatus) bool { return status.Phase == phase }
}

func logs(t *testing.T, namespace, pod, container string) string {
	t.Helper()
	content, err := clientset.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("reading the log of %s: %v", container, err)
	}
	return string(content)
}

// installedOperator is the operator's container, which is the same in all of its Deployments.
func installedOperator(t *testing.T) corev1.Container {
	t.Helper()
	var deployment appsv1.Deployment
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: operatorDeployments[0]}, &deployment); err != nil {
		t.Fatal(err)
	}
	return deployment.Spec.Template.Spec.Containers[0]
}

// rolledOut says whether the operator's Deployments have reached their newest state, and no former replica is left: one that is ending
// still answers the API server.
func rolledOut(ctx context.Context) error {
	for _, name := range operatorDeployments {
		var deployment appsv1.Deployment
		if err := cluster.Get(ctx, client.ObjectKey{Namespace: operatorNamespace, Name: name}, &deployment); err != nil {
			return err
		}
		status := deployment.Status
		if status.ObservedGeneration < deployment.Generation || status.UpdatedReplicas != 1 || status.Replicas != 1 || status.AvailableReplicas != 1 {
			return fmt.Errorf("the status of the Deployment %s is %+v", name, status)
		}
	}
	var pods corev1.PodList
	if err := cluster.List(ctx, &pods, client.InNamespace(operatorNamespace)); err != nil {
		return err
	}
	if len(pods.Items) != len(operatorDeployments) {
		return fmt.Errorf("there are %d Pods", len(pods.Items))
	}
	for _, pod := range pods.Items { // the Deployments' status may be of a moment ago
		if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			return fmt.Errorf("the Pod %s isn't ready", pod.Name)
		}
	}
	return nil
}
