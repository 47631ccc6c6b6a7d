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
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// outcome is what users and programs see of the end of a Task.
type outcome struct {
	Phase v1alpha1.TaskPhase
	// Failed has the reason and the message of the condition.
	Failed string
	// Steps has a line for each step (harness.StepLines).
	Steps []string
	// Order is the Pod's annotation at the end. Empty: the Pod is gone.
	Order string
}

// TestEndings covers the ends of a Pod that one node can't be made to produce. It writes the Pod's status as the kubelet and the
// controllers of Kubernetes 1.37 do (pkg/kubelet/{eviction,nodeshutdown,preemption,kubelet_pods.go}, pkg/controller/{podgc,tainteviction},
// pkg/scheduler/framework/preemption). In each case, step a has ended, b runs, and c waits.
func TestEndings(t *testing.T) {
	step := func(i int, state corev1.ContainerState) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.ContainerStatuses[i].State = state }
	}
	failed := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, reason, message
		}
	}
	disrupted := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
			})
		}
	}
	var (
		killed     = step(1, withReason(ended(137), "Error"))
		terminated = step(1, withReason(ended(143), "Error"))
		toldToStop = step(2, recorded(contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}))
		graceful   = func(t *testing.T, pod *corev1.Pod) { deletePod(t, pod) }
		forced     = func(t *testing.T, pod *corev1.Pod) { deletePod(t, pod, client.GracePeriodSeconds(0)) }
	)
	const lowOnMemory = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40920Ki. "

	tests := map[string]struct {
		// before has the states of the containers at first. Default: a has ended, b and c run.
		before []corev1.ContainerState
		// status has the writes of the Pod's status, in order.
		status []func(*corev1.Pod)
		// then runs after the last write.
		then func(*testing.T, *corev1.Pod)
		want outcome
	}{
		"killed without a reason": {
			status: []func(*corev1.Pod){killed},
			want: outcome{
				v1alpha1.TaskFailed, `StepFailed: step "b" failed with exit code 137`,
				[]string{"a Succeeded Completed 0", "b Failed Error 137", "c Skipped Skipped"}, "2",
			},
		},
		"out of memory": {
			status: []func(*corev1.Pod){step(1, withReason(ended(137), "OOMKilled"))},
			want: outcome{
				v1alpha1.TaskFailed, `StepFailed: step "b" failed with exit code 137 (OOMKilled)`,
				[]string{"a Succeeded Completed 0", "b Failed OOMKilled 137", "c Skipped Skipped"}, "2",
			},
		},
		"out of memory while it waited: the one that runs ends first": {
			status: []func(*corev1.Pod){step(2, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: "OOMKilled", StartedAt: metav1.Unix(1e9, 0), FinishedAt: metav1.Unix(1e9+60, 0), // its start is long before the start of the others
			}}), step(1, ended(0))},
			want: outcome{
				v1alpha1.TaskFailed, `StepFailed: step "c" failed with exit code 137 (OOMKilled)`,
				[]string{"a Succeeded Completed 0", "b Succeeded Completed 0", "c Failed OOMKilled 137"}, "2",
			},
		},
		"the runtime can't start it": {
			status: []func(*corev1.Pod){step(2, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 128, Reason: "StartError", Message: "failed to create containerd task: no such file or directory",
				StartedAt: metav1.Unix(0, 0), FinishedAt: metav1.Now(),
			}}), step(1, ended(0))},
			want: outcome{
				v1alpha1.TaskFailed, `StepFailed: step "c" failed with exit code 128 (StartError): failed to create containerd task: no such file or directory`,
				[]string{"a Succeeded Completed 0", "b Succeeded Completed 0", "c Failed StartError 128 never started"}, "2",
			},
			before: []corev1.ContainerState{ended(0), running(), waiting("ContainerCreating", "")},
		},
		"its status was lost": {
			status: []func(*corev1.Pod){step(1, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "The container could not be located when the pod was terminated",
			}})},
			want: outcome{
				v1alpha1.TaskFailed, `StepFailed: step "b" failed with exit code 137 (ContainerStatusUnknown)`,
				[]string{"a Succeeded Completed 0", "b Failed ContainerStatusUnknown 137", "c Skipped Skipped"}, "2",
			},
		},
		"evicted by the kubelet": {
			status: []func(*corev1.Pod){all(failed("Evicted", lowOnMemory), disrupted("TerminationByKubelet", lowOnMemory), killed, toldToStop)},
			want: outcome{
				v1alpha1.TaskFailed, "Evicted: the Pod failed: " + strings.TrimSpace(lowOnMemory),
				[]string{"a Succeeded Completed 0", "b Failed Evicted 137", "c Skipped Skipped"}, "2",
			},
		},
		// A busy kubelet sends the containers' states from before their stop together with their end.
		"evicted by the kubelet, and the ends of the containers follow": {
			status: []func(*corev1.Pod){
				all(failed("Evicted", lowOnMemory), disrupted("TerminationByKubelet", lowOnMemory)),
				all(killed, toldToStop),
			},
			want: outcome{
				v1alpha1.TaskFailed, "Evicted: the Pod failed: " + strings.TrimSpace(lowOnMemory),
				[]string{"a Succeeded Completed 0", "b Failed Evicted 137", "c Skipped Skipped"}, "2",
			},
		},
		// The kubelet withholds phase and reason until it is sure that nothing runs (mergePodStatus). It may report the containers first.
		"evicted by the kubelet, in two writes": {
			status: []func(*corev1.Pod){
				all(killed, toldToStop),
				all(failed("Evicted", lowOnMemory), disrupted("TerminationByKubelet", lowOnMemory)),
			},
			want: outcome{
				v1alpha1.TaskFailed, "Evicted: the Pod failed: " + strings.TrimSpace(lowOnMemory),
				[]string{"a Succeeded Completed 0", "b Failed Evicted 137", "c Skipped Skipped"}, "2",
			},
		},
		"evicted, although its step succeeded": {
			status: []func(*corev1.Pod){all(failed("Evicted", lowOnMemory), step(1, ended(0)), toldToStop)},
			want: outcome{
				v1alpha1.TaskFailed, "Evicted: the Pod failed: " + strings.TrimSpace(lowOnMemory),
				[]string{"a Succeeded Completed 0", "b Succeeded Completed 0", "c Skipped Skipped"}, "2",
			},
		},
		"its node was shut down": {
			status: []func(*corev1.Pod){all(
				failed("Terminated", "Pod was terminated in response to imminent node shutdown."),
				disrupted("TerminationByKubelet", "Pod was terminated in response to imminent node shutdown."), terminated, toldToStop)},
			want: outcome{
				v1alpha1.TaskFailed, "Terminated: the Pod failed: Pod was terminated in response to imminent node shutdown.",
				[]string{"a Succeeded Completed 0", "b Failed Terminated 143", "c Skipped Skipped"}, "2",
			},
		},
		"preempted by the kubelet, for a critical Pod": {
			status: []func(*corev1.Pod){all(
				failed("Preempting", "Preempted in order to admit critical pod"),
				disrupted("TerminationByKubelet", "Pod was preempted by Kubelet to accommodate a critical pod."), terminated, toldToStop)},
			want: outcome{
				v1alpha1.TaskFailed, "Preempting: the Pod failed: Preempted in order to admit critical pod",
				[]string{"a Succeeded Completed 0", "b Failed Preempting 143", "c Skipped Skipped"}, "2",
			},
		},
		"preempted by the scheduler": {
			status: []func(*corev1.Pod){disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")},
			then:   graceful,
			want: outcome{
				v1alpha1.TaskFailed, `PreemptionByScheduler: the Pod "ends" was deleted: default-scheduler: preempting to accommodate a higher priority pod`,
				[]string{"a Succeeded Completed 0", "b Failed PreemptionByScheduler", "c Skipped Skipped"}, "2",
			},
		},
		"its node doesn't answer": {
			status: []func(*corev1.Pod){disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")},
			then:   graceful,
			want: outcome{
				v1alpha1.TaskFailed, `DeletionByTaintManager: the Pod "ends" was deleted: Taint manager: deleting due to NoExecute taint`,
				[]string{"a Succeeded Completed 0", "b Failed DeletionByTaintManager", "c Skipped Skipped"}, "2",
			},
		},
		"its node is no more": {
			status: []func(*corev1.Pod){all(failed("", ""), disrupted("DeletionByPodGC", "PodGC: node no longer exists"))},
			want: outcome{
				v1alpha1.TaskFailed, "DeletionByPodGC: the Pod failed: PodGC: node no longer exists",
				[]string{"a Succeeded Completed 0", "b Failed DeletionByPodGC", "c Skipped Skipped"}, "2",
			},
		},
		"deleted by hand": {
			then: graceful,
			want: outcome{
				v1alpha1.TaskFailed, `PodDeleted: the Pod "ends" was deleted before all steps had ended`,
				[]string{"a Succeeded Completed 0", "b Failed PodDeleted", "c Skipped Skipped"}, "2",
			},
		},
		"deleted by hand, by force": {
			then: forced,
			want: outcome{
				v1alpha1.TaskFailed, `PodDeleted: the Pod "ends" was deleted before all steps had ended`,
				[]string{"a Succeeded Completed 0", "b Failed PodDeleted", "c Skipped Skipped"}, "",
			},
		},
		"not started, since the image has no valid name": {
			status: []func(*corev1.Pod){step(1, waiting("InvalidImageName", `Failed to apply default image tag "A:b:c"`))},
			want: outcome{
				v1alpha1.TaskFailed, `InvalidImageName: container "b" cannot start: Failed to apply default image tag "A:b:c"; the Task has failed: fix the cause, then create the Task again`,
				[]string{"a Succeeded Completed 0", "b Failed InvalidImageName", "c Skipped Skipped"}, "2",
			},
			before: []corev1.ContainerState{ended(0), waiting("ContainerCreating", ""), running()},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "ends", "a", "b", "c")
			pod := awaitPod(t, task)
			bind(t, pod)
			before := test.before
			if before == nil {
				before = []corev1.ContainerState{ended(0), running(), running()}
			}
			setStates(t, pod, corev1.PodRunning, before...)
			awaitOrder(t, pod, "2")
			cluster.AwaitTask(t, task, "step b's turn", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "b" && s.Order == 2 })

			for _, write := range test.status {
				writeStatus(t, pod, write)
			}
			if test.then != nil {
				test.then(t, pod)
			}
			assertOutcome(t, task, test.want)
		})
	}
}

