//go:build e2e

package attack

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/node"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// The attacker has taskflow's own ClusterRole taskflow-edit in a namespace and no other right: Tasks, but no Pods and no Secrets.

// TestTaskEditorWritesNoStatus has a user with taskflow-edit forge a Task's status, and the annotations and labels of its Pod. All of it is
// refused.
func TestTaskEditorWritesNoStatus(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithClusterRole(t, namespace, "taskflow-edit")
	task := harness.NewTask(namespace, "task", harness.Shell("only", "true"))
	task.Spec.Suspend = true
	if err := user.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	done := client.RawPatch(types.MergePatchType, []byte(`{"status":{"phase":"Succeeded","podName":"other"}}`))
	if err := user.Status().Patch(t.Context(), task.DeepCopy(), done); err == nil {
		t.Error("the status was written")
	}
	if err := user.Patch(t.Context(), task.DeepCopy(), done); err == nil { // ignored: the status is a subresource
		cluster.AwaitTask(t, task, "the Task to be suspended", harness.InPhase(v1alpha1.TaskSuspended))
	}
	for key := range map[string]bool{contract.OrderAnnotation: true, contract.HaltAnnotation: true, contract.StepsAnnotation: true, contract.OptionsAnnotation: true} {
		forged := harness.NewTask(namespace, "forged", harness.Shell("only", "true"))
		forged.Spec.Template = &v1alpha1.PodTemplate{}
		forged.Spec.Template.Metadata.Annotations = map[string]string{key: "1"}
		if err := user.Create(t.Context(), forged, client.DryRunAll); err == nil {
			t.Errorf("a Task whose Pod has the annotation %s was accepted", key)
		}
	}
	for _, label := range []string{contract.SequentialLabel, contract.TaskLabel} {
		forged := harness.NewTask(namespace, "forged", harness.Shell("only", "true"))
		forged.Spec.Template = &v1alpha1.PodTemplate{}
		forged.Spec.Template.Metadata.Labels = map[string]string{label: "false"}
		if err := user.Create(t.Context(), forged, client.DryRunAll); err == nil {
			t.Errorf("a Task whose Pod has the label %s was accepted", label)
		}
	}
}

// TestTaskEditorBreaksOut has a user with taskflow-edit create Tasks that request more than the namespace allows. The operator creates
// their Pods, and PodSecurity refuses them like the user's own Pods.
func TestTaskEditorBreaksOut(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithClusterRole(t, namespace, "taskflow-edit")
	for name, change := range map[string]func(*v1alpha1.Task){
		"privileged": func(task *v1alpha1.Task) {
			task.Spec.Steps[0].SecurityContext = &corev1.SecurityContext{Privileged: new(true)}
		},
		"host-network": func(task *v1alpha1.Task) {
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{HostNetwork: true}}
		},
		"host-path": func(task *v1alpha1.Task) {
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
				{Name: "root", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}},
			}}}
		},
		"the-operators-priority": func(task *v1alpha1.Task) {
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{PriorityClassName: "taskflow-operator"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(namespace, name, harness.Shell("only", "true"))
			change(task)
			if err := user.Create(t.Context(), task); err != nil {
				t.Logf("the Task was refused: %v", err)
				return
			}
			cluster.AwaitTask(t, task, "the Pod to be refused", func(status v1alpha1.TaskStatus) bool {
				condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
				return condition != nil && (condition.Reason == v1alpha1.ReasonPodRefused || condition.Reason == v1alpha1.ReasonPodInvalid) ||
					meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionFailed)
			})
			if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &corev1.Pod{}); err == nil {
				t.Error("the Task has a Pod")
			}
		})
	}
}

