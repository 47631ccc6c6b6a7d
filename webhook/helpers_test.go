package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

var testAgent = podspec.Agent{Image: "example.com/taskflow/agent:1"}

// operator is the username of the Task controller.
const operator = "system:serviceaccount:taskflow-system:taskflow-operator"

// newTask returns a Task with one step.
func newTask() *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "build", Namespace: "default", UID: "1"}}
	task.Spec.Steps = []v1alpha1.Step{{Container: corev1.Container{Name: "a", Image: "busybox:1.28", Command: []string{"true"}}}}
	return task
}

// taskPod returns the Pod that the operator creates for newTask.
func taskPod() *corev1.Pod { return podspec.New(newTask(), 1, nil) }

// namingPod returns the Pod of a user that names newTask.
func namingPod() *corev1.Pod {
	pod := userPod(corev1.Container{Name: "task", Image: "task"})
	pod.Labels = map[string]string{contract.TaskLabel: "build"}
	return pod
}

// userPod returns the Pod of a user, with the containers as its steps.
func userPod(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "example", Labels: map[string]string{contract.SequentialLabel: "true"}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: containers},
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// handle answers a request of the operator.
func handle(t *testing.T, raw []byte, known ...*v1alpha1.Task) admission.Response {
	t.Helper()
	response, _ := handleWith(t, raw, tasks(known), nil)
	return response
}

// handleWith also returns which commands were resolved.
func handleWith(t *testing.T, raw []byte, cache, live tasks) (admission.Response, []entrypoint.Request) {
	t.Helper()
	var commands commands
	handler := Handler{Agent: testAgent, Tasks: cache, Live: live, Commands: &commands, Operator: operator}
	request := requestFor(raw, operator)
	response := handler.Handle(t.Context(), request)
	if err := response.Complete(request); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(commands.asked, func(a, b entrypoint.Request) int { return strings.Compare(a.Image, b.Image) })
	return response, commands.asked
}

func requestFor(raw []byte, user string) admission.Request {
	request := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{UID: "1", Namespace: "default", Object: runtime.RawExtension{Raw: raw}}}
	request.UserInfo.Username = user
	return request
}

// tasks are the Tasks of the namespace default.
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
	return errors.New("Tasks are not listed")
}

// commands resolves the commands of images. The command of "pinned" depends on the platform, and "unknown" has none.
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

// slow is a registry that doesn't answer.
type slow struct{}

func (slow) Resolve(ctx context.Context, _ entrypoint.Request) (entrypoint.Command, error) {
	<-ctx.Done()
	return entrypoint.Command{}, ctx.Err()
}
