package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestRun proves that run removes the descriptions of Kubernetes' types at every depth, keeps taskflow's with each paragraph on one line, adds
// rules to their fields, and bounds lists, maps and arguments.
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
                  x-kubernetes-validations: [{rule: "self.name != self.script", message: m}]
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
              finallyTimeout: {description: ours, type: string}
              stepTemplate:
                description: ours
                type: object
                properties:
                  env: {description: ours, type: array, items: {description: theirs, type: object, properties: {name: {description: theirs, type: string}}}}
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
                    x-kubernetes-validations: [{rule: "true", message: m}]
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
              finallyTimeout: {description: ours, x-kubernetes-int-or-string: true}
              stepTemplate:
                description: ours
                type: object
                properties:
                  env: {description: ours, type: array, maxItems: 1000, items: {type: object, properties: {name: {type: string}}}}
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
	rules := map[string]apiextensionsv1.ValidationRules{
		"":                              {{Rule: "self.spec.steps != []", Message: "m", FieldPath: ".spec.steps"}},
		"spec.steps.name":               {{Rule: "self != 'a'", Message: "m"}},
		"spec.steps.limits.cpu":         {{Rule: "false", Message: "m"}},
		"spec.template.spec.containers": {{Rule: "size(self) == 0", Message: "m"}},
	}
	var out strings.Builder
	if err := run(strings.NewReader(in), &out, rules); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), header) {
		t.Errorf("the result does not begin with %q", header)
	}
	if diff := cmp.Diff(decode(t, want), decode(t, out.String())); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
}

// TestRunFails proves that run rejects other input, instead of taking it for an empty CustomResourceDefinition.
func TestRunFails(t *testing.T) {
	for name, in := range map[string]string{
		"no YAML":          "{",
		"an unknown field": "spec: {versionz: []}",
		"a field twice":    "kind: a\nkind: b",
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := run(strings.NewReader(in), &out, nil); err == nil || out.Len() > 0 {
				t.Errorf("run = %v with the output %q, want an error and no output", err, out.String())
			}
		})
	}
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
