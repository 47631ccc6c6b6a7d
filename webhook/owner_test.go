package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestOwnershipIsTheOperators proves that only the operator can create a Pod that belongs to a Task. From a user, the webhook rejects the owner
// reference and the mark, and checks a Pod that names a Task as any other Pod.
func TestOwnershipIsTheOperators(t *testing.T) {
	const user = "mallory"
	const owner = `metadata.ownerReferences: only taskflow creates the Pods of a Task: remove the owner reference to the Task "build", ` +
		`and name the Task in the label taskflow.practice.com/task`
	marked := func(pod *corev1.Pod) *corev1.Pod {
		pod.Annotations[contract.TaskUIDAnnotation] = "uid"
		return pod
	}
	unowned := func(pod *corev1.Pod) *corev1.Pod {
		pod.OwnerReferences = nil
		return pod
	}
	unlabelled := func(pod *corev1.Pod) *corev1.Pod {
		pod.Labels = map[string]string{contract.SequentialLabel: "true"}
		return pod
	}
	planned := func(pod *corev1.Pod) *corev1.Pod {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: contract.AgentContainer, Image: testAgent.Image, Command: []string{"/agent", "install", contract.AgentPath}})
		return pod
	}
	cases := map[string]struct {
		user string
		pod  *corev1.Pod
		want string // the refusal
	}{
		"the operator's":                       {operator, marked(taskPod()), ""},
		"the owner reference":                  {user, taskPod(), owner},
		"the owner reference, without a name":  {user, unlabelled(taskPod()), owner},
		"the owner reference, already mutated": {user, planned(taskPod()), owner},
		"the mark":                             {user, marked(unowned(unlabelled(taskPod()))), "metadata.annotations: only taskflow sets taskflow.practice.com/task-uid: remove it"},
		"neither, and checked": {
			user, unowned(taskPod()),
			`metadata.labels: taskflow.practice.com/task names the Task "build", which doesn't exist in the namespace "default": create it, or fix the name`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			handler := Handler{Agent: testAgent, Tasks: tasks(nil), Live: tasks(nil), Commands: &commands{}, Operator: operator}
			request := requestFor(encode(t, c.pod), c.user)
			response := handler.Handle(t.Context(), request)
			got := ""
			if !response.Allowed {
				got = response.Result.Message
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the refusal (-want +got):\n%s", diff)
			}
		})
	}
}
