//go:build e2e

// Package attack attacks taskflow as installed by `make deploy-local`, on the real node of test/cluster. hack/test.sh prepares both.
//
// Each file is one kind of attacker: what the attacker may do, and what they try. The doc comment of a test says what must hold. docs/security.md
// has a row for each test. A new attack is a test in the file of its attacker and a row there.
//
// Tests that look at the operator's memory or processor, or at how fast it is for others, don't run beside other tests.
package attack

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/kube"
	"github.com/taskflow/taskflow-operator/test/tenant"
	"github.com/taskflow/taskflow-operator/test/wait"
)

const operatorNamespace = "taskflow-system"

var (
	cluster   client.WithWatch
	clientset *kubernetes.Clientset // for logs
)

func TestMain(m *testing.M) {
	logf.SetLogger(logr.Discard())
	var err error
	if cluster, clientset, err = kube.ConnectToTestCluster(); err != nil {
		fmt.Fprintf(os.Stderr, "connecting to the test cluster (`make test` does it all): %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newNamespace creates a namespace of a tenant, with PodSecurity's level baseline.
func newNamespace(t *testing.T) string {
	t.Helper()
	return tenant.Namespace(t, cluster, "attack-", "baseline")
}

func newTask(namespace, name string, steps ...corev1.Container) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, step := range steps {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	return task
}

func newPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: containers},
	}
}

// labelledPod is a Pod whose containers are steps.
func labelledPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	pod := newPod(namespace, name, containers...)
	pod.Labels = map[string]string{contract.SequentialLabel: "true"}
	return pod
}

func shell(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox:1.28", Command: []string{"sh", "-c", script}}
}

func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := cluster.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

func awaitTask(t *testing.T, task *v1alpha1.Task, what string, wanted func(v1alpha1.TaskStatus) bool) v1alpha1.TaskStatus {
	t.Helper()
	return wait.ForTask(t, cluster, task, what, wanted)
}

func inPhase(phases ...v1alpha1.TaskPhase) func(v1alpha1.TaskStatus) bool {
	return func(status v1alpha1.TaskStatus) bool { return slices.Contains(phases, status.Phase) }
}

// awaitEnd waits until the Pod has ended.
func awaitEnd(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	wait.For(t, "the Pod to end", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("its phase is %s: %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
}

func logs(t *testing.T, namespace, pod, container string) string {
	t.Helper()
	content, err := clientset.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("reading the log of %s: %v", container, err)
	}
	return string(content)
}

// waited calls check until it says that all is over, for at most so long. It is for what takes longer than wait.For waits.
func waited(t *testing.T, patience time.Duration, what string, check func(ctx context.Context) (over bool, err error)) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		over, err := check(ctx)
		if err != nil && ctx.Err() == nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if over {
			return time.Since(began)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Errorf("after %s there is still no %s", patience, what)
			return time.Since(began)
		}
	}
}
