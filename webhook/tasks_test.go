package webhook

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TestTaskHandler proves the answers about Tasks: a Task passes, one whose steps can't work together is denied with the sentence, and what is no
// Task is an error.
func TestTaskHandler(t *testing.T) {
	broken := newTask()
	broken.Spec.Steps[0].DependsOn = []string{"b"}
	shadowed := newTask()
	shadowed.Spec.Steps[0].Env = []corev1.EnvVar{{Name: "TASKFLOW_OUTPUT"}}
	for name, c := range map[string]struct {
		object  any
		isValid bool
		code    int32
		want    string
	}{
		"a Task":                   {newTask(), true, http.StatusOK, ""},
		"a broken Task":            {broken, false, http.StatusForbidden, `spec.steps[0].dependsOn[0]: there is no step "b" in the list: add it, or fix the name`},
		"a variable of taskflow's": {shadowed, true, http.StatusOK, ""},
		"a Pod": {&corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}, false, http.StatusBadRequest,
			"the webhook handles Tasks only, and got /v1, Kind=Pod: fix the rules of its ValidatingWebhookConfiguration"},
		"no object": {"text", false, http.StatusBadRequest, "cannot unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			if task, ok := c.object.(*v1alpha1.Task); ok {
				task.SetGroupVersionKind(v1alpha1.TaskKind)
			}
			var request admission.Request
			request.Object = runtime.RawExtension{Raw: encode(t, c.object)}
			response := TaskHandler{}.Handle(t.Context(), request)
			if response.Allowed != c.isValid || response.Result.Code != c.code || !strings.Contains(response.Result.Message, c.want) {
				t.Errorf("the answer is %+v, want the code %d with %q", response.Result, c.code, c.want)
			}
			if hasWarning := len(response.Warnings) > 0; hasWarning != (c.object == shadowed) {
				t.Errorf("warnings: %q", response.Warnings)
			}
			if len(response.Patches) > 0 || len(response.Patch) > 0 {
				t.Error("the answer has a patch")
			}
		})
	}
}
