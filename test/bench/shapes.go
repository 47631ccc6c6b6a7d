package main

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

const image = "busybox:1.28"

// work is what each step of a sequence does.
type work struct {
	name    string
	command string // of a shell
	steps   int
	// rounds is how often the work is measured, and slowRounds how often in a slow shape. With many steps, a slow shape takes minutes and
	// varies little.
	rounds, slowRounds int
}

// once returns the work with one round only.
func (w work) once() work {
	w.rounds, w.slowRounds = 1, 1
	return w
}

// shape is a way to run a sequence. build returns the object to create, whose Pod has the same name.
type shape struct {
	name  string
	build func(meta metav1.ObjectMeta, w work) client.Object
	slow  bool // a step takes at least a second
}

// floor is the shape that all others are compared with: nothing can be faster than one container that runs everything.
var floor = shape{name: "one container, one shell", build: func(meta metav1.ObjectMeta, w work) client.Object {
	commands := make([]string, w.steps)
	for i := range commands {
		commands[i] = w.command
	}
	return pod(meta, nil, []corev1.Container{container(0, strings.Join(commands, "; "))})
}}

// taskflow is the shape with the agent in an init container. The names of its variants continue after a comma.
const taskflow = "taskflow"

// More names of shapes.
const (
	atOnce         = "all containers at once"
	initContainers = "native init containers"
	byImage        = taskflow + ", agent as an image volume"
	byController   = taskflow + ", handoff: controller"
)

var controllerAlone = map[string]string{contract.HandoffAnnotation: contract.HandoffController}

var shapes = []shape{
	floor,
	{name: atOnce, build: func(meta metav1.ObjectMeta, w work) client.Object {
		return pod(meta, nil, containers(w))
	}},
	{name: initContainers, slow: true, build: func(meta metav1.ObjectMeta, w work) client.Object {
		all := containers(w)
		return pod(meta, all[:len(all)-1], all[len(all)-1:])
	}},
	{name: taskflow, build: func(meta metav1.ObjectMeta, w work) client.Object {
		return task(meta, w, map[string]string{contract.DeliveryAnnotation: contract.DeliveryInit})
	}},
	{name: byImage, build: func(meta metav1.ObjectMeta, w work) client.Object {
		return task(meta, w, map[string]string{contract.DeliveryAnnotation: contract.DeliveryImage})
	}},
	{name: byController, slow: true, build: func(meta metav1.ObjectMeta, w work) client.Object {
		return task(meta, w, controllerAlone)
	}},
}

func container(i int, command string) corev1.Container {
	return corev1.Container{Name: fmt.Sprintf("step-%d", i+1), Image: image, Command: []string{"sh", "-c", command}}
}

func containers(w work) []corev1.Container {
	all := make([]corev1.Container, w.steps)
	for i := range all {
		all[i] = container(i, w.command)
	}
	return all
}

func pod(meta metav1.ObjectMeta, init, containers []corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
		InitContainers:                init,
		Containers:                    containers,
		RestartPolicy:                 corev1.RestartPolicyNever,
		TerminationGracePeriodSeconds: new(int64(1)),
	}}
}

func task(meta metav1.ObjectMeta, w work, annotations map[string]string) *v1alpha1.Task {
	t := &v1alpha1.Task{ObjectMeta: meta, Spec: v1alpha1.TaskSpec{Template: &v1alpha1.PodTemplate{
		Metadata: metav1.ObjectMeta{Annotations: annotations},
	}}}
	for _, c := range containers(w) {
		t.Spec.Steps = append(t.Spec.Steps, v1alpha1.Step{Container: c})
	}
	return t
}
