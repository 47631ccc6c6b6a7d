//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

func awaitPod(t *testing.T, task *v1alpha1.Task) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	wait.For(t, "the Pod", func(ctx context.Context) error {
		return cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod)
	})
	return &pod
}

func awaitFailed(t *testing.T, task *v1alpha1.Task) *metav1.Condition {
	t.Helper()
	status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
	return meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
}

// awaitOrder waits for the order, and returns the halt that came with it.
func awaitOrder(t *testing.T, pod *corev1.Pod, order string) (halt string) {
	t.Helper()
	wait.For(t, "order "+order, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if got := pod.Annotations[contract.OrderAnnotation]; got != order {
			return fmt.Errorf("the order is %q", got)
		}
		return nil
	})
	return pod.Annotations[contract.HaltAnnotation]
}

// setStates writes a Pod's status as a kubelet does, with one state for each container.
func setStates(t *testing.T, pod *corev1.Pod, phase corev1.PodPhase, states ...corev1.ContainerState) {
	t.Helper()
	before := pod.DeepCopy()
	pod.Status.Phase = phase
	pod.Status.ContainerStatuses = nil
	for i, state := range states {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: pod.Spec.Containers[i].Name, State: state, ImageID: "busybox@sha256:1", Image: "busybox",
		})
	}
	if err := cluster.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
}

func ended(code int32) corev1.ContainerState {
	reason := "Completed"
	if code != 0 {
		reason = "Error"
	}
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, StartedAt: metav1.Now(), FinishedAt: metav1.Now(),
	}}
}

// TestPodOfATask proves that a Task's Pod has the Task's name, is owned by it, and is mutated by the webhook.
func TestPodOfATask(t *testing.T) {
	task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "made", "a", "b")
	pod := awaitPod(t, task)
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.UID != task.UID {
		t.Errorf("the Pod's owner is %+v", owner)
	}
	want := map[string]string{contract.StepsAnnotation: "a,b", contract.OrderAnnotation: "1", contract.TaskUIDAnnotation: string(task.UID)}
	if diff := cmp.Diff(want, pod.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(task.Name, pod.Labels[contract.TaskLabel]); diff != "" {
		t.Errorf("label (-want +got):\n%s", diff)
	}
	for i, container := range pod.Spec.Containers {
		flags, err := contract.ParseAgentFlags(container.Args)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"echo", task.Spec.Steps[i].Name}, flags.Command); diff != "" {
			t.Errorf("command behind the agent (-want +got):\n%s", diff)
		}
	}
}

// TestOrderFollowsTheSteps proves that the order follows the ends of the containers one by one, and that the Task's status follows the Pod.
func TestOrderFollowsTheSteps(t *testing.T) {
	task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "ordered", "a", "b", "c")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, running(), running(), running())
	cluster.AwaitTask(t, task, "step a", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "a" && s.Progress == "0/3" })
	setStates(t, pod, corev1.PodRunning, ended(0), running(), running())
	awaitOrder(t, pod, "2")
	cluster.AwaitTask(t, task, "step b", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "b" && s.Progress == "1/3" && s.Order == 2 })
	setStates(t, pod, corev1.PodRunning, ended(0), ended(0), running())
	awaitOrder(t, pod, "3")
	setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0), ended(0))
	status := cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
	if status.CompletionTime == nil || status.StartTime == nil || status.Duration == "" || status.CurrentStep != "" {
		t.Errorf("the status at the end is %+v", status)
	}
	if !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionComplete) {
		t.Errorf("the conditions at the end are %+v", status.Conditions)
	}
}

// TestFailureHalts proves that a container with an exit code other than 0 halts the sequence, regardless of the kubelet's reason.
func TestFailureHalts(t *testing.T) {
	for name, test := range map[string]struct {
		end  corev1.ContainerState
		want string
	}{
		"error":         {end: ended(1), want: `step "a" failed with exit code 1`},
		"out of memory": {end: withReason(ended(137), "OOMKilled"), want: `step "a" failed with exit code 137 (OOMKilled)`},
		"odd reason":    {end: withReason(ended(2), "Completed"), want: `step "a" failed with exit code 2 (Completed)`},
	} {
		t.Run(name, func(t *testing.T) {
			task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "failing", "a", "b")
			pod := awaitPod(t, task)
			setStates(t, pod, corev1.PodRunning, test.end, running())
			failed := awaitFailed(t, task)
			if diff := cmp.Diff([]string{v1alpha1.ReasonStepFailed, test.want}, []string{failed.Reason, failed.Message}); diff != "" {
				t.Errorf("condition (-want +got):\n%s", diff)
			}
			wait.For(t, "the halt", func(ctx context.Context) error {
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
					return err
				}
				want := map[string]string{contract.OrderAnnotation: "1", contract.HaltAnnotation: test.want, contract.StepsAnnotation: "a,b", contract.TaskUIDAnnotation: string(task.UID)}
				if diff := cmp.Diff(want, pod.Annotations); diff != "" {
					return fmt.Errorf("annotations (-want +got):\n%s", diff)
				}
				return nil
			})
			if diff := cmp.Diff(v1alpha1.StepSkipped, task.Status.Steps[1].State); diff != "" {
				t.Errorf("the step after it (-want +got):\n%s", diff)
			}
		})
	}
}

