//go:build apiserver

package apiserver

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestSamplesHaveNoUnknownField proves that the API server takes the samples as they are written. By default it drops fields that it doesn't know.
func TestSamplesHaveNoUnknownField(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no samples: %v", err)
	}
	namespace := cluster.NewNamespace(t, "baseline")
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = file.Close() }()
			decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
			for {
				var object unstructured.Unstructured
				if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
					return
				} else if err != nil {
					t.Fatal(err)
				}
				object.SetNamespace(namespace)
				cluster.Make(t, &object, client.FieldValidation("Strict"), client.DryRunAll)
			}
		})
	}
}
