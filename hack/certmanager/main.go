// Command certmanager prints the objects that request the webhook's certificate from cert-manager, for the Helm chart.
package main

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/certs/certmanager"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "certmanager: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	services := []string{"taskflow-webhook-a.taskflow-system.svc", "taskflow-webhook-b.taskflow-system.svc"}
	objects := certmanager.Objects("taskflow-system", services, "taskflow-webhook-cert", certs.DefaultLifetimes)
	for _, object := range objects {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return err
		}
		delete(fields, "status")
		content, err := yaml.Marshal(fields)
		if err != nil {
			return err
		}
		fmt.Printf("---\n%s", content)
	}
	return nil
}
