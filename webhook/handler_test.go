package webhook

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// answer is what the API server reads of a response.
type answer struct {
	Allowed bool
	Code    int32
	Message string
	Patched bool
}

// TestHandle proves how each kind of request is answered. The code tells the API server whether the user is at fault.
func TestHandle(t *testing.T) {
	windows := taskPod()
	windows.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
	const rejection = "spec.os.name: steps run on Linux nodes only: set it to linux, or leave it out"
	cases := map[string]struct {
		raw  []byte
		want answer
	}{
		"a Task's Pod":   {encode(t, taskPod()), answer{Allowed: true, Code: http.StatusOK, Patched: true}},
		"a user's Pod":   {encode(t, userPod(newTask().Spec.Steps[0].Container)), answer{Allowed: true, Code: http.StatusOK, Patched: true}},
		"no label":       {[]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a"}]}}`), answer{Allowed: true, Code: http.StatusOK}},
		"unknown fields": {[]byte(`{"apiVersion":"v1","kind":"Pod","new":1,"spec":{"new":2}}`), answer{Allowed: true, Code: http.StatusOK}},
		"a Windows Pod":  {encode(t, windows), answer{Code: http.StatusForbidden, Message: rejection}},
		"no such Task": {
			encode(t, namingPod()),
			answer{Code: http.StatusForbidden, Message: `metadata.labels: taskflow.practice.com/task names the Task "build", which doesn't exist in the namespace "default": create it, or fix the name`},
		},
		"an unknown command": {
			encode(t, userPod(corev1.Container{Name: "a", Image: "unknown"})),
			answer{Code: http.StatusForbidden, Message: `the container "a": image "unknown" has neither ENTRYPOINT nor CMD; set command`},
		},
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

// TestHandlePatch proves that the answer has the patch and the warnings of a Mutation.
func TestHandlePatch(t *testing.T) {
	container := newTask().Spec.Steps[0].Container
	pod := userPod(container, corev1.Container{Name: "helper", Image: "helper"})
	pod.Annotations = map[string]string{contract.StepsAnnotation: "a"}
	mutation, err := podspec.NewMutation(encode(t, pod), pod.DeepCopy(), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mutation.Complete(nil); err != nil {
		t.Fatal(err)
	}
	if err := mutation.Gate(testAgent, nil); err != nil {
		t.Fatal(err)
	}
	want, err := mutation.Patch.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	response := handle(t, encode(t, pod))
	if response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("the patch type is %v, want %s", response.PatchType, admissionv1.PatchTypeJSONPatch)
	}
	if diff := cmp.Diff(string(want), string(response.Patch)); diff != "" {
		t.Errorf("the patch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(mutation.Warnings, response.Warnings); diff != "" || len(response.Warnings) == 0 {
		t.Errorf("the warnings (-want +got):\n%s", diff)
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

// TestHandleCommands proves that only steps without a command are resolved, with what the kubelet would pull their images with.
func TestHandleCommands(t *testing.T) {
	pod := userPod(
		corev1.Container{Name: "args", Image: "x", Args: []string{"$(A)"}},
		corev1.Container{Name: "own", Image: "unknown", Command: []string{"true"}},
		corev1.Container{Name: "nothing", Image: "pinned", ImagePullPolicy: corev1.PullAlways},
		corev1.Container{Name: "helper", Image: "unknown"},
	)
	pod.Annotations = map[string]string{contract.StepsAnnotation: "args,own,nothing"}
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "secret"}}
	pod.Spec.NodeSelector = map[string]string{"kubernetes.io/arch": "arm64"}
	response, asked := handleWith(t, encode(t, pod), nil, nil)
	want := []entrypoint.Request{
		{Namespace: "default", Image: "pinned", PullPolicy: corev1.PullAlways, PullSecrets: []string{"secret"}, Architecture: "arm64"},
		{Namespace: "default", Image: "x", PullSecrets: []string{"secret"}, Architecture: "arm64", HasArgs: true},
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("the requests (-want +got):\n%s", diff)
	}
	for _, part := range []string{`"--command","/entry","x","$(A)"]`, `"--command","/entry","pinned","$$cmd"]`, `"value":"pinned@sha256:0"`} {
		if !strings.Contains(string(response.Patch), part) {
			t.Errorf("the patch has no %s: %s", part, response.Patch)
		}
	}
}

// TestSlowRegistry proves that the user reads what took too long.
func TestSlowRegistry(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	const want = `the container "a": the registry did not return the command of the image "x" in time: set command`
	response := Handler{Commands: slow{}}.Handle(ctx, requestFor(encode(t, userPod(corev1.Container{Name: "a", Image: "x"})), "user"))
	if response.Allowed || response.Result.Message != want {
		t.Errorf("the answer is %+v, want %s", response.Result, want)
	}
}

// TestHandleDelivery proves that only the delivery auto depends on the nodes.
func TestHandleDelivery(t *testing.T) {
	type answer struct{ Asked, ByInit bool }
	for _, c := range []struct {
		delivery string
		can      bool
		want     answer
	}{
		{"init", true, answer{false, true}},
		{"image", false, answer{false, false}},
		{"auto", true, answer{true, false}},
		{"auto", false, answer{true, true}},
	} {
		var got answer
		handler := Handler{Agent: testAgent, Operator: operator}
		handler.Agent.Delivery = c.delivery
		handler.ImageVolumes = func() bool { got.Asked = true; return c.can }
		response := handler.Handle(t.Context(), requestFor(encode(t, taskPod()), operator))
		got.ByInit = strings.Contains(string(response.Patch), contract.AgentContainer)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s, and the nodes can: %t (-want +got):\n%s", c.delivery, c.can, diff)
		}
	}
}

// TestTaskIsReadLive proves that the webhook asks the API server for a Task that the cache doesn't have yet, or has without its steps, and only for
// such a Task.
func TestTaskIsReadLive(t *testing.T) {
	task := newTask()
	stripped := task.DeepCopy()
	stripped.Spec = v1alpha1.TaskSpec{}
	for name, c := range map[string]struct{ cache, live tasks }{
		"in the cache":               {tasks{task}, nil},
		"in the cache, and stripped": {tasks{stripped}, tasks{task}},
		"created just now":           {nil, tasks{task}},
	} {
		t.Run(name, func(t *testing.T) {
			if response, _ := handleWith(t, encode(t, namingPod()), c.cache, c.live); !response.Allowed || len(response.Patch) == 0 {
				t.Errorf("the answer is %+v, want a patch", response)
			}
		})
	}
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