func withReason(state corev1.ContainerState, reason string) corev1.ContainerState {
	state.Terminated.Reason = reason
	return state
}

// TestOnFailure proves that a failed step which the kubelet restarts (restartPolicy OnFailure) doesn't fail the Task, and that later steps
// keep waiting.
func TestOnFailure(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "again", Namespace: namespace}}
	for _, name := range []string{"a", "b"} {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: corev1.Container{Name: name, Image: "x", Command: []string{"x"}}})
	}
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure}}
	cluster.Make(t, task)
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, ended(1), running())
	cluster.AwaitTask(t, task, "the reason of the first try", func(s v1alpha1.TaskStatus) bool {
		return len(s.Steps) == 2 && s.Steps[0].Reason == "Error" && s.Steps[0].State == v1alpha1.StepWaiting
	})
	setStates(t, pod, corev1.PodRunning, running(), running())
	setStates(t, pod, corev1.PodRunning, ended(0), running())
	if halt := awaitOrder(t, pod, "2"); halt != "" {
		t.Errorf("the Pod was halted: %s", halt)
	}
}

// TestPodNameConflict proves that a Pod of another owner is never touched.
func TestPodNameConflict(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	other := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "taken", Namespace: namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}},
	}
	cluster.Make(t, other)
	failed := awaitFailed(t, makeEchoTask(t, namespace, "taken", "a"))
	want := []string{v1alpha1.ReasonPodNameConflict, `Pod "taken" exists and does not belong to this Task; delete or rename it, then create the Task again`}
	if diff := cmp.Diff(want, []string{failed.Reason, failed.Message}); diff != "" {
		t.Errorf("condition (-want +got):\n%s", diff)
	}
	var after corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(other), &after); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(other.ResourceVersion, after.ResourceVersion); diff != "" {
		t.Errorf("the other Pod was changed (-want +got):\n%s", diff)
	}
}

// TestCreatedAgain proves that a Task which is created again right after its deletion waits until its old Pod is gone, and then runs.
func TestCreatedAgain(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	first := makeEchoTask(t, namespace, "again", "a")
	old := awaitPod(t, first)
	if err := cluster.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := makeEchoTask(t, namespace, "again", "a")
	cluster.AwaitTask(t, second, "the old Pod to be in the way", func(s v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonPodNameConflict
	})
	// envtest has no garbage collector.
	if err := cluster.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the new Pod", func(ctx context.Context) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(second), &pod); err != nil {
			return err
		}
		if owner := metav1.GetControllerOf(&pod); owner.UID != second.UID {
			return fmt.Errorf("it belongs to %s", owner.UID)
		}
		return nil
	})
}

// TestInvalidPod proves that a Task whose Pod the API server finds invalid fails with the API server's message, and has no Pod.
func TestInvalidPod(t *testing.T) {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "invalid", Namespace: cluster.NewNamespace(t, "privileged")}}
	task.Spec.Steps = []v1alpha1.Step{{Container: corev1.Container{
		Name: "a", Image: "x", Command: []string{"x"}, VolumeMounts: []corev1.VolumeMount{{Name: "missing", MountPath: "/x"}},
	}}}
	cluster.Make(t, task)
	failed := awaitFailed(t, task)
	if failed.Reason != v1alpha1.ReasonPodInvalid || !strings.Contains(failed.Message, `spec.containers[0].volumeMounts[0].name: Not found: "missing"`) {
		t.Errorf("the condition is %+v", failed)
	}
	wantNoPod(t, task)
}

// TestRefusedByTheWebhook proves that a refusal of the webhook is in the Task's status, and that the Task keeps waiting, because a user can
// fix the cause without changing the Task.
func TestRefusedByTheWebhook(t *testing.T) {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "refused", Namespace: cluster.NewNamespace(t, "privileged")}}
	task.Spec.Steps = []v1alpha1.Step{{Container: corev1.Container{
		Name: "a", Image: "x", Command: []string{"x"}, VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/taskflow"}},
	}}}
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data"}}}}
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the refusal", func(s v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonPodRefused
	})
	condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
	if want := `the container "a" mounts "data" at /taskflow, which is reserved for taskflow: choose another mountPath`; !strings.Contains(condition.Message, want) {
		t.Errorf("the condition says %q, and not %q", condition.Message, want)
	}
	wantNoPod(t, task)
}

