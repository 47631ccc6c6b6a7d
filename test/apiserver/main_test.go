//go:build apiserver

// Package apiserver tests the CRD, the webhook and the controllers at a real API server (controller-runtime's envtest). There is no node,
// so the tests write the Pods' status themselves. hack/test.sh sets the path of the API server's binary.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/webhook"
)

// startGrace is short, for the tests that wait until it is over.
const startGrace = 3 * time.Second

var (
	cluster     harness.Cluster
	environment *envtest.Environment
	// nodes is the webhook's view of the nodes. There are none except in the tests of the agent's delivery, so all other Pods get an init
	// container.
	nodes *webhook.Nodes
)

func TestMain(m *testing.M) {
	logf.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintf(os.Stderr, "running taskflow at an API server (run it through `make test`): %v\n", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	installed, err := webhookConfiguration()
	if err != nil {
		return 0, err
	}
	for _, w := range installed.Webhooks {
		if w.ClientConfig.Service.Path == nil {
			w.ClientConfig.Service.Path = new(webhookPath) // certs.Keeper would write a secret path
		}
	}
	validating, err := tasksWebhookConfiguration()
	if err != nil {
		return 0, err
	}
	for _, w := range validating.Webhooks {
		w.ClientConfig.Service.Path = new(tasksPath) // as above
	}
	environment = &envtest.Environment{
		CRDDirectoryPaths:     []string{"../../config/crd/tasks.yaml"},
		ErrorIfCRDPathMissing: true,
		WebhookInstallOptions: envtest.WebhookInstallOptions{
			MutatingWebhooks:   []*admissionv1.MutatingWebhookConfiguration{installed},
			ValidatingWebhooks: []*admissionv1.ValidatingWebhookConfiguration{validating},
		},
		// Other tests are compiled meanwhile, with the race detector. On two slow cores the default of 20 seconds was too short five times.
		ControlPlaneStartTimeout: 2 * time.Minute,
	}
	config, err := environment.Start()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, environment.Stop()) }()
	go stopWhenTold()
	config.QPS, config.Burst = 200, 400

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	cluster.Config = config
	if cluster.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return 0, err
	}

	hook := environment.WebhookInstallOptions
	cached := controller.CacheOptions()
	webhook.CacheNodes(cached.ByObject)
	counted := rest.CopyConfig(config)
	counted.Wrap(operatorsCalls.count)
	manager, err := ctrl.NewManager(counted, ctrl.Options{
		Scheme:  scheme,
		Cache:   cached,
		Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: ctrlwebhook.NewServer(ctrlwebhook.Options{
			Host: hook.LocalServingHost, Port: hook.LocalServingPort, CertDir: hook.LocalServingCertDir,
		}),
	})
	if err != nil {
		return 0, err
	}
	commands, err := entrypoint.New(entrypoint.Options{
		CABundle:         registriesAuthority(),
		AllowedAddresses: []string{"127.0.0.1"},
	})
	if err != nil {
		return 0, err
	}
	nodes = webhook.NewNodes(manager.GetCache(), podspec.DeliveryAuto)
	if err := manager.Add(nodes); err != nil {
		return 0, err
	}
	var self authenticationv1.SelfSubjectReview
	if err := cluster.Create(context.Background(), &self); err != nil {
		return 0, err
	}
	pods := &ctrlwebhook.Admission{Handler: webhook.Handler{
		Agent:        podspec.Agent{Image: "taskflow/agent", Delivery: podspec.DeliveryAuto},
		ImageVolumes: nodes.ImageVolumes,
		Tasks:        manager.GetClient(),
		Live:         manager.GetAPIReader(),
		Operator:     self.Status.UserInfo.Username,
		Commands:     commands,
	}}
	manager.GetWebhookServer().Register(webhookPath, webhook.Bounded(pods))
	manager.GetWebhookServer().Register(tasksPath, tasksCalls.count(webhook.Bounded(&ctrlwebhook.Admission{Handler: webhook.TaskHandler{}})))
	manager.GetWebhookServer().Register(certs.UnmutatedPath, http.HandlerFunc(webhook.Unmutated))
	registerReplicas(manager.GetWebhookServer(), pods)
	registerSilent(manager.GetWebhookServer())
	registerOthers(manager.GetWebhookServer(), admission.NewDecoder(scheme))
	if err := controller.SetupWithManager(manager, commands, startGrace); err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- manager.Start(ctx) }()
	defer func() { stop(); err = errors.Join(err, <-stopped) }()
	return m.Run(), nil
}

// stopWhenTold stops the API server and etcd when the tests are interrupted. They have process groups of their own, and a terminal or a
// script signals only the group of the tests.
func stopWhenTold() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	<-told
	_ = environment.Stop()
	os.Exit(1)
}

// The paths of the webhooks for Pods and for Tasks in these tests.
const (
	webhookPath = "/mutate-pods"
	tasksPath   = "/validate-tasks"
)

// webhookConfiguration returns the configuration for Pods that config/ installs.
func webhookConfiguration() (*admissionv1.MutatingWebhookConfiguration, error) {
	var configuration admissionv1.MutatingWebhookConfiguration
	return &configuration, readYAML("../../config/webhook/mutating_webhook.yaml", &configuration)
}

// tasksWebhookConfiguration returns the configuration for Tasks that config/ installs.
func tasksWebhookConfiguration() (*admissionv1.ValidatingWebhookConfiguration, error) {
	var configuration admissionv1.ValidatingWebhookConfiguration
	return &configuration, readYAML("../../config/webhook/validating_webhook.yaml", &configuration)
}

func readYAML(name string, object any) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(content, object)
}
