// Command crd makes the CustomResourceDefinition of Task small enough for plain `kubectl apply`, which keeps a copy of
// what it applied in an annotation of at most 256 KiB. It reads what controller-gen has made on its standard input, and writes
// to its standard output.
//
// Taskflow's own fields keep their descriptions, for `kubectl explain`; those of core/v1 lose them. And it says what
// controller-gen can't be told of types that aren't ours: that a Pod template may leave its containers out, how long the
// name of a step or a sidecar is at most, and the rules for one of their fields.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "crd: %v\n", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(content, &crd); err != nil {
		return fmt.Errorf("reading the CustomResourceDefinition: %w", err)
	}
	for i := range crd.Spec.Versions {
		shrink(crd.Spec.Versions[i].Schema.OpenAPIV3Schema)
	}
	content, err = yaml.Marshal(map[string]any{
		"apiVersion": crd.APIVersion,
		"kind":       crd.Kind,
		"metadata":   map[string]any{"name": crd.Name, "annotations": crd.Annotations},
		"spec":       crd.Spec,
	})
	if err != nil {
		return err
	}
	_, err = out.Write(content)
	return err
}

func shrink(task *apiextensionsv1.JSONSchemaProps) {
	unwrapDescriptions(task)
	for name := range task.Properties { // the Task's own rules stay: they alone see its status
		edit(task, name, func(property *apiextensionsv1.JSONSchemaProps) { visit(property, moveRules) })
	}
	spec := task.Properties["spec"]
	step := spec.Properties["steps"].Items.Schema
	container := spec.Properties["sidecars"].Items.Schema
	withoutDescriptions(container.Properties)
	for name := range container.Properties { // the others are taskflow's own
		edit(step, name, withoutDescription)
	}
	edit(step, "name", named("The name of the step's container, unique among the steps."))
	edit(step, "timeout", withNumbers)
	edit(&spec, "timeout", withNumbers)
	edit(container, "name", named("The name of the container, unique among the sidecars and the steps."))
	edit(&spec, "template", func(template *apiextensionsv1.JSONSchemaProps) {
		edit(template, "spec", func(pod *apiextensionsv1.JSONSchemaProps) {
			withoutDescriptions(pod.Properties)
			pod.Required = nil
			// No user sets these: what they would hold needs no schema, but an error where somebody does.
			for _, name := range []string{"containers", "ephemeralContainers"} {
				edit(pod, name, func(list *apiextensionsv1.JSONSchemaProps) {
					*list = apiextensionsv1.JSONSchemaProps{
						Type:         "array",
						Items:        &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}},
						XValidations: list.XValidations,
					}
				})
			}
		})
	})
	bound(&spec, "spec")
	task.Properties["spec"] = spec
}

// Bounds of the lists and maps in a Task that have none. The operator holds Tasks in memory, and an element of a list needs three bytes in
// the request, as {} or "", and thirty times as many in memory. No manifest that a person or a tool writes comes near.
const (
	maxItems      = 1000
	maxProperties = 1000
	// maxArgument is what Linux takes as one argument or variable, without the byte that ends it (MAX_ARG_STRLEN).
	maxArgument = 128<<10 - 1
)

// fewItems bounds the lists whose elements have no required fields.
var fewItems = map[string]int64{
	"envFrom": 100, "imagePullSecrets": 100, "nodeSelectorTerms": 100, "sources": 100, "tolerations": 200,
}

// bound bounds the lists, the maps and the arguments in the schema of a field.
func bound(schema *apiextensionsv1.JSONSchemaProps, name string) {
	if schema.Type == "array" && schema.MaxItems == nil {
		schema.MaxItems = ptr.To[int64](maxItems)
		if few := fewItems[name]; few > 0 {
			schema.MaxItems = &few
		}
	}
	if schema.AdditionalProperties != nil && schema.MaxProperties == nil {
		schema.MaxProperties = ptr.To[int64](maxProperties)
	}
	for name, property := range schema.Properties {
		bound(&property, name)
		schema.Properties[name] = property
	}
	if schema.Items != nil {
		bound(schema.Items.Schema, name)
		if name == "command" || name == "args" {
			schema.Items.Schema.MaxLength = ptr.To[int64](maxArgument)
		}
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		bound(schema.AdditionalProperties.Schema, "")
	}
}

// named describes a container's name, and bounds its length: without that, the rules for it would cost too much.
func named(description string) func(*apiextensionsv1.JSONSchemaProps) {
	return func(name *apiextensionsv1.JSONSchemaProps) {
		name.Description = description
		name.MaxLength = ptr.To[int64](63)
	}
}

// withNumbers lets a number through to the rules of a duration: they say that it needs a unit, and the API server only that it is no string.
func withNumbers(duration *apiextensionsv1.JSONSchemaProps) {
	duration.Type, duration.XIntOrString = "", true
}

// moveRules moves the rules that have a fieldPath to that field.
func moveRules(schema *apiextensionsv1.JSONSchemaProps) {
	rules := schema.XValidations
	schema.XValidations = nil
	for _, rule := range rules {
		path := strings.Split(rule.FieldPath, ".")[1:]
		rule.FieldPath = ""
		addRule(schema, path, rule)
	}
}

func addRule(schema *apiextensionsv1.JSONSchemaProps, path []string, rule apiextensionsv1.ValidationRule) {
	if len(path) == 0 {
		schema.XValidations = append(schema.XValidations, rule)
		return
	}
	edit(schema, path[0], func(field *apiextensionsv1.JSONSchemaProps) { addRule(field, path[1:], rule) })
}

// edit changes one property.
func edit(schema *apiextensionsv1.JSONSchemaProps, name string, change func(*apiextensionsv1.JSONSchemaProps)) {
	property, ok := schema.Properties[name]
	if !ok {
		panic("the schema has no property " + name)
	}
	change(&property)
	schema.Properties[name] = property
}

func withoutDescriptions(properties map[string]apiextensionsv1.JSONSchemaProps) {
	for name, property := range properties {
		withoutDescription(&property)
		properties[name] = property
	}
}

func withoutDescription(schema *apiextensionsv1.JSONSchemaProps) {
	visit(schema, func(schema *apiextensionsv1.JSONSchemaProps) { schema.Description = "" })
}

// unwrapDescriptions joins the lines of paragraphs, which are as long as the Go comments that they come from: `kubectl
// explain` wraps them itself.
func unwrapDescriptions(schema *apiextensionsv1.JSONSchemaProps) {
	visit(schema, func(schema *apiextensionsv1.JSONSchemaProps) {
		paragraphs := strings.Split(schema.Description, "\n\n")
		for i := range paragraphs {
			paragraphs[i] = strings.ReplaceAll(paragraphs[i], "\n", " ")
		}
		schema.Description = strings.Join(paragraphs, "\n\n")
	})
}

// visit changes a schema and all that are in it.
func visit(schema *apiextensionsv1.JSONSchemaProps, change func(*apiextensionsv1.JSONSchemaProps)) {
	change(schema)
	for name, property := range schema.Properties {
		visit(&property, change)
		schema.Properties[name] = property
	}
	if schema.Items != nil {
		visit(schema.Items.Schema, change)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		visit(schema.AdditionalProperties.Schema, change)
	}
}
