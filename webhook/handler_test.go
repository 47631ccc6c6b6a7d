package webhook

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
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
	refused.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
	const refusal = "spec.os.name: steps run on Linux nodes only: set it to linux, or leave it out"
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
			got := answer{Allowed: response.Allowed, Code: response.Result.Code, Message: response.Result.Message, Patched: len(response.Patch) > 0}
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
			if response.Allowed || response.Result.Code != http.StatusBadRequest || response.Result.Message == "" || len(response.Patch) > 0 {
				t.Errorf("the answer to %s is %+v, want code 400 with a message", raw, response)
			}
		})
	}
}

func handle(t *testing.T, raw []byte, known ...*v1alpha1.Task) admission.Response {
	t.Helper()
	response, _ := handleWith(t, raw, tasks(known), nil)
	return response
}

// handleWith also returns what was asked of the commands.
func handleWith(t *testing.T, raw []byte, cache, live tasks) (admission.Response, []entrypoint.Request) {
	t.Helper()
	var commands commands
	handler := Handler{Agent: testAgent, Tasks: cache, Live: live, Commands: &commands}
	request := requestFor(raw)
	response := handler.Handle(t.Context(), request)
	if err := response.Complete(request); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(commands.asked, func(a, b entrypoint.Request) int { return strings.Compare(a.Image, b.Image) })
	return response, commands.asked
}

// TestIdentity proves that the log tells which Pod was refused, also one that a Job makes, which has no name yet.
func TestIdentity(t *testing.T) {
	job := []metav1.OwnerReference{{Kind: "Job", Name: "nightly-1", Controller: new(true)}}
	for name, c := range map[string]struct {
		meta metav1.ObjectMeta
		want []any
	}{
		"a name":              {metav1.ObjectMeta{Name: "pod"}, nil}, // controller-runtime tells it
		"a prefix":            {metav1.ObjectMeta{GenerateName: "pod-"}, []any{"generateName", "pod-"}},
		"a prefix, and a Job": {metav1.ObjectMeta{GenerateName: "nightly-1-", OwnerReferences: job}, []any{"generateName", "nightly-1-", "ownerKind", "Job", "owner", "nightly-1"}},
	} {
		if diff := cmp.Diff(c.want, identity(&corev1.Pod{ObjectMeta: c.meta})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func requestFor(raw []byte) admission.Request {
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "1", Namespace: "default", Object: runtime.RawExtension{Raw: raw}}}
}

// tasks are those of the namespace default.
type tasks []*v1alpha1.Task

func (all tasks) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	for _, task := range all {
		if key == (client.ObjectKey{Namespace: "default", Name: task.Name}) {
			task.DeepCopyInto(object.(*v1alpha1.Task))
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: "api.practice.com", Resource: "tasks"}, key.Name)
}

func (tasks) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody lists")
}

// commands are those of images: that of "pinned" depends on the platform, and that of "unknown" isn't known.
type commands struct {
	mutex sync.Mutex
	asked []entrypoint.Request
}

func (c *commands) Resolve(_ context.Context, request entrypoint.Request) (entrypoint.Command, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.asked = append(c.asked, request)
	command := entrypoint.Command{Entrypoint: []string{"/entry", request.Image}, Cmd: []string{"$cmd"}}
	switch request.Image {
	case "pinned":
		command.Image = "pinned@sha256:0"
	case "unknown":
		return entrypoint.Command{}, &entrypoint.Error{Image: "unknown", Cause: "has neither ENTRYPOINT nor CMD", Remedy: "set command"}
	}
	return command, nil
}
