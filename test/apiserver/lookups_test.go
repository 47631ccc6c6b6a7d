//go:build apiserver

package apiserver

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// silentRegistry accepts connections and never answers.
func silentRegistry(t *testing.T) (host string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, connection)
				_ = connection.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

// imageTask returns a Task whose only step runs the image's command.
func imageTask(namespace, name, image string) *v1alpha1.Task {
	task := echoTask(namespace, name, "a")
	task.Spec.Steps[0].Container = corev1.Container{Name: "a", Image: image}
	return task
}

// TestSilentRegistriesDelayNobody proves that Tasks whose registries never answer delay no Task of another namespace, with or without a
// look-up, and that their status tells what they wait for. Each image has a registry of its own, so that no look-up profits from the
// failure of another.
func TestSilentRegistriesDelayNobody(t *testing.T) {
	const many = 100
	_, host := serve(t, newRegistry(t))
	quick, flood := cluster.NewNamespace(t, "privileged"), cluster.NewNamespace(t, "privileged")
	// podAfter returns how long the operator takes to create a new Task's Pod.
	podAfter := func(task *v1alpha1.Task) time.Duration {
		began := time.Now()
		cluster.Make(t, task)
		awaitPod(t, task)
		return time.Since(began)
	}
	alone := podAfter(imageTask(quick, "alone", host+"/app:v1"))

	for i := range many {
		cluster.Make(t, imageTask(flood, fmt.Sprint("silent-", i), silentRegistry(t)+"/app:v1"))
	}
	for name, task := range map[string]*v1alpha1.Task{
		"an image's command": imageTask(quick, "image", host+"/app:v1"),
		"its own command":    echoTask(quick, "command", "a"),
	} {
		// The test polls every 100 ms and doesn't judge the machine's speed. Eight workers that wait for registries would delay a Task by a
		// minute.
		if took := podAfter(task); took > alone+2*time.Second {
			t.Errorf("a Task with %s has its Pod after %s beside the silent registries, and after %s without them", name, took, alone)
		} else {
			t.Logf("a Task with %s has its Pod after %s beside the silent registries, and after %s without them", name, took, alone)
		}
	}
	waiting := imageTask(flood, "silent-0", "")
	cluster.AwaitTask(t, waiting, "what it waits for", func(s v1alpha1.TaskStatus) bool {
		progress := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
		return progress != nil && progress.Reason == v1alpha1.ReasonEntrypointUnresolved
	})
	if err := cluster.DeleteAllOf(t.Context(), &v1alpha1.Task{}, client.InNamespace(flood)); err != nil {
		t.Error(err)
	}
}