// TestNotAdmitted proves that a Task reports why a kubelet rejected its Pod (kubelet.rejectPod), and that the next attempt follows if
// backoffLimit allows one.
func TestNotAdmitted(t *testing.T) {
	for reason, message := range map[string]string{
		"NodeShutdown":             "Pod was rejected as the node is shutting down.",
		"UnexpectedAdmissionError": "Allocate failed due to no healthy devices present",
		"OutOfcpu":                 "Node didn't have enough resource: cpu, requested: 100, used: 950, capacity: 1000",
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			reject := func(pod *corev1.Pod) {
				pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, reason, message
			}
			task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "rejected", "a", "b")
			writeStatus(t, awaitPod(t, task), reject)
			assertOutcome(t, task, outcome{
				v1alpha1.TaskFailed, reason + ": the Pod failed: " + message, []string{"a Skipped Skipped", "b Skipped Skipped"}, "1",
			})
			again := makeTask(t, func(task *v1alpha1.Task) { task.Spec.BackoffLimit = 1 })
			writeStatus(t, awaitPod(t, again), reject)
			cluster.AwaitTask(t, again, "another attempt", func(s v1alpha1.TaskStatus) bool {
				return len(s.Attempts) == 1 && s.Attempts[0].Reason == reason && s.CompletionTime == nil
			})
		})
	}
}

