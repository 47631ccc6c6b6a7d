//go:build apiserver

package apiserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestListOfSteps proves that a Pod takes the steps with their options from a list in YAML, and keeps names and options apart, and that a broken list is
// refused in one sentence.
func TestListOfSteps(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	const path = "metadata.annotations: " + contract.StepsAnnotation
	for name, c := range map[string]struct {
		list, steps, options string
		want                 string
	}{
		"options": {
			list:    "- {name: a, retries: 2}\n- {name: c, dependsOn: [], onError: Continue}\n- name: b\n  dependsOn: [a, c]\n  when: [{step: a, output: CHANGED, in: ['true']}]\n",
			steps:   "a,c,b",
			options: `{"a":{"retries":2},"b":{"dependsOn":["a","c"],"when":[{"step":"a","of":"output","output":"CHANGED","in":["true"]}]},"c":{"continueOnError":true,"dependsOn":[]}}`,
		},
		"names":                    {list: "[c, a]", steps: "c,a"},
		"names, as before":         {list: "c, a", steps: "c,a"},
		"an unknown field":         {list: "- {name: a, retires: 2}", want: path + `[0]: the field "retires" is unknown: did you mean retries?`},
		"an unknown step":          {list: "- a\n- {name: b, dependsOn: [d]}", want: path + `[1].dependsOn[0]: there is no step "d" in the list: add it, or fix the name`},
		"a container that isn't":   {list: "[a, x]", want: "metadata.annotations: " + contract.StepsAnnotation},
		"a final step in between":  {list: "[{name: a, finally: true}, b]", want: path + `[0].finally: the final step "a" stands before the step "b", which is not final: move it to the end of the list`},
		"no YAML":                  {list: "- {name: a", want: path},
		"a number for a duration":  {list: "- {name: a, timeout: 5}", want: path + `[0].timeout`},
		"a variable of the loader": {list: "- a\n- {name: b, inputs: [{step: a, output: PATH}]}", want: path + `[1].inputs[0].output: the variable PATH changes how programs load or run: set name to another variable, or to PATH if you want that`},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podWithLabels(namespace, "pod", sequentialLabel(), echo("a"), echo("b"), echo("c"))
			pod.Annotations = map[string]string{contract.StepsAnnotation: c.list}
			err := cluster.Create(t.Context(), pod, client.DryRunAll)
			if c.want != "" {
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `taskflow.practice.com" denied the request: `+c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %v, want one with %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := []string{pod.Annotations[contract.StepsAnnotation], pod.Annotations[contract.OptionsAnnotation]}
			if diff := cmp.Diff([]string{c.steps, c.options}, got); diff != "" {
				t.Errorf("steps and options (-want +got):\n%s", diff)
			}
		})
	}
	for _, annotation := range []string{contract.HaltFinallyAnnotation, contract.CancelAnnotation, contract.OutcomeAnnotation, contract.OptionsAnnotation} {
		t.Run("forged "+annotation, func(t *testing.T) {
			pod := podWithLabels(namespace, "pod", sequentialLabel(), echo("a"), echo("b"))
			pod.Annotations = map[string]string{annotation: "x"}
			if err := cluster.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), annotation) {
				t.Errorf("the error is %v, want a refusal that names %s", err, annotation)
			}
		})
	}
}