// TestTaskEditorFillsTheMemory has a user with taskflow-edit create suspended Tasks with 400,000 tolerations each. They are refused, or
// they cost the operator's replicas less than their own size.
func TestTaskEditorFillsTheMemory(t *testing.T) {
	const tasks, tolerations, bound = 4, 400_000, 24 << 20
	before := replicas(t)
	start := map[int]int64{}
	for _, r := range before {
		peak, err := node.PeakMemory(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		start[r.pid] = peak
	}
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithClusterRole(t, namespace, "taskflow-edit")
	refused, slowest := 0, time.Duration(0)
	for i := range tasks {
		began := time.Now()
		task := harness.NewTask(namespace, fmt.Sprintf("big-%d", i), harness.Shell("only", "true"))
		task.Spec.Suspend = true
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Tolerations: make([]corev1.Toleration, tolerations)}}
		if err := user.Create(t.Context(), task); err != nil {
			refused++
			if len(err.Error()) > 2048 {
				t.Errorf("the refusal has %d bytes", len(err.Error()))
			}
		}
		slowest = max(slowest, time.Since(began))
	}
	later := harness.NewTask(namespace, "later", harness.Shell("only", "true"))
	cluster.Make(t, later)
	cluster.AwaitTask(t, later, "a later Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	t.Logf("%d of %d Tasks were refused, each within %s", refused, tasks, slowest.Round(time.Millisecond))
	for _, r := range before {
		peak, err := node.PeakMemory(r.pid)
		if err != nil {
			t.Fatalf("the operator %s has died: %v", r.pod, err)
		}
		if grown := peak - start[r.pid]; grown > bound {
			t.Errorf("the memory of %s has grown by %d MiB", r.pod, grown>>20)
		}
	}
	wantUnharmed(t, before)
}

// TestTaskEditorMultipliesTheMemory has a user with taskflow-edit create Tasks whose stepTemplate has a megabyte, for each of 100 steps. They are
// refused, and cost the operator's replicas little memory.
func TestTaskEditorMultipliesTheMemory(t *testing.T) {
	const tasks, steps, size = 8, 100, 1 << 20
	before := replicas(t)
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithClusterRole(t, namespace, "taskflow-edit")
	for i := range tasks {
		task := harness.NewTask(namespace, fmt.Sprintf("big-%d", i), harness.Shell("only", "true"))
		task.Spec.StepTemplate = &v1alpha1.StepTemplate{Env: []corev1.EnvVar{{Name: "A", Value: strings.Repeat("a", size)}}}
		for n := 1; n < steps; n++ {
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: harness.Shell(fmt.Sprintf("s%d", n), "true")})
		}
		err := user.Create(t.Context(), task)
		if want := "put large values into a ConfigMap, and name it in envFrom"; err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("the error is %v, want one that ends in %q", err, want)
		}
	}
	wantUnharmed(t, before)
}

// TestTaskEditorSilencesTheController has a user with taskflow-edit create Tasks whose messages are longer than a status may hold. Each
// Task reports its problem within seconds, in a readable message.
func TestTaskEditorSilencesTheController(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A", 40_000)
	for name, change := range map[string]func(*v1alpha1.Task){
		"an-invalid-env-name": func(task *v1alpha1.Task) {
			task.Spec.Steps[0].Env = []corev1.EnvVar{{Name: "=" + long, Value: "x"}}
		},
		"a-missing-key": func(task *v1alpha1.Task) {
			task.Spec.Steps[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Key: "a",
			}}}}
		},
		"a-sidecars-command": func(task *v1alpha1.Task) {
			// The runtime's message repeats the name. With 40,000 characters the runtime itself hangs, and the Pod's status has no message.
			task.Spec.Sidecars = []corev1.Container{{Name: "sidecar", Image: "busybox:1.28", Command: []string{"/" + long[:17_000]}}}
		},
		"a-steps-command": func(task *v1alpha1.Task) { task.Spec.Steps[0].Command = []string{"/" + long} },
		"a-steps-directory": func(task *v1alpha1.Task) {
			task.Spec.Steps[0].WorkingDir = "/" + long
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := cluster.NewNamespace(t, "baseline")
			user := cluster.WithClusterRole(t, namespace, "taskflow-edit")
			task := harness.NewTask(namespace, name, harness.Shell("only", "true"))
			change(task)
			if err := user.Create(t.Context(), task); err != nil {
				t.Logf("the Task was refused: %.200s", err)
				return
			}
			wait.For(t, "the Task to say what is wrong", func(ctx context.Context) error {
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
					return err
				}
				for _, condition := range task.Status.Conditions {
					isWrong := condition.Type == v1alpha1.ConditionFailed && condition.Status == "True" || condition.Type == v1alpha1.ConditionProgressing && condition.Status == "False"
					if isWrong && condition.Message != "" {
						if len(condition.Message) > 4096 {
							t.Errorf("the condition %s has a message of %d bytes", condition.Type, len(condition.Message))
						}
						return nil
					}
				}
				return fmt.Errorf("its conditions are %.500v", task.Status.Conditions)
			})
		})
	}
}
