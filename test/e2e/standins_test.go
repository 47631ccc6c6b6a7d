//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Some samples use images that the test cluster does not have, such as those of terraform and git. In them, the tests replace each such image by
// busybox, and mount programs of the same names from testdata/tools. So the tests prove what the sample does with the arguments, the files and the
// exit codes of these programs. They prove nothing about the programs, and not that the images exist.
const (
	standInImage   = "busybox:1.28"
	standInDir     = "/usr/local/bin" // comes before /bin in the search path
	standInObjects = "tools"          // the name of the ConfigMap and of the volume
)

// makeStandIns creates the ConfigMap with the programs of testdata/tools.
func makeStandIns(t *testing.T, namespace string) {
	t.Helper()
	files, err := filepath.Glob("testdata/tools/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no programs: %v", err)
	}
	tools := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: standInObjects}, Data: map[string]string{}}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tools.Data[filepath.Base(file)] = string(content)
	}
	cluster.Make(t, tools)
}

// standIn makes the steps of a Task or a Job run in busybox, with the programs of the ConfigMap.
func standIn(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	spec, _ := object.Object["spec"].(map[string]any)
	containers := "steps"
	template := []string{"template", "spec"}
	if object.GetKind() == "Job" {
		spec, containers, template = nested(t, spec, template...), "containers", nil
	}
	for _, container := range spec[containers].([]any) {
		container := container.(map[string]any)
		container["image"] = standInImage
		container["volumeMounts"] = appendTo(container["volumeMounts"], map[string]any{"name": standInObjects, "mountPath": standInDir})
	}
	pod := nested(t, spec, template...)
	pod["volumes"] = appendTo(pod["volumes"], map[string]any{
		"name": standInObjects, "configMap": map[string]any{"name": standInObjects, "defaultMode": int64(0o555)},
	})
}

// nested returns the map at a path, and makes it if it is missing.
func nested(t *testing.T, object map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, field := range path {
		if object[field] == nil {
			object[field] = map[string]any{}
		}
		inner, ok := object[field].(map[string]any)
		if !ok {
			t.Fatalf("%s in %v is no object", field, path)
		}
		object = inner
	}
	return object
}

func appendTo(list any, element any) []any {
	all, _ := list.([]any)
	return append(all, element)
}
