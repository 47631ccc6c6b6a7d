package webhook

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// answer is what the API server reads of a response.
type answer struct {
	Allowed bool
	Code    int32
	Message string
	Patched bool
}

// TestHandle proves how each kind of request is answered: the code decides whether the API server takes it for the user's fault.
func TestHandle(t *testing.T) {
	refused := taskPod(step("a"))
	refused.OwnerReferences = nil
	const refusal = "metadata.labels: taskflow.practice.com/task is for Pods that taskflow makes from a Task: remove it, or create a Task"
	cases := map[string]struct {
		raw  []byte
		want answer
	}{
		"steps":               {encode(t, taskPod(step("a"), step("b"))), answer{Allowed: true, Code: http.StatusOK, Patched: true}},
		"steps, once more":    {mutate(t, encode(t, taskPod(step("a")))), answer{Allowed: true, Code: http.StatusOK}},
		"no label":            {[]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}`), answer{Allowed: true, Code: http.StatusOK}},
		"fields nobody knows": {[]byte(`{"apiVersion":"v1","kind":"Pod","new":1,"spec":{"new":2}}`), answer{Allowed: true, Code: http.StatusOK}},
		"what plan refuses":   {encode(t, refused), answer{Code: http.StatusForbidden, Message: refusal}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			response := handle(t, c.raw)
			got := answer{Allowed: response.Allowed, Code: response.Result.Code, Message: response.Result.Message, Patched: len(response.Patches) > 0}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the answer (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHandlePatch proves that the answer on the wire is the plan.
func TestHandlePatch(t *testing.T) {
	raw := encode(t, taskPod(step("a"), step("b")))
	response := handle(t, raw)
	if response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("the patch type is %v, want %s", response.PatchType, admissionv1.PatchTypeJSONPatch)
	}
	plan, err := planRaw(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	want, err := plan.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(response.Patch)); diff != "" {
		t.Errorf("the patch (-want +got):\n%s", diff)
	}
}

// TestHandleMalformed proves that what is no Pod is answered with 400, and never let through.
func TestHandleMalformed(t *testing.T) {
	cases := map[string]string{
		"nothing":              ``,
		"no JSON":              `{"apiVersion":"v1",`,
		"no object":            `[]`,
		"another kind":         `{"apiVersion":"v1","kind":"Service"}`,
		"an unknown kind":      `{"apiVersion":"example.com/v1","kind":"Pod"}`,
		"a field's wrong type": `{"apiVersion":"v1","kind":"Pod","spec":{"containers":{}}}`,
	}
	for name, raw := range cases {
		t.Run(name, func(t *testing.T) {
			response := handle(t, []byte(raw))
			if response.Allowed || response.Result.Code != http.StatusBadRequest || response.Result.Message == "" || len(response.Patches) > 0 {
				t.Errorf("the answer to %s is %+v, want code 400 with a message", raw, response)
			}
		})
	}
}

func handle(t *testing.T, raw []byte) admission.Response {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	handler := Handler{Decoder: admission.NewDecoder(scheme), Agent: testAgent}
	request := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "1", Object: runtime.RawExtension{Raw: raw}}}
	response := handler.Handle(t.Context(), request)
	if err := response.Complete(request); err != nil {
		t.Fatal(err)
	}
	return response
}
