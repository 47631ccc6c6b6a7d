//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
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

// prepares writes the status of a Pod whose kubelet has yet to prepare volumes and network.
func prepares(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	bind(t, pod)
	setStates(t, pod, corev1.PodPending, waiting("ContainerCreating", ""), waiting("ContainerCreating", ""))
	writeStatus(t, pod, func(pod *corev1.Pod) {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse})
	})
}

// report creates an event of the Pod, as its kubelet does.
func report(t *testing.T, pod *corev1.Pod, reason, message string) {
	t.Helper()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "report-", Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message,
		FirstTimestamp: metav1.Now(), LastTimestamp: metav1.Now(), Count: 1,
		Source: corev1.EventSource{Component: "kubelet", Host: "no-such-node"},
	}
	cluster.Make(t, event)
}

// TestSlowStart proves that a Task tells what its Pod waits for if the Pod doesn't start and doesn't change, and that a Task whose Pod
// lacks something fails after the start grace period.
func TestSlowStart(t *testing.T) {
	const missing = `MountVolume.SetUp failed for volume "keys" : secret "keys" not found`
	cases := map[string]struct {
		template corev1.PodSpec
		happens  func(*testing.T, *corev1.Pod)
		waits    string
		fails    bool
	}{
		"no scheduler": {
			template: corev1.PodSpec{SchedulerName: "nobody"},
			waits:    `False NoScheduler: no scheduler has handled the Pod: check spec.template.spec.schedulerName, and that a scheduler named "nobody" runs`,
		},
		"a scheduling gate": {
			template: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "example.com/quota"}}},
			waits:    "False SchedulingGated: the Pod is not scheduled before its scheduling gates are removed: example.com/quota",
		},
		"a node that is away": {
			happens: func(t *testing.T, pod *corev1.Pod) { bind(t, pod) },
			waits:   `False NodeNotResponding: the kubelet of node "no-such-node" has not reported on the Pod: check that the node exists and is ready`,
		},
		"a Secret is missing": {
			happens: func(t *testing.T, pod *corev1.Pod) {
				prepares(t, pod)
				report(t, pod, "FailedMount", missing)
			},
			waits: "False FailedMount: a volume cannot be mounted: " + missing,
			fails: true,
		},
		"a disk is attached elsewhere": {
			happens: func(t *testing.T, pod *corev1.Pod) {
				prepares(t, pod)
				report(t, pod, "FailedAttachVolume", "Multi-Attach error for volume x")
			},
			waits: "False FailedAttachVolume: a volume cannot be attached: Multi-Attach error for volume x",
		},
		"an init container runs": {
			template: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "prepare", Image: "x"}}},
			happens: func(t *testing.T, pod *corev1.Pod) {
				bind(t, pod)
				setStates(t, pod, corev1.PodPending, waiting("PodInitializing", ""), waiting("PodInitializing", ""))
				writeStatus(t, pod, func(pod *corev1.Pod) {
					pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", State: running()}}
				})
			},
			waits: `True InitContainerRunning: init container "prepare" is running, and the steps wait for its end`,
		},
		"a sidecar isn't started": {
			template: corev1.PodSpec{InitContainers: []corev1.Container{{
				Name: "db", Image: "x", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways),
				StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}},
			}}},
			happens: func(t *testing.T, pod *corev1.Pod) {
				bind(t, pod)
				setStates(t, pod, corev1.PodPending, waiting("PodInitializing", ""), waiting("PodInitializing", ""))
				writeStatus(t, pod, func(pod *corev1.Pod) {
					pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "db", State: running(), Started: new(false)}}
				})
			},
			waits: `False SidecarNotStarted: sidecar "db" has not started: its startupProbe has not succeeded`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.Template = &v1alpha1.PodTemplate{Spec: c.template} })
			pod := awaitPod(t, task)
			if c.happens != nil {
				c.happens(t, pod)
			}
			cluster.AwaitTask(t, task, "the cause", func(s v1alpha1.TaskStatus) bool {
				condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
				return condition != nil && fmt.Sprintf("%s %s: %s", condition.Status, condition.Reason, condition.Message) == c.waits
			})
			if !c.fails {
				return
			}
			failed := awaitFailed(t, task)
			want := c.waits + "; this lasted 3s (--start-grace-period); the Task has failed: fix the cause, then create the Task again"
			if diff := cmp.Diff(want, "False "+failed.Reason+": "+failed.Message); diff != "" {
				t.Errorf("the condition Failed (-want +got):\n%s", diff)
			}
			awaitUnstartedEnd(t, pod, "a volume cannot be mounted: "+missing)
		})
	}
}

// awaitUnstartedEnd waits until a Pod that has not started is halted and told to end.
func awaitUnstartedEnd(t *testing.T, pod *corev1.Pod, halt string) {
	t.Helper()
	wait.For(t, "the Pod to be ended", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if got := pod.Annotations[contract.HaltAnnotation]; got != halt || ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0) != 1 {
			return fmt.Errorf("it is halted with %q, and its deadline is %v", got, pod.Spec.ActiveDeadlineSeconds)
		}
		return nil
	})
}

// TestCancelUnstarted proves that a cancelled Task ends although its Pod waits for a volume forever.
func TestCancelUnstarted(t *testing.T) {
	t.Parallel()
	task := makeTask(t)
	pod := awaitPod(t, task)
	prepares(t, pod)
	if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))); err != nil {
		t.Fatal(err)
	}
	awaitUnstartedEnd(t, pod, "spec.cancel of the Task is true")
	writeStatus(t, pod, func(pod *corev1.Pod) { // as the kubelet does after the deadline
		pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "DeadlineExceeded"
	})
	cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskCancelled))
}
