//go:build e2e

package e2e

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// ending is how a Task and its first step end.
type ending struct {
	Phase    v1alpha1.TaskPhase
	Failed   string // the condition's reason
	State    v1alpha1.StepState
	Reason   string
	ExitCode int32 // noExitCode: the step has no exit code
}

const noExitCode = -1

// endingOf returns how a failed Task and its first step ended, and what the Task says.
func endingOf(t *testing.T, status v1alpha1.TaskStatus) (e ending, message string) {
	t.Helper()
	failed := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
	if failed == nil {
		t.Fatalf("the Task has not failed: %+v", status)
	}
	first := status.Steps[0]
	return ending{status.Phase, failed.Reason, first.State, first.Reason, ptr.Deref(first.ExitCode, noExitCode)}, failed.Message
}

// endingCase is a failure of the step "ends".
type endingCase struct {
	step corev1.Container
	edit func(*v1alpha1.Task)
	// meanwhile runs once the step runs.
	meanwhile func(*testing.T, *v1alpha1.Task)
	want      ending
	message   string // or a part of the message
	logs      string // a part of the step's log
	podGoes   bool
	// both runs the case with both deliveries, if they can make a difference.
	both bool
	// slow cases start first: they wait for --start-grace-period of `make deploy-local`, or for beginLimit.
	slow bool
	// told is what a final step is told. Empty: it has no time to run.
	told string
}

// begin creates the Task, whose first step is the case's, and does what the case does while that runs.
func (c endingCase) begin(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	cluster.Make(t, task)
	if c.meanwhile == nil {
		return
	}
	cluster.AwaitTask(t, task, "the step to run", func(status v1alpha1.TaskStatus) bool {
		return len(status.Steps) > 0 && status.Steps[0].State == v1alpha1.StepRunning
	})
	c.meanwhile(t, task)
}

// task returns a Task with the case's step, and one more.
func (c endingCase) task(t *testing.T, delivery string) (task *v1alpha1.Task, journal string) {
	t.Helper()
	task, journal = recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	deliver(&task.Spec, delivery)
	task.Spec.Steps[0] = v1alpha1.Step{Container: c.step}
	task.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(2))
	if c.edit != nil {
		c.edit(task)
	}
	return task, journal
}

