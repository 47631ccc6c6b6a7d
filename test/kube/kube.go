// Package kube connects tests and benchmarks to the cluster of the current kubeconfig.
package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// testCluster is the API server of test/cluster (network.go there).
const testCluster = "https://198.18.0.1:6443"

// ConnectToTestCluster is Connect for tests that must not run on a cluster in use, because they remove the kind Task with all Tasks.
func ConnectToTestCluster() (client.WithWatch, *kubernetes.Clientset, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, nil, err
	}
	if config.Host != testCluster {
		return nil, nil, fmt.Errorf("the kubeconfig's server is %s, and these tests, which remove all Tasks, run only on the test cluster (%s): set KUBECONFIG as `go run -C test/cluster . env` says",
			config.Host, testCluster)
	}
	return connect(config)
}

// Connect returns a client that knows Tasks, and one for logs. Their rate limits are above the default, so that tests don't wait for the
// client.
func Connect() (client.WithWatch, *kubernetes.Clientset, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, nil, err
	}
	return connect(config)
}

func connect(config *rest.Config) (client.WithWatch, *kubernetes.Clientset, error) {
	config.QPS, config.Burst = 100, 200
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, err
		}
	}
	cluster, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, nil, err
	}
	clientset, err := kubernetes.NewForConfig(config)
	return cluster, clientset, err
}
