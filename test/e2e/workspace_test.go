//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// newVolume creates a volume on the node, in a class of its own, and returns the class.
func newVolume(t *testing.T, namespace string) (class string) {
	t.Helper()
	dir, _ := sharedDir(t)
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              namespace,
			AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}},
		},
	}
	cluster.Make(t, volume)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), volume); err != nil {
			t.Errorf("deleting the volume: %v", err)
		}
	})
	return volume.Spec.StorageClassName
}

// sharingTask returns a Task whose second step reads what the first one left in the workspace.
func sharingTask(namespace, name string, workspace *v1alpha1.Workspace) *v1alpha1.Task {
	task := harness.NewTask(namespace, name,
		harness.Shell("writes", "echo hello >note; pwd"),
		in("/tmp", harness.Shell("reads", "cat /workspace/note; pwd")))
	task.Spec.Workspace = workspace
	return task
}

const shared = "/workspace\nhello\n/tmp\n"

// TestWorkspace proves that the steps of a Task share a directory, that steps without a working directory run there, and that it is on a
// claim if the Task says so. A claim of another owner fails the Task.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	size := resource.MustParse("1Gi")
	newClaim := func(t *testing.T, namespace, name, class string) {
		t.Helper()
		cluster.Make(t, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: &class,
				AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
			},
		})
	}
	succeeds := func(t *testing.T, task *v1alpha1.Task) {
		t.Helper()
		cluster.Make(t, task)
		cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
		if diff := cmp.Diff(shared, output(t, task.Namespace, task.Name, "writes", "reads")); diff != "" {
			t.Errorf("output (-want +got):\n%s", diff)
		}
	}
	t.Run("emptyDir", func(t *testing.T) {
		t.Parallel()
		succeeds(t, sharingTask(cluster.NewNamespace(t, "baseline"), "empty", &v1alpha1.Workspace{}))
	})
	t.Run("size", func(t *testing.T) {
		t.Parallel()
		namespace := cluster.NewNamespace(t, "baseline")
		task := sharingTask(namespace, "sized", &v1alpha1.Workspace{Size: &size, StorageClassName: new(newVolume(t, namespace))})
		succeeds(t, task)
		var claim corev1.PersistentVolumeClaim
		if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "sized-workspace"}, &claim); err != nil {
			t.Fatal(err)
		}
		if !metav1.IsControlledBy(&claim, task) {
			t.Errorf("the claim has the owners %+v", claim.OwnerReferences)
		}
	})
	t.Run("claimName", func(t *testing.T) {
		t.Parallel()
		namespace := cluster.NewNamespace(t, "baseline")
		newClaim(t, namespace, "mine", newVolume(t, namespace))
		succeeds(t, sharingTask(namespace, "claimed", &v1alpha1.Workspace{ClaimName: "mine"}))
	})
	t.Run("size, in a Pod that names the Task", func(t *testing.T) {
		t.Parallel()
		namespace := cluster.NewNamespace(t, "baseline")
		task := sharingTask(namespace, "sized", &v1alpha1.Workspace{Size: &size, StorageClassName: new(newVolume(t, namespace))})
		task.Spec.Suspend = true
		cluster.Make(t, task)
		pod := harness.NewPod(namespace, "names", corev1.Container{Name: "task", Image: "task"})
		pod.Labels = map[string]string{contract.TaskLabel: task.Name}
		cluster.Make(t, pod)
		cluster.AwaitPod(t, pod, corev1.PodSucceeded)
		if diff := cmp.Diff(shared, output(t, namespace, pod.Name, "writes", "reads")); diff != "" {
			t.Errorf("output (-want +got):\n%s", diff)
		}
	})
	t.Run("a claim of another owner", func(t *testing.T) {
		t.Parallel()
		namespace := cluster.NewNamespace(t, "baseline")
		newClaim(t, namespace, "sized-workspace", "nowhere")
		task := sharingTask(namespace, "sized", &v1alpha1.Workspace{Size: &size})
		cluster.Make(t, task)
		status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
		wantInEnd(t, status, "sized-workspace")
	})
}

// TestStepTemplateAndParams proves that all steps get what stepTemplate and params have, that a step's own fields take precedence, and that a
// Pod that names the Task overrides single options and variables.
func TestStepTemplateAndParams(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	says := `echo "$DAY $SHARED $OWN in $(pwd)"`
	task := harness.NewTask(namespace, "template", harness.Shell("first", says), in("/", harness.Shell("second", says)), harness.Shell("third", says))
	task.Spec.Params = []v1alpha1.Param{{Name: "DAY", Value: "monday"}}
	task.Spec.StepTemplate = &v1alpha1.StepTemplate{
		Image: "busybox:1.28", WorkingDir: "/tmp", Retries: new(int32(1)),
		Env: []corev1.EnvVar{{Name: "SHARED", Value: "shared"}, {Name: "OWN", Value: "template"}},
	}
	for i := range task.Spec.Steps {
		task.Spec.Steps[i].Image = ""
	}
	task.Spec.Steps[1].Env = []corev1.EnvVar{{Name: "OWN", Value: "second"}, {Name: "DAY", Value: "tuesday"}}
	task.Spec.Steps[1].OnError = v1alpha1.OnErrorContinue
	task.Spec.Steps[1].Command[2] += "; exit 3"
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	want := []string{"first Succeeded Completed 0", "second Failed Error 3, 1 retries", "third Succeeded Completed 0"}
	if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	const (
		second   = "tuesday shared second in /\n"
		template = "monday shared template in /tmp\n"
		retry    = "agent: the command failed with exit code 3; retry 1 of 1 starts in 1s\n" // on stderr, which has no order with stdout
	)
	if diff := cmp.Diff(template+second+second+template, strings.Replace(output(t, namespace, task.Name, "first", "second", "third"), retry, "", 1)); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}

	pod := harness.NewPod(namespace, "names", corev1.Container{Name: "third", Image: "busybox:1.28", Env: []corev1.EnvVar{{Name: "DAY", Value: "friday"}}})
	pod.Labels = map[string]string{contract.TaskLabel: task.Name}
	pod.Annotations = map[string]string{contract.StepsAnnotation: "- name: first\n- {name: second, retries: 0, exitCodes: [{in: [3], then: Finish}]}\n- third\n"}
	cluster.Make(t, pod)
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
	if diff := cmp.Diff(template+second, output(t, namespace, pod.Name, "first", "second", "third")); diff != "" {
		t.Errorf("output of the Pod (-want +got):\n%s", diff)
	}
	pod = harness.NewPod(namespace, "overrides", corev1.Container{Name: "third", Image: "busybox:1.28", Env: []corev1.EnvVar{{Name: "DAY", Value: "friday"}}})
	pod.Labels = map[string]string{contract.TaskLabel: task.Name}
	pod.Annotations = map[string]string{contract.StepsAnnotation: "[third]"}
	cluster.Make(t, pod)
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
	if diff := cmp.Diff("friday shared template in /tmp\n", output(t, namespace, pod.Name, "third")); diff != "" {
		t.Errorf("output of the Pod (-want +got):\n%s", diff)
	}
}
