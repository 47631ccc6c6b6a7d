// Command operator runs taskflow's webhook and controllers.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/webhook"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,resourceNames=taskflow-operator,verbs=get;update

// leaseName is the Lease that the replicas elect a leader with.
const leaseName = "taskflow-operator"

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "operator: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c, err := parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	logger, err := c.logger()
	if err != nil {
		return err
	}
	ctrl.SetLogger(logger)

	m, err := newManager(c)
	if err != nil {
		return err
	}
	commands, err := newCommands(c.file, pullSecrets(m.GetAPIReader()))
	if err != nil {
		return err
	}
	if err := m.Add(everyReplica{commands}); err != nil {
		return err
	}
	ready, err := certs.SetupWithManager(m, c.certs)
	if err != nil {
		return err
	}
	serving := make(chan struct{})
	start := func(ctx context.Context) error {
		// The controllers wait too: without the webhook they could make no Pod.
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
		defer close(serving)
		m.GetWebhookServer().Register(webhook.Path, &ctrlwebhook.Admission{
			Handler: webhook.Handler{
				Decoder:  admission.NewDecoder(m.GetScheme()),
				Agent:    c.agent,
				Tasks:    m.GetClient(),
				Live:     m.GetAPIReader(),
				Commands: commands,
			},
		})
		return controller.SetupWithManager(m, commands, c.startGrace)
	}
	if err := m.Add(everyReplica{manager.RunnableFunc(start)}); err != nil {
		return err
	}
	if err := m.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := m.AddReadyzCheck("webhook", func(request *http.Request) error {
		select {
		case <-serving:
			return m.GetWebhookServer().StartedChecker()(request)
		default:
			return errors.New("the webhook has no certificate yet")
		}
	}); err != nil {
		return err
	}
	return m.Start(ctx)
}

func newManager(c config) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	cacheOptions := controller.CacheOptions()
	cacheOptions.ByObject[&corev1.Secret{}] = c.certs.CacheOptions()
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme: scheme,
		Cache:  cacheOptions,
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{
			Port:     c.webhookPort,
			CertDir:  c.certs.Dir,
			CertName: certs.FileName,
			KeyName:  certs.FileName,
		}),
		HealthProbeBindAddress:        c.healthAddress,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                true,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       c.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
}

// everyReplica is a Runnable that doesn't wait for the leader election.
type everyReplica struct{ manager.Runnable }

func (everyReplica) NeedLeaderElection() bool { return false }
