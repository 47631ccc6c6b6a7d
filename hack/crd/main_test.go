package main

import (
	"encoding/json"
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

// maxAnnotations is what the API server allows for all annotations of an object together, keys and values
// (apimachinery, TotalAnnotationSizeLimitB).
const maxAnnotations = 256 << 10

// TestGeneratedIsSmallEnough proves that plain `kubectl apply` takes the CustomResourceDefinition: it keeps what it applied, as JSON, in
// an annotation.
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
		t.Errorf("the annotations have %d bytes, and may have %d", size, maxAnnotations)
	}
	t.Logf("the annotations have %d of %d bytes", size, maxAnnotations)
}

// TestGeneratedExplainsOurFields proves that `kubectl explain` has a sentence for each of taskflow's own fields, and that the
// descriptions of Kubernetes' types are where the bytes were saved.
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

// assertExplained goes through the fields of a type, down to those of types that aren't taskflow's.
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
			continue // embedded, and the API server's own
		}
		property, ok := schema.Properties[name]
		if !ok {
			t.Errorf("%s has no schema: run make generate", path+"."+name)
			continue
		}
		assertExplained(t, path+"."+name, &property, field.Type)
	}
}

// TestGeneratedTemplate proves what controller-gen can't be told: the names of steps and sidecars have a greatest length and their own description, and a
// template may leave out all of the Pod's fields.
func TestGeneratedTemplate(t *testing.T) {
	task := *parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, list := range []string{"steps", "sidecars"} {
		name := at(t, task, "spec", list, "name")
		if name.Description == "" || !ptr.Equal(name.MaxLength, ptr.To[int64](63)) {
			t.Errorf("a name in %s has the description %q and the greatest length %d, want some and 63", list, name.Description, ptr.Deref(name.MaxLength, 0))
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

// TestGeneratedRulesAreCheap proves that no rule reads what is slow to read whenever a Task's status is written: fields of an object with as many of
// them as a container has, unless the Task has no Pod yet.
func TestGeneratedRulesAreCheap(t *testing.T) {
	task := parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema
	for _, rule := range task.XValidations {
		guarded := strings.HasPrefix(rule.Rule, "self.?status.?attempt.hasValue() || ") || strings.Contains(rule.Rule, " != oldSelf.status.conditions || ")
		if strings.Contains(rule.Rule, "self.spec") && !guarded {
			t.Errorf("this rule reads the spec also where a Task has a Pod: %s", rule.Rule)
		}
	}
	wide := func(schema *apiextensionsv1.JSONSchemaProps) bool { return len(schema.Properties) > 10 }
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

// TestGeneratedIsBounded proves that each list and each map in a Task's spec has a greatest size: the operator holds Tasks in memory, where an
// element of a list takes far more bytes than in the request.
func TestGeneratedIsBounded(t *testing.T) {
	spec := at(t, *parse(t, readGenerated(t)).Spec.Versions[0].Schema.OpenAPIV3Schema, "spec")
	lists := 0
	visit(&spec, func(schema *apiextensionsv1.JSONSchemaProps) {
		if schema.Type == "array" {
			lists++
			if schema.MaxItems == nil || *schema.MaxItems > 1000 {
				t.Errorf("a list has no bound, or a high one: %+v", schema)
			}
		}
		if schema.AdditionalProperties != nil && (schema.MaxProperties == nil || *schema.MaxProperties > 1000) {
			t.Errorf("a map has no bound, or a high one: %+v", schema)
		}
	})
	if lists < 50 {
		t.Errorf("the spec has %d lists: the test looks at too few", lists)
	}
}

// TestRun proves what is done to a schema: descriptions of Kubernetes' types go, at every depth, and taskflow's stay, each paragraph in
// one line; a rule for a field goes to that field, unless it is the Task's own; and what a Task may hold is bounded.
func TestRun(t *testing.T) {
	const in = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tasks.api.practice.com, annotations: {a: b}, creationTimestamp: null}
spec:
  group: api.practice.com
  names: {kind: Task, plural: tasks}
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        description: ours
        type: object
        x-kubernetes-validations: [{rule: "self.spec.steps != []", message: m, fieldPath: .spec.steps}]
        properties:
          spec:
            description: ours
            type: object
            properties:
              steps:
                description: ours
                type: array
                items:
                  description: ours
                  type: object
                  required: [name]
                  x-kubernetes-validations:
                  - {rule: "self != 'a'", message: m, fieldPath: .name}
                  - {rule: "false", message: m, fieldPath: .limits.cpu}
                  - {rule: "self.name != self.script", message: m}
                  properties:
                    image: {description: theirs, type: string}
                    name: {description: theirs, type: string}
                    env:
                      description: theirs
                      type: array
                      items: {description: theirs, type: object, properties: {name: {description: theirs, type: string}}}
                    limits: {description: theirs, type: object, properties: {cpu: {description: theirs, type: string, x-kubernetes-validations: [{rule: "true", message: m}]}}}
                    labels: {description: theirs, type: object, additionalProperties: {description: theirs, type: string}}
                    open: {description: theirs, type: object, additionalProperties: true}
                    script: {description: ours, type: string}
                    timeout: {description: ours, type: string, maxLength: 32}
                    envFrom: {type: array, items: {type: object}}
                    args: {type: array, items: {type: string}}
                    ports: {type: array, maxItems: 3, items: {type: object}}
              sidecars:
                description: ours
                type: array
                items:
                  description: ours
                  type: object
                  required: [name]
                  properties:
                    image: {description: theirs, type: string}
                    name: {description: theirs, type: string}
                    env:
                      description: theirs
                      type: array
                      items: {description: theirs, type: object, properties: {name: {description: theirs, type: string}}}
                    labels: {description: theirs, type: object}
                    limits: {description: theirs, type: object}
                    open: {description: theirs, type: object}
              timeout: {description: ours, type: string}
              template:
                description: ours
                type: object
                properties:
                  metadata: {description: ours, type: object}
                  spec:
                    description: ours
                    type: object
                    required: [containers]
                    x-kubernetes-validations: [{rule: "true", message: m}, {rule: size(self) == 0, message: m, fieldPath: .containers}]
                    properties:
                      containers: {description: theirs, type: array, items: {type: object, properties: {description: {type: string}}}}
                      ephemeralContainers: {description: theirs, type: array, x-kubernetes-list-type: map, items: {type: object}}
                      hostname: {description: theirs, type: string}
          status: {description: "ours,\nin lines\n\nand paragraphs", type: object, properties: {steps: {description: "a\nb", type: array, items: {description: "c\nd", type: object}}}}
`
	const want = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tasks.api.practice.com, annotations: {a: b}}
spec:
  group: api.practice.com
  names: {kind: Task, plural: tasks}
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        description: ours
        type: object
        x-kubernetes-validations: [{rule: "self.spec.steps != []", message: m, fieldPath: .spec.steps}]
        properties:
          spec:
            description: ours
            type: object
            properties:
              steps:
                description: ours
                type: array
                maxItems: 1000
                items:
                  description: ours
                  type: object
                  required: [name]
                  x-kubernetes-validations: [{rule: "self.name != self.script", message: m}]
                  properties:
                    image: {type: string}
                    name: {description: "The name of the step's container, unique among the steps.", type: string, maxLength: 63, x-kubernetes-validations: [{rule: "self != 'a'", message: m}]}
                    env:
                      type: array
                      maxItems: 1000
                      items: {type: object, properties: {name: {type: string}}}
                    limits: {type: object, properties: {cpu: {type: string, x-kubernetes-validations: [{rule: "true", message: m}, {rule: "false", message: m}]}}}
                    labels: {type: object, maxProperties: 1000, additionalProperties: {type: string}}
                    open: {type: object, maxProperties: 1000, additionalProperties: true}
                    script: {description: ours, type: string}
                    timeout: {description: ours, x-kubernetes-int-or-string: true, maxLength: 32}
                    envFrom: {type: array, maxItems: 100, items: {type: object}}
                    args: {type: array, maxItems: 1000, items: {type: string, maxLength: 131071}}
                    ports: {type: array, maxItems: 3, items: {type: object}}
              sidecars:
                description: ours
                type: array
                maxItems: 1000
                items:
                  description: ours
                  type: object
                  required: [name]
                  properties:
                    image: {type: string}
                    name: {description: "The name of the container, unique among the sidecars and the steps.", type: string, maxLength: 63}
                    env:
                      type: array
                      maxItems: 1000
                      items: {type: object, properties: {name: {type: string}}}
                    labels: {type: object}
                    limits: {type: object}
                    open: {type: object}
              timeout: {description: ours, x-kubernetes-int-or-string: true}
              template:
                description: ours
                type: object
                properties:
                  metadata: {description: ours, type: object}
                  spec:
                    description: ours
                    type: object
                    x-kubernetes-validations: [{rule: "true", message: m}]
                    properties:
                      containers: {type: array, maxItems: 1000, items: {type: object, x-kubernetes-preserve-unknown-fields: true}, x-kubernetes-validations: [{rule: size(self) == 0, message: m}]}
                      ephemeralContainers: {type: array, maxItems: 1000, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
                      hostname: {type: string}
          status: {description: "ours, in lines\n\nand paragraphs", type: object, properties: {steps: {description: a b, type: array, items: {description: c d, type: object}}}}
`
	var out strings.Builder
	if err := run(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decode(t, want), decode(t, out.String())); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
}

// TestRunTwice proves that what is small enough stays as it is.
func TestRunTwice(t *testing.T) {
	content := string(readGenerated(t))
	var out strings.Builder
	if err := run(strings.NewReader(content), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content, out.String()); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
}

// TestRunFails proves that what is no CustomResourceDefinition is not taken for an empty one.
func TestRunFails(t *testing.T) {
	for name, in := range map[string]string{
		"no YAML":          "{",
		"an unknown field": "spec: {versionz: []}",
		"a field twice":    "kind: a\nkind: b",
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := run(strings.NewReader(in), &out); err == nil || out.Len() > 0 {
				t.Errorf("run = %v, and writes %q, want an error alone", err, out.String())
			}
		})
	}
}

// at is the schema of a field; of a list, that of its elements.
func at(t *testing.T, schema apiextensionsv1.JSONSchemaProps, path ...string) apiextensionsv1.JSONSchemaProps {
	t.Helper()
	for _, name := range path {
		property, ok := schema.Properties[name]
		if !ok {
			t.Fatalf("there is no %s of %v", name, path)
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

func decode(t *testing.T, content string) any {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