// TestUnresolvedCommand proves that a Task waits, with the reason, while a command can't be looked up, and fails if no look-up can ever
// succeed.
func TestUnresolvedCommand(t *testing.T) {
	unresolved := func(t *testing.T, image string) *v1alpha1.Task {
		task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "unresolved", Namespace: cluster.NewNamespace(t, "privileged")}}
		task.Spec.Steps = []v1alpha1.Step{{Container: corev1.Container{Name: "a", Image: image}}}
		cluster.Make(t, task)
		return task
	}
	t.Run("its registry is down", func(t *testing.T) {
		task := unresolved(t, "127.0.0.1:1/image:1")
		status := cluster.AwaitTask(t, task, "the reason", func(s v1alpha1.TaskStatus) bool { return len(s.Conditions) > 0 })
		got := status.Conditions[0]
		want := []string{v1alpha1.ConditionProgressing, v1alpha1.ReasonEntrypointUnresolved, `step "a": image "127.0.0.1:1/image:1" cannot be resolved: 127.0.0.1:1 is unreachable, is not trusted, or does not answer in time; fix image, or set command; the operator's log has the cause`}
		if diff := cmp.Diff(want, []string{got.Type, got.Reason, got.Message}); diff != "" {
			t.Errorf("condition (-want +got):\n%s", diff)
		}
		wantNoPod(t, task)
	})
	t.Run("it has no valid name", func(t *testing.T) {
		task := unresolved(t, "NOT/VALID")
		failed := awaitFailed(t, task)
		want := []string{v1alpha1.ReasonEntrypointUnresolved, `step "a": image "NOT/VALID" has an invalid name; fix image`}
		if diff := cmp.Diff(want, []string{failed.Reason, failed.Message}); diff != "" {
			t.Errorf("condition (-want +got):\n%s", diff)
		}
		wantNoPod(t, task)
	})
}

func wantNoPod(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &corev1.Pod{}); !apierrors.IsNotFound(err) {
		t.Errorf("there is a Pod: %v", err)
	}
}

// TestOneWriteAChange proves that each change of the status is one write, and that an unchanged status isn't written: a watcher sees each
// state once.
func TestOneWriteAChange(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	watch, err := cluster.Watch(t.Context(), &v1alpha1.TaskList{}, client.InNamespace(namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	task := makeEchoTask(t, namespace, "counted", "a", "b")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, running(), running())
	cluster.AwaitTask(t, task, "step a", harness.InPhase(v1alpha1.TaskRunning))
	// A change of the Pod without effect on the Task causes no write.
	ready := func(status corev1.ConditionStatus) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastProbeTime: metav1.Now()}}
		}
	}
	writeStatus(t, pod, ready(corev1.ConditionTrue))
	writeStatus(t, pod, ready(corev1.ConditionFalse))
	setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0))
	cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))

	// Created, Pod created, step a runs, all ended (and perhaps the order 2 in between).
	var versions []string
	for deadline := time.After(patienceForEvents); ; {
		select {
		case event := <-watch.ResultChan():
			if task, ok := event.Object.(*v1alpha1.Task); ok {
				versions = append(versions, fmt.Sprintf("%s %s", task.Status.Phase, task.Status.Progress))
				if task.Status.Phase != v1alpha1.TaskSucceeded {
					continue
				}
			}
		case <-deadline:
		}
		break
	}
	if diff := cmp.Diff([]string{" ", "Pending 0/2", "Running 0/2", "Succeeded 2/2"}, versions); diff != "" {
		t.Errorf("versions of the Task (-want +got):\n%s", diff)
	}
	if got := ptr.Deref(task.Status.Steps[0].ExitCode, -1); got != 0 {
		t.Errorf("exit code of step a: %d", got)
	}

	// After the end, neither the Pod nor an edit of the Task causes a write.
	writeStatus(t, pod, ready(corev1.ConditionTrue))
	status := task.Status
	if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}},"spec":{"backoffLimit":1}}`))); err != nil {
		t.Fatal(err)
	}
	other := makeEchoTask(t, namespace, "other", "a") // created later: once this Task has its Pod, the operator has seen the other one
	awaitPod(t, other)
	var last v1alpha1.Task
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &last); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(task.ResourceVersion, last.ResourceVersion); diff != "" {
		t.Errorf("a Task that had ended was written (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(status, last.Status); diff != "" {
		t.Errorf("the status of a Task that had ended (-want +got):\n%s", diff)
	}
}

const patienceForEvents = 10 * time.Second