// assertOutcome waits for the Task's end, and checks that status, condition, event and the Pod's annotations agree.
func assertOutcome(t *testing.T, task *v1alpha1.Task, want outcome) {
	t.Helper()
	status := cluster.AwaitTask(t, task, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
	condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
	if condition == nil {
		t.Fatalf("the Task has not failed: %+v", status)
	}
	got := outcome{Phase: status.Phase, Failed: condition.Reason + ": " + condition.Message, Steps: harness.StepLines(status.Steps)}
	var pod corev1.Pod
	err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &pod)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	got.Order = pod.Annotations[contract.OrderAnnotation]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the ending (-want +got):\n%s", diff)
	}
	if meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionComplete) {
		t.Error("it is Complete, too")
	}
	assertEvent(t, task, corev1.EventTypeWarning, condition.Reason, condition.Message)
}

func assertEvent(t *testing.T, task *v1alpha1.Task, kind, reason, note string) {
	t.Helper()
	wait.For(t, fmt.Sprintf("the event %s %s: %s", kind, reason, note), func(ctx context.Context) error {
		var events eventsv1.EventList
		if err := cluster.List(ctx, &events, client.InNamespace(task.Namespace)); err != nil {
			return err
		}
		var others []string
		for _, event := range events.Items {
			if event.Regarding.UID == task.UID && event.Type == kind && event.Reason == reason && event.Note == note {
				return nil
			}
			others = append(others, fmt.Sprintf("%s %s: %s", event.Type, event.Reason, event.Note))
		}
		return fmt.Errorf("there are %q", others)
	})
}

// all combines changes of a Pod into one write.
func all(edits ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		for _, edit := range edits {
			edit(pod)
		}
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// recorded returns the state of a container that has ended with the agent's record as its termination message.
func recorded(record contract.Record) corev1.ContainerState {
	record.FinishedAt = time.Now()
	state := ended(int32(record.ExitCode))
	state.Terminated.Message = record.Marshal()
	return state
}

// writeStatus writes the Pod's status as the kubelet or a controller of Kubernetes does.
func writeStatus(t *testing.T, pod *corev1.Pod, edit func(*corev1.Pod)) {
	t.Helper()
	before := pod.DeepCopy()
	edit(pod)
	if err := cluster.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// bind assigns the Pod to a node: the deletion of such a Pod waits for the kubelet.
func bind(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "no-such-node"}}
	if err := cluster.SubResource("binding").Create(t.Context(), pod, binding); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		t.Fatal(err)
	}
}

func deletePod(t *testing.T, pod *corev1.Pod, options ...client.DeleteOption) {
	t.Helper()
	if err := cluster.Delete(t.Context(), pod, options...); err != nil {
		t.Fatal(err)
	}
}
