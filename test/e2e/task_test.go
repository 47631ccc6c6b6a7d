//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// wantCondition checks a condition. The message must contain the text.
func wantCondition(t *testing.T, status v1alpha1.TaskStatus, kind string, want metav1.ConditionStatus, reason, text string) {
	t.Helper()
	condition := meta.FindStatusCondition(status.Conditions, kind)
	if condition == nil {
		t.Fatalf("the status has no condition %s: %+v", kind, status.Conditions)
	}
	if diff := cmp.Diff([]string{string(want), reason}, []string{string(condition.Status), condition.Reason}); diff != "" {
		t.Errorf("condition %s (-want +got):\n%s", kind, diff)
	}
	if !strings.Contains(condition.Message, text) {
		t.Errorf("condition %s says %q, and not %q", kind, condition.Message, text)
	}
}

// wantEvent waits for an event on the Task.
func wantEvent(t *testing.T, task *v1alpha1.Task, reason, text string) {
	t.Helper()
	wait.For(t, "the event "+reason, func(ctx context.Context) error {
		var list eventsv1.EventList
		if err := cluster.List(ctx, &list, client.InNamespace(task.Namespace)); err != nil {
			return err
		}
		for _, event := range list.Items {
			if event.Regarding.UID == task.UID && event.Reason == reason && strings.Contains(event.Note, text) {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// TestREADMETask proves that the Task in the README runs as it is: three steps, the last one with the command of its image.
func TestREADMETask(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../config/samples/task.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var task v1alpha1.Task
	if err := yaml.UnmarshalStrict(content, &task); err != nil {
		t.Fatal(err)
	}
	task.Namespace = cluster.NewNamespace(t, "baseline")
	cluster.Make(t, &task)
	status := cluster.AwaitTask(t, &task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))

	wantCondition(t, status, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonStepsSucceeded, "all steps")
	var count strings.Builder
	for i := range 100 {
		fmt.Fprintf(&count, "This is demo job number %d\n", i+1)
	}
	for step, want := range map[string]string{"step1": "step1\n", "step2": "step2\n", "step3": count.String()} {
		if diff := cmp.Diff(want, cluster.Log(t, task.Namespace, task.Name, step)); diff != "" {
			t.Errorf("log of %s (-want +got):\n%s", step, diff)
		}
	}
	wantEvent(t, &task, v1alpha1.ReasonPodCreated, task.Name)
	wantEvent(t, &task, v1alpha1.ConditionComplete, "all steps")
}

// TestRestrictedNamespace proves that a Task runs in a namespace with PodSecurity restricted if the user's own containers may run there,
// even with images that contain a single program.
func TestRestrictedNamespace(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "restricted")
	program, err := argvProgram()
	if err != nil {
		t.Fatal(err)
	}
	bare, err := oci.Image(oci.HostPlatform(), []oci.File{{Path: "argv", Mode: 0o755, Content: program}}, v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	security := &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   new(true),
	}
	shell := harness.Shell("shell", "id -u")
	noShell := corev1.Container{Name: "no-shell", Image: push(t, clusterRegistry+"/e2e/bare:1", bare), Command: []string{"/argv"}}
	shell.SecurityContext, noShell.SecurityContext = security, security
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(namespace, "restricted-"+delivery, shell, noShell)
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				RunAsUser:      new(int64(12345)),
				FSGroup:        new(int64(23456)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}}}
			deliver(&task.Spec, delivery)
			cluster.Make(t, task)
			cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
			if diff := cmp.Diff("12345\n", cluster.Log(t, namespace, task.Name, "shell")); diff != "" {
				t.Errorf("the step's user (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff("0 \"/argv\"\nin / as 12345:0, GREETING=\"\"\n", cluster.Log(t, namespace, task.Name, "no-shell")); diff != "" {
				t.Errorf("what the program without a shell prints (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusedPod proves that a Task reports why PodSecurity refuses its Pod, and that it runs once the reason is gone.
func TestRefusedPod(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "restricted")
	task := harness.NewTask(namespace, "refused", harness.Shell("only", "true"))
	cluster.Make(t, task)
	refused := func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonPodRefused
	}
	status := cluster.AwaitTask(t, task, "the refusal", refused)
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonPodRefused, "violates PodSecurity")
	wantEvent(t, task, v1alpha1.ReasonPodRefused, "violates PodSecurity")
	wantNoPod(t, task)

	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`))
	if err := cluster.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, patch); err != nil {
		t.Fatal(err)
	}
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
}

func wantNoPod(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &corev1.Pod{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("there is a Pod %s: %v", task.Name, err)
	}
}

// TestWaitingTasks proves that a Task which can't run has one sentence about it in a condition and in an event.
func TestWaitingTasks(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		step   corev1.Container
		reason string
		text   string
		pod    bool
	}{
		"the image doesn't exist": {
			step:   corev1.Container{Name: "only", Image: "nobody/has-this:1", Command: []string{"true"}},
			reason: "ImagePullBackOff",
			text:   `container "only" cannot start`,
			pod:    true,
		},
		"the command of the image isn't known, since its registry can't be reached": {
			step:   corev1.Container{Name: "only", Image: "registry.invalid/team/image:1"},
			reason: v1alpha1.ReasonEntrypointUnresolved,
			text:   `step "only": image "registry.invalid/team/image:1" cannot be resolved: registry.invalid is unreachable, is not trusted, or does not answer in time; fix image, or set command`,
		},
		"no node takes the Pod": {
			step: corev1.Container{Name: "only", Image: "busybox:1.28", Command: []string{"true"}, Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000")},
			}},
			reason: "Unschedulable",
			text:   "the Pod is unschedulable: 0/1 nodes are available",
			pod:    true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "waiting", test.step)
			cluster.Make(t, task)
			status := cluster.AwaitTask(t, task, "the reason "+test.reason, func(status v1alpha1.TaskStatus) bool {
				condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
				return condition != nil && condition.Reason == test.reason && condition.Status == metav1.ConditionFalse
			})
			if diff := cmp.Diff(v1alpha1.TaskPending, status.Phase); diff != "" {
				t.Errorf("phase (-want +got):\n%s", diff)
			}
			wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, test.reason, test.text)
			wantEvent(t, task, test.reason, test.text)
			if !test.pod {
				wantNoPod(t, task)
			}
		})
	}
}

// TestOperatorIsReplacedInTheMiddle proves that the loss of the operator's Pods doesn't disturb a running step, and that the next steps run
// afterwards.
func TestOperatorIsReplacedInTheMiddle(t *testing.T) {
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 3)
	task.Spec.Steps[0] = recordingStep(0, "sleep 3")
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the first step to run", func(status v1alpha1.TaskStatus) bool {
		return len(status.Steps) == 3 && status.Steps[0].State == v1alpha1.StepRunning
	})

	losePods(t)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if wrong := disorder(readJournal(t, journal), 3); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
	wait.For(t, "the operator to be back", rolledOut)
}

// TestOperatorIsConfined proves that the operator has no privileges on its node. Its namespace enforces PodSecurity restricted, which
// covers everything except the root file system.
func TestOperatorIsConfined(t *testing.T) {
	var namespace corev1.Namespace
	if err := cluster.Get(t.Context(), client.ObjectKey{Name: harness.OperatorNamespace}, &namespace); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("restricted", namespace.Labels["pod-security.kubernetes.io/enforce"]); diff != "" {
		t.Errorf("PodSecurity of the operator's namespace (-want +got):\n%s", diff)
	}
	if !ptr.Deref(installedOperator(t).SecurityContext.ReadOnlyRootFilesystem, false) {
		t.Error("the root file system of the operator can be written to")
	}
	wait.For(t, "the operator to be available", rolledOut)
}

// TestSuspendResumeDelete proves that a suspended Task has no Pod until it is resumed, and that its Pod is deleted with it.
func TestSuspendResumeDelete(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "suspended", harness.Shell("only", "true"))
	task.Spec.Suspend = true
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to be suspended", harness.InPhase(v1alpha1.TaskSuspended))
	wantCondition(t, status, v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "spec.suspend")
	wantNoPod(t, task)

	before := task.DeepCopy()
	task.Spec.Suspend = false
	if err := cluster.Patch(t.Context(), task, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	status = cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	wantCondition(t, status, v1alpha1.ConditionSuspended, metav1.ConditionFalse, v1alpha1.ReasonResumed, "spec.suspend")

	if err := cluster.Delete(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the Pod to go with the Task", func(ctx context.Context) error {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &corev1.Pod{})
		if err == nil {
			return errors.New("it is still there")
		}
		return client.IgnoreNotFound(err)
	})
}

// TestPodIsDeletedInTheMiddle proves that a Task fails if its Pod is deleted while a step runs, and that no second Pod runs the first steps
// again.
func TestPodIsDeletedInTheMiddle(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	task.Spec.Steps[0] = recordingStep(0, "sleep 60")
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the first step to run", func(status v1alpha1.TaskStatus) bool {
		return len(status.Steps) == 2 && status.Steps[0].State == v1alpha1.StepRunning
	})
	if err := cluster.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: task.Name, Namespace: task.Namespace}}); err != nil {
		t.Fatal(err)
	}
	status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonPodDeleted, "was deleted before all steps had ended")
	wait.For(t, "the Pod to be gone", func(ctx context.Context) error {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &corev1.Pod{})
		if err == nil {
			return errors.New("it is still there")
		}
		return client.IgnoreNotFound(err)
	})
	want := map[int]bool{1: true}
	got := map[int]bool{}
	for step := range readJournal(t, journal) {
		got[step] = true
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("steps that began (-want +got):\n%s", diff)
	}
}
