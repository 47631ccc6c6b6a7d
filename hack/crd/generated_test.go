package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// generated is the CustomResourceDefinition that `make generate` writes.
const generated = "../../config/crd/tasks.yaml"

// maxAnnotations is the maximum size of all annotations of an object, keys and values (TotalAnnotationSizeLimitB in apimachinery).
const maxAnnotations = 256 << 10

// TestGeneratedIsSmallEnough proves that plain `kubectl apply` accepts the CustomResourceDefinition: it keeps a copy as JSON in an annotation.
func TestGeneratedIsSmallEnough(t *testing.T) {
	applied, err := yaml.YAMLToJSON(readGenerated(t))
	if err != nil {
		t.Fatal(err)
	}
	size := len("kubectl.kubernetes.io/last-applied-configuration") + len(applied) + len("\n")
	for key, value := range parse(t, readGenerated(t)).Annotations {
		size += len(key) + len(value)
	}
	if size > maxAnnotations {
		t.Errorf("the annotations have %d bytes, more than the maximum of %d", size, maxAnnotations)
	}
	t.Logf("the annotations have %d of %d bytes", size, maxAnnotations)
}

// TestGeneratedExplainsOurFields proves that `kubectl explain` has a description for each of taskflow's own fields, and none for the fields of
// Kubernetes' types.
func TestGeneratedExplainsOurFields(t *testing.T) {
	crd := parse(t, readGenerated(t))
	if len(crd.Spec.Versions) != 1 {
		t.Fatalf("the CustomResourceDefinition has %d versions", len(crd.Spec.Versions))
	}
	task := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	assertExplained(t, "task", task, reflect.TypeFor[v1alpha1.Task]())

	for path, schema := range map[string]apiextensionsv1.JSONSchemaProps{
		"spec.steps.image":            at(t, *task, "spec", "steps", "image"),
		"spec.steps.env":              at(t, *task, "spec", "steps", "env"),
		"spec.steps.env.valueFrom":    at(t, *task, "spec", "steps", "env", "valueFrom"),
		"spec.template.spec.volumes":  at(t, *task, "spec", "template", "spec", "volumes"),
		"spec.template.spec.hostname": at(t, *task, "spec", "template", "spec", "hostname"),
	} {
		if schema.Description != "" {
			t.Errorf("%s has the description %q", path, schema.Description)
		}
	}
}

// assertExplained checks the fields of a type and of taskflow's types in it.
func assertExplained(t *testing.T, path string, schema *apiextensionsv1.JSONSchemaProps, of reflect.Type) {
	t.Helper()
	if schema.Description == "" {
		t.Errorf("%s has no description", path)
	}
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		if of.Kind() == reflect.Slice && schema.Items != nil {
			schema = schema.Items.Schema
		}
		of = of.Elem()
	}
	if of.PkgPath() != reflect.TypeFor[v1alpha1.Task]().PkgPath() || of.Kind() != reflect.Struct {
		return
	}
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "metadata" && of == reflect.TypeFor[v1alpha1.Task]() {
			continue // embedded fields, and the metadata that every object has
		}
		property, ok := schema.Properties[name]
		if !ok {
			t.Errorf("%s has no schema: run make generate", path+"."+name)
			continue
		}
		assertExplained(t, path+"."+name, &property, field.Type)
	}
}

// TestGeneratedTemplate proves what markers can't say about core/v1 types: names of steps and sidecars have a maximum length and a description of
// their own, and a template requires no field of the Pod.
func TestGeneratedTemplate(t *testing.T) {
	task := *parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, list := range []string{"steps", "sidecars"} {
		name := at(t, task, "spec", list, "name")
		if name.Description == "" || !ptr.Equal(name.MaxLength, ptr.To[int64](63)) {
			t.Errorf("a name in %s has the description %q and the maximum length %d, want a description and 63", list, name.Description, ptr.Deref(name.MaxLength, 0))
		}
	}
	if pod := at(t, task, "spec", "template", "spec"); len(pod.Required) > 0 {
		t.Errorf("spec.template.spec requires %v", pod.Required)
	}
	for _, list := range []string{"containers", "ephemeralContainers"} {
		want := apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}
		if diff := cmp.Diff(want, at(t, task, "spec", "template", "spec", list)); diff != "" {
			t.Errorf("the elements of spec.template.spec.%s (-want +got):\n%s", list, diff)
		}
	}
}

