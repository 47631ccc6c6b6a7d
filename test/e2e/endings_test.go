//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// settleLimit bounds the time from the kubelet's report of a container's end to the Task's report.
const settleLimit = 2 * time.Second

// beginLimit is longer than a Pod takes to start beside the Pods of all parallel tests. Timeouts that count from the Pod's creation use it.
const beginLimit = 30 * time.Second

// lostByKubelet is the message of a busy kubelet, with exit code 137, for a container that it evicted and removed before it read its exit
// code (ContainerStatusUnknown in pkg/kubelet/kubelet_pods.go).
const lostByKubelet = "The container could not be located when the pod was terminated"

// TestEndings proves for every failure of a step that one node can produce what Task and step report, that no later command runs, and that
// the report is prompt.
func TestEndings(t *testing.T) {
	t.Parallel()
	addSlot(t)
	run := func(t *testing.T, name, delivery string) {
		t.Helper()
		test := endings[name]
		t.Run(name+", "+delivery, func(t *testing.T) {
			t.Parallel()
			task, journal := test.task(t, delivery)
			settled := watchSettling(t, task)
			test.begin(t, task)
			status := cluster.AwaitTask(t, task, "the end", func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
			got, message := endingOf(t, status)
			if test.podGoes { // the container's end may be seen before or not
				got.ExitCode = noExitCode
			}
			want := test.want
			if want.Reason == "Evicted" && strings.Contains(status.Steps[0].Message, lostByKubelet) {
				want.ExitCode = 137
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ending (-want +got):\n%s\n%+v", diff, status)
			}
			if !strings.Contains(message, test.message) {
				t.Errorf("the condition says %q, and not %q", message, test.message)
			}
			if status.Steps[1].State != v1alpha1.StepSkipped {
				t.Errorf("the next step is %+v", status.Steps[1])
			}
			if took, ok := settled(); ok && took > settleLimit {
				t.Errorf("the Task took %s to say so", took)
			}
			wantEvent(t, task, test.want.Failed, test.message)
			if !test.podGoes {
				wait.For(t, "the Pod to end", func(ctx context.Context) error {
					var pod corev1.Pod
					if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
						return err
					}
					if pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodSucceeded {
						return fmt.Errorf("the Pod's phase is %s: %+v", pod.Status.Phase, pod.Status)
					}
					return nil
				})
			}
			if test.logs != "" {
				log, err := cluster.Clientset.CoreV1().Pods(task.Namespace).GetLogs(task.Name, &corev1.PodLogOptions{Container: "ends"}).DoRaw(t.Context())
				if err != nil || !strings.Contains(string(log), test.logs) {
					t.Errorf("the step's log is %q, and not %q (%v)", log, test.logs, err)
				}
			}
			if spans := readJournal(t, journal); len(spans) > 0 {
				t.Errorf("the next step has run: %v", spans)
			}
		})
	}
	for _, slow := range []bool{true, false} {
		for name, test := range endings {
			if test.slow != slow {
				continue
			}
			run(t, name, contract.DeliveryInit)
			if test.both {
				run(t, name, contract.DeliveryImage)
			}
		}
	}
}

// TestStoppedStepReleasesNobody proves that a step which is told to stop together with its Pod, and then exits with 0, doesn't release the
// next step, which is told later because of its preStop hook. The Task doesn't complete, although its last step exits with 0 when it is
// told to stop.
func TestStoppedStepReleasesNobody(t *testing.T) {
	t.Parallel()
	hold := &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}}}
	for name, stepsAfter := range map[string]int{"one follows": 1, "it is the last": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 1+stepsAfter)
			task.Spec.Steps[0] = v1alpha1.Step{Container: harness.Shell("ends", "trap 'exit 0' TERM; sleep 1000 & wait")}
			for i := range task.Spec.Steps[1:] {
				task.Spec.Steps[1+i].Lifecycle = hold
			}
			task.Spec.Timeout = &metav1.Duration{Duration: beginLimit}
			task.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(8))
			cluster.Make(t, task)
			status := cluster.AwaitTask(t, task, "the end", func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
			got := []string{string(status.Phase), string(status.Steps[0].State), status.Steps[0].Reason}
			if diff := cmp.Diff([]string{"Failed", "Failed", "DeadlineExceeded"}, got); diff != "" && stepsAfter == 0 {
				t.Errorf("the Task, its step, and why (-want +got):\n%s\n%+v", diff, status)
			}
			wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, "DeadlineExceeded", "longer than spec.timeout")
			if spans := readJournal(t, journal); len(spans) > 0 {
				t.Errorf("the next step has run: %v", spans)
			}
		})
	}
}

// TestLaterStepCantStart proves that a step whose container can't be started fails when its turn comes, after the steps before it have run.
func TestLaterStepCantStart(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 4)
	task.Spec.Steps[0] = recordingStep(0, "sleep 5")
	task.Spec.Steps[2].WorkingDir = "/etc/passwd/below"
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the end", func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
	got := []v1alpha1.StepState{}
	for _, step := range status.Steps {
		got = append(got, step.State)
	}
	want := []v1alpha1.StepState{v1alpha1.StepSucceeded, v1alpha1.StepSucceeded, v1alpha1.StepFailed, v1alpha1.StepSkipped}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonStepFailed, `step "step-3" failed with exit code 128 (StartError)`)
	if wrong := disorder(readJournal(t, journal), 2); len(wrong) > 0 {
		t.Errorf("the steps before it: %s", strings.Join(wrong, "\n"))
	}
}

// TestMissingConfigMap proves that a Task waits, with the reason, for a container that can't be created yet, and continues once the cause
// is fixed.
func TestMissingConfigMap(t *testing.T) {
	t.Parallel()
	step := harness.Shell("only", "echo $GREETING")
	step.Env = []corev1.EnvVar{{Name: "GREETING", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}, Key: "greeting",
	}}}}
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "waits", step)
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the reason", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == "CreateContainerConfigError"
	})
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, "CreateContainerConfigError", `configmap "missing" not found`)
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "missing", Namespace: task.Namespace}, Data: map[string]string{"greeting": "hello"}}
	cluster.Make(t, configMap)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
}
