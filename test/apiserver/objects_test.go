//go:build apiserver

package apiserver

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// echo returns a container with a command, so that its image is not looked up.
func echo(name string) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox", Command: []string{"echo"}, Args: []string{name}}
}

// echoTask returns a Task with these steps.
func echoTask(namespace, name string, steps ...string) *v1alpha1.Task {
	var containers []corev1.Container
	for _, step := range steps {
		containers = append(containers, echo(step))
	}
	return harness.NewTask(namespace, name, containers...)
}

// makeEchoTask creates a Task with these steps.
func makeEchoTask(t *testing.T, namespace, name string, steps ...string) *v1alpha1.Task {
	t.Helper()
	task := echoTask(namespace, name, steps...)
	cluster.Make(t, task)
	return task
}

// makeTask creates a Task with the steps a and b, after the edits.
func makeTask(t *testing.T, edits ...func(*v1alpha1.Task)) *v1alpha1.Task {
	t.Helper()
	task := echoTask(cluster.NewNamespace(t, "privileged"), "made", "a", "b")
	for _, edit := range edits {
		edit(task)
	}
	cluster.Make(t, task)
	return task
}

// podWithLabels returns a Pod as a user writes it.
func podWithLabels(namespace, name string, labels map[string]string, containers ...corev1.Container) *corev1.Pod {
	pod := harness.NewPod(namespace, name, containers...)
	pod.Labels = labels
	return pod
}
