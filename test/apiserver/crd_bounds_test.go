//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestTasksAreBounded proves that the API server refuses Tasks whose lists take far more memory in the operator than bytes in the request.
func TestTasksAreBounded(t *testing.T) {
	many := func(n int, element string) string { return "[" + strings.Repeat(element+",", n) + "]" }
	for name, c := range map[string]struct{ spec, want string }{
		"tolerations":  {"{steps: [{name: a, image: x}], template: {spec: {tolerations: " + many(201, "{}") + "}}}", "spec.template.spec.tolerations: Too many: 201: must have at most 200 items"},
		"envFrom":      {"{steps: [{name: a, image: x, envFrom: " + many(101, "{}") + "}]}", "spec.steps[0].envFrom: Too many: 101: must have at most 100 items"},
		"args":         {"{steps: [{name: a, image: x, args: " + many(1001, "''") + "}]}", "spec.steps[0].args: Too many: 1001: must have at most 1000 items"},
		"an argument":  {"{steps: [{name: a, image: x, args: [" + strings.Repeat("x", 1<<17) + "]}]}", "spec.steps[0].args[0]: Too long: may not be more than 131071 bytes"},
		"of a sidecar": {"{steps: [{name: a, image: x}], sidecars: [{name: b, image: x, envFrom: " + many(101, "{}") + "}]}", "spec.sidecars[0].envFrom: Too many: 101: must have at most 100 items"},
	} {
		task := parse(t, "{apiVersion: api.practice.com/v1alpha1, kind: Task, metadata: {name: many, namespace: default}, spec: "+c.spec+"}")
		if err := cluster.Create(t.Context(), task, client.DryRunAll); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want one with %q", name, err, c.want)
		}
	}
}