// TestGeneratedRulesAreCheap proves that no rule reads fields of large objects, such as a container, when the status of a Task with a Pod is
// written.
func TestGeneratedRulesAreCheap(t *testing.T) {
	task := parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, rule := range task.XValidations {
		guarded := strings.HasPrefix(rule.Rule, "self.?status.?attempt.hasValue() || ") || strings.Contains(rule.Rule, " != oldSelf.status.conditions || ")
		if strings.Contains(rule.Rule, "self.spec") && !guarded {
			t.Errorf("this rule reads the spec even if the Task has a Pod: %s", rule.Rule)
		}
	}
	wide := func(schema *apiextensionsv1.JSONSchemaProps) bool { return len(schema.Properties) > 20 }
	spec := task.Properties["spec"]
	visit(&spec, func(schema *apiextensionsv1.JSONSchemaProps) {
		for _, rule := range schema.XValidations {
			reads := regexp.MustCompile(`self\.(steps|sidecars|template)`).MatchString(rule.Rule)
			if wide(schema) || schema.Items != nil && wide(schema.Items.Schema) {
				reads = strings.Contains(rule.Rule, "self.")
			}
			if reads {
				t.Errorf("this rule reads fields of a step, a sidecar or the template, or fields beside them: %s", rule.Rule)
			}
		}
	})
}

// TestGeneratedIsBounded proves that each list and each map in a Task's spec has a maximum size: the operator keeps Tasks in memory, where an
// element of a list takes far more bytes than in the request.
func TestGeneratedIsBounded(t *testing.T) {
	spec := at(t, *parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema, "spec")
	lists := 0
	visit(&spec, func(schema *apiextensionsv1.JSONSchemaProps) {
		if schema.Type == "array" {
			lists++
			if schema.MaxItems == nil || *schema.MaxItems > 1000 {
				t.Errorf("a list has no maximum size, or one above 1000: %+v", schema)
			}
		}
		if schema.AdditionalProperties != nil && (schema.MaxProperties == nil || *schema.MaxProperties > 1000) {
			t.Errorf("a map has no maximum size, or one above 1000: %+v", schema)
		}
	})
	if lists < 50 {
		t.Errorf("the test found only %d lists in the spec", lists)
	}
}

// TestGeneratedHasAllRules proves that each rule of rules.go is at its field.
func TestGeneratedHasAllRules(t *testing.T) {
	task := *parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema
	for field, want := range rules {
		path := strings.FieldsFunc(field, func(r rune) bool { return r == '.' })
		schema := task
		if len(path) > 0 {
			schema = at(t, task, path[:len(path)-1]...).Properties[path[len(path)-1]]
		}
		if diff := cmp.Diff(want, schema.XValidations); diff != "" {
			t.Errorf("the rules for %q (-want +got):\n%s", field, diff)
		}
	}
}

// at returns the schema of a field, or of the elements if the field is a list.
func at(t *testing.T, schema apiextensionsv1.JSONSchemaProps, path ...string) apiextensionsv1.JSONSchemaProps {
	t.Helper()
	for _, name := range path {
		property, ok := schema.Properties[name]
		if !ok {
			t.Fatalf("no property %s in the path %v", name, path)
		}
		if schema = property; property.Items != nil {
			schema = *property.Items.Schema
		}
	}
	return schema
}

func readGenerated(t *testing.T) []byte {
	t.Helper()
	content, err := os.ReadFile(generated)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func parse(t *testing.T, content []byte) apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(content, &crd); err != nil {
		t.Fatal(err)
	}
	return crd
}