// endings are the failures of a step that one node can produce.
var endings = map[string]endingCase{
	"exit code": {
		step:    harness.Shell("ends", "exit 42"),
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "Error", 42},
		message: `step "ends" failed with exit code 42`,
		both:    true,
		told:    "Failed [ends]",
	},
	"killed by a signal": {
		step:    harness.Shell("ends", "kill -9 $$$$"), // the kubelet replaces $$ by $
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "Error", 137},
		message: `step "ends" failed with exit code 137`,
		told:    "Failed [ends]",
	},
	"out of memory": {
		step: withMemory(harness.Shell("ends", "tail /dev/zero"), "24Mi"),
		want: ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "OOMKilled", 137},
		both: true,
		told: "Failed [ends]",
	},
	"killed with its agent": {
		step:      harness.Shell("ends", "sleep 1000"),
		meanwhile: killAgent,
		want:      ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "Error", 137},
		both:      true,
		told:      "Failed [ends]",
	},
	"command not found": {
		step:    corev1.Container{Name: "ends", Image: "busybox:1.28", Command: []string{"no-such-command"}},
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "StartError", 127},
		message: `step "ends" failed with exit code 127 (StartError): starting "no-such-command": not found in PATH`,
		both:    true,
		told:    "Failed [ends]",
	},
	"command not executable": {
		step:    corev1.Container{Name: "ends", Image: "busybox:1.28", Command: []string{"/etc/passwd"}},
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "StartError", 126},
		message: `permission denied`,
		told:    "Failed [ends]",
	},
	"image with an invalid name": {
		step:    corev1.Container{Name: "ends", Image: "Not:A:Name", Command: []string{"true"}},
		want:    ending{v1alpha1.TaskFailed, "InvalidImageName", v1alpha1.StepFailed, "InvalidImageName", noExitCode},
		message: `container "ends" cannot start`,
		told:    "Failed [ends]",
	},
	"image that can't be pulled": {
		step:    corev1.Container{Name: "ends", Image: "nobody/has-this:1", Command: []string{"true"}},
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonImagePullBackOff, v1alpha1.StepFailed, v1alpha1.ReasonImagePullBackOff, noExitCode},
		message: `container "ends" cannot start`,
		both:    true,
		slow:    true,
		told:    "Failed [ends]",
	},
	"ConfigMap that stays missing": {
		step: corev1.Container{Name: "ends", Image: "busybox:1.28", Command: []string{"true"}, EnvFrom: []corev1.EnvFromSource{{
			ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}},
		}}},
		want:    ending{v1alpha1.TaskFailed, "CreateContainerConfigError", v1alpha1.StepFailed, "CreateContainerConfigError", noExitCode},
		message: `configmap "missing" not found`,
		slow:    true,
		told:    "Failed [ends]",
	},
	"container that can't be started": {
		step: corev1.Container{Name: "ends", Image: "busybox:1.28", Command: []string{"true"}, WorkingDir: "/etc/passwd/below"},
		want: ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "StartError", 128},
		both: true,
		told: "Failed [ends]",
	},
	"timeout of the step": {
		step: harness.Shell("ends", "trap 'exit 0' TERM; sleep 1000 & wait"),
		edit: func(task *v1alpha1.Task) {
			task.Spec.Steps[0].Timeout = &metav1.Duration{Duration: time.Second}
		},
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonStepFailed, v1alpha1.StepFailed, "TimedOut", 124},
		message: `took longer than its timeout of 1s`,
		told:    "Failed [ends]",
	},
	"timeout of the Task": {
		step: harness.Shell("ends", "sleep 1000"),
		edit: func(task *v1alpha1.Task) {
			task.Spec.Timeout = &metav1.Duration{Duration: beginLimit}
		},
		want: ending{v1alpha1.TaskFailed, "DeadlineExceeded", v1alpha1.StepFailed, "DeadlineExceeded", 143},
		slow: true,
		told: "Failed [ends]",
	},
	"cancelled": {
		step:      harness.Shell("ends", "echo at work; sleep 1000"),
		meanwhile: cancelTask,
		want:      ending{v1alpha1.TaskCancelled, v1alpha1.ReasonCancelled, v1alpha1.StepFailed, "Cancelled", 143},
		message:   "spec.cancel is true",
		logs:      "at work",
		told:      "Cancelled []",
	},
	"cancelled, and deaf to SIGTERM": {
		step:      harness.Shell("ends", "trap '' TERM; while :; do sleep 0.1; done"),
		meanwhile: cancelTask,
		want:      ending{v1alpha1.TaskCancelled, v1alpha1.ReasonCancelled, v1alpha1.StepFailed, "Cancelled", 137},
		told:      "Cancelled []",
	},
	"evicted through the API": {
		step: harness.Shell("ends", "sleep 1000"),
		meanwhile: func(t *testing.T, task *v1alpha1.Task) {
			eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: task.Name, Namespace: task.Namespace}}
			if err := cluster.Clientset.CoreV1().Pods(task.Namespace).EvictV1(t.Context(), eviction); err != nil {
				t.Fatal(err)
			}
		},
		want:    ending{v1alpha1.TaskFailed, "EvictionByEvictionAPI", v1alpha1.StepFailed, "EvictionByEvictionAPI", noExitCode},
		message: "was deleted: Eviction API: evicting",
		podGoes: true,
	},
	"evicted by the kubelet": {
		step: harness.Shell("ends", "head -c 20000000 /dev/zero >/tmp/too-much; sleep 1000"),
		edit: func(task *v1alpha1.Task) { // more than the copy of the agent takes, which counts as well
			task.Spec.Steps[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse("8Mi")}
		},
		want:    ending{v1alpha1.TaskFailed, "Evicted", v1alpha1.StepFailed, "Evicted", 143},
		message: "the Pod failed: Pod ephemeral local storage usage exceeds the total limit of containers 8Mi",
	},
	"preempted by another Pod": {
		step: harness.Shell("ends", "sleep 1000"),
		edit: func(task *v1alpha1.Task) {
			task.Spec.Steps[0].Resources.Limits = corev1.ResourceList{slot: resource.MustParse("1")}
		},
		meanwhile: preempt,
		want:      ending{v1alpha1.TaskFailed, "PreemptionByScheduler", v1alpha1.StepFailed, "PreemptionByScheduler", noExitCode},
		message:   "was deleted: default-scheduler: preempting to accommodate a higher priority pod",
		podGoes:   true,
	},
	"deleted by hand": {
		step: harness.Shell("ends", "sleep 1000"),
		meanwhile: func(t *testing.T, task *v1alpha1.Task) {
			if err := cluster.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: task.Name, Namespace: task.Namespace}}); err != nil {
				t.Fatal(err)
			}
		},
		want:    ending{v1alpha1.TaskFailed, v1alpha1.ReasonPodDeleted, v1alpha1.StepFailed, v1alpha1.ReasonPodDeleted, noExitCode},
		message: "was deleted before all steps had ended",
		podGoes: true,
	},
}