// TestLargeTasksStayEditable proves that a Task with longer lists than the CRD allows, created before the CRD had bounds, can still be
// changed and cancelled, and that its status can be written. Only the list itself can't be replaced by another long one. The test uses a
// copy of the kind in another API group.
func TestLargeTasksStayEditable(t *testing.T) {
	content, err := os.ReadFile("../../config/crd/tasks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd unstructured.Unstructured
	if err := yaml.Unmarshal(content, &crd.Object); err != nil {
		t.Fatal(err)
	}
	const group = "bounds.practice.com"
	crd.SetName("tasks." + group)
	if err := unstructured.SetNestedField(crd.Object, group, "spec", "group"); err != nil {
		t.Fatal(err)
	}
	bounded := crd.DeepCopy()
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	unstructured.RemoveNestedField(versions[0].(map[string]any), strings.Split(
		"schema.openAPIV3Schema.properties.spec.properties.template.properties.spec.properties.tolerations.maxItems", ".")...)
	if err := unstructured.SetNestedSlice(crd.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	cluster.Make(t, &crd)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), &crd); err != nil {
			t.Error(err)
		}
	})
	namespace := cluster.NewNamespace(t, "privileged")
	large := func(name string) *unstructured.Unstructured {
		return parse(t, "{apiVersion: "+group+"/v1alpha1, kind: Task, metadata: {name: "+name+", namespace: "+namespace+
			"}, spec: {steps: [{name: a, image: x}], template: {spec: {tolerations: ["+strings.Repeat("{},", 300)+"]}}}}")
	}
	task := large("large")
	wait.For(t, "the kind without a bound", func(ctx context.Context) error { return cluster.Create(ctx, task) })

	bounded.SetResourceVersion(crd.GetResourceVersion())
	if err := cluster.Patch(t.Context(), bounded, client.MergeFrom(&crd)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the kind with a bound", func(ctx context.Context) error {
		if err := cluster.Create(ctx, large("other"), client.DryRunAll); apierrors.IsInvalid(err) {
			return nil
		}
		return errors.New("it takes a long list")
	})
	patch := func(to client.Writer, patch string) error {
		return to.Patch(t.Context(), task.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	if err := patch(cluster, `{"metadata":{"labels":{"a":"b"}},"spec":{"suspend":true}}`); err != nil {
		t.Errorf("an edit: %v", err)
	}
	if err := cluster.Status().Patch(t.Context(), task.DeepCopy(), client.RawPatch(types.MergePatchType,
		[]byte(`{"status":{"phase":"Running","attempt":1}}`))); err != nil {
		t.Errorf("the status: %v", err)
	}
	if err := patch(cluster, `{"spec":{"suspend":false,"cancel":true}}`); err != nil {
		t.Errorf("cancel: %v", err)
	}
	if err := patch(cluster, `{"spec":{"template":{"spec":{"tolerations":[`+strings.Repeat("{},", 249)+`{}]}}}}`); !apierrors.IsInvalid(err) {
		t.Errorf("another long list: %v, want a refusal", err)
	}
}

// TestTimeouts proves that a duration is accepted if Go's time.ParseDuration reads it and Kubernetes keeps it. Every other value is
// refused, because nothing could decode the Task any more.
func TestTimeouts(t *testing.T) {
	const (
		ofStep = "timeout must be a duration from 1ms to 99999h, such as 90s, 5m or 1h30m"
		ofTask = "timeout must be a duration from 1s to 99999h, such as 90s, 5m or 1h30m"
		noUnit = "timeout is a number without a unit: write it as 90s, 5m or 1h30m"
		long   = "Too long: may not be more than 32 bytes"
	)
	for timeout, want := range map[string]struct{ step, task string }{
		"90s":                                {},
		"1h30m":                              {},
		"1.5s":                               {},
		"1.2.3s":                             {ofStep, ofTask},
		"5ms5s5m5h":                          {},
		"1hs":                                {ofStep, ofTask},
		"1mms":                               {ofStep, ofTask},
		"0.5h":                               {},
		"87600h":                             {}, // ten years
		"31536000s":                          {},
		"1e3ms":                              {ofStep, ofTask},
		"0.5ms":                              {ofStep, ofTask},
		"100000h":                            {ofStep, ofTask},
		"9999999m9999999m":                   {ofStep, ofTask},
		"500ms":                              {task: ofTask},
		"0.5s":                               {task: ofTask},
		"0s":                                 {ofStep, ofTask},
		"0h0m0s":                             {ofStep, ofTask},
		"-5s":                                {ofStep, ofTask},
		"+5s":                                {ofStep, ofTask},
		"'5'":                                {ofStep, ofTask},
		"''":                                 {ofStep, ofTask},
		"s":                                  {ofStep, ofTask},
		".5s":                                {ofStep, ofTask},
		"1d":                                 {ofStep, ofTask},
		"1e3s":                               {ofStep, ofTask},
		"10us":                               {ofStep, ofTask},
		"'5 m'":                              {ofStep, ofTask},
		"5M":                                 {ofStep, ofTask},
		"never":                              {ofStep, ofTask},
		"PT5M":                               {ofStep, ofTask},
		"９s":                                 {ofStep, ofTask},
		"300":                                {noUnit, noUnit},
		"99999999h":                          {ofStep, ofTask}, // a time.Duration ends at 292 years
		"999999999999999999h":                {ofStep, ofTask},
		"9999999h9999999h9999999h":           {ofStep, ofTask},
		"1s1s1s1s1s1s1s1s1s1s1s1s1s1s1s1s1s": {long, long},
	} {
		for field, test := range map[string]struct{ spec, want string }{
			"spec.steps[0].timeout": {"steps: [{name: a, image: x, timeout: " + timeout + "}]", want.step},
			"spec.timeout":          {"steps: [{name: a, image: x}], timeout: " + timeout, want.task},
			"spec.finallyTimeout": {"steps: [{name: a, image: x}, {name: b, image: x, finally: true}], timeout: 1h, finallyTimeout: " + timeout,
				strings.Replace(want.task, "timeout", "finallyTimeout", 1)},
			"spec.stepTemplate.timeout": {"steps: [{name: a, image: x}], stepTemplate: {timeout: " + timeout + "}", want.step},
		} {
			t.Run(field+" "+timeout, func(t *testing.T) {
				task := parse(t, "{apiVersion: api.practice.com/v1alpha1, kind: Task, metadata: {name: timeout, namespace: default}, spec: {"+test.spec+"}}")
				err := cluster.Create(t.Context(), task, client.DryRunAll)
				if test.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), field+": ") || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got the error %v, and not one of %s with %q", err, field, test.want)
				}
			})
		}
	}
}
