//go:build e2e

// Package e2e runs Tasks on the real node of test/cluster, with taskflow installed by `make deploy-local`. hack/test.sh prepares both.
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// operatorDeployments are the Deployments of config/manager, one for each replica.
var operatorDeployments = []string{"taskflow-operator-a", "taskflow-operator-b"}

var cluster harness.Cluster

func TestMain(m *testing.M) {
	cluster = harness.Connect()
	os.Exit(m.Run())
}

// deliveries are the ways in which the agent gets into a Pod. Init is the default of `make deploy-local`.
var deliveries = []string{contract.DeliveryInit, contract.DeliveryImage}

// deliver sets the delivery of the agent into the Pods of a Task.
func deliver(spec *v1alpha1.TaskSpec, delivery string) {
	if spec.Template == nil {
		spec.Template = &v1alpha1.PodTemplate{}
	}
	metav1.SetMetaDataAnnotation(&spec.Template.Metadata, contract.DeliveryAnnotation, delivery)
}

// installedOperator returns the operator's container, which is the same in all of its Deployments.
func installedOperator(t *testing.T) corev1.Container {
	t.Helper()
	var deployment appsv1.Deployment
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: operatorDeployments[0]}, &deployment); err != nil {
		t.Fatal(err)
	}
	return deployment.Spec.Template.Spec.Containers[0]
}

// rolledOut returns an error unless the operator's Deployments are up to date and no former replica is left. A terminating replica still
// answers the API server.
func rolledOut(ctx context.Context) error {
	for _, name := range operatorDeployments {
		var deployment appsv1.Deployment
		if err := cluster.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: name}, &deployment); err != nil {
			return err
		}
		status := deployment.Status
		if status.ObservedGeneration < deployment.Generation || status.UpdatedReplicas != 1 || status.Replicas != 1 || status.AvailableReplicas != 1 {
			return fmt.Errorf("the status of the Deployment %s is %+v", name, status)
		}
	}
	var pods corev1.PodList
	if err := cluster.List(ctx, &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		return err
	}
	if len(pods.Items) != len(operatorDeployments) {
		return fmt.Errorf("there are %d Pods", len(pods.Items))
	}
	for _, pod := range pods.Items { // the Deployments' status may be stale
		if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}) {
			return fmt.Errorf("the Pod %s isn't ready", pod.Name)
		}
	}
	return nil
}
