package main

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
)

// Permissions of every operator. The controllers and certs.SourceOwn need more. The operator watches only its own Secret, which the name of
// the Secret allows.
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,resourceNames=taskflow-webhook-cert,verbs=get;list;watch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations;validatingwebhookconfigurations,resourceNames=taskflow,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,resourceNames=taskflow-operator,verbs=get;update

func newManager(c config, keeper *certs.Keeper) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	// Within a cluster's network, compressing each event of a watch costs more than it saves: 5% of the operator's CPU (docs/benchmarks.md).
	cluster.DisableCompression = true
	cluster.Wrap(keeper.Listen)
	cluster.Wrap(controller.BoundEvents)
	webhookTLS := keeper.TLS()
	if err := c.webhookClients.require(webhookTLS); err != nil {
		return nil, err
	}
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme:         scheme,
		MapperProvider: newMapper,
		Cache:          c.cacheOptions(),
		WebhookServer:  newWebhookServer(c.webhookPort, webhookTLS),
		// addHealth and addMetrics serve these two.
		HealthProbeBindAddress:        "0",
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		PprofBindAddress:              c.profileAddress,
		LeaderElection:                true,
		LeaderElectionID:              "taskflow-operator",
		LeaderElectionNamespace:       c.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
}
