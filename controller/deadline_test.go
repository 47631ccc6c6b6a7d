package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TestDeadline proves that spec.timeout counts from the Task's start in each state of a Task and over all attempts, and that the Pod is told
// before the Task fails. The Task started at 12:00:00, and it is 12:03:00.
func TestDeadline(t *testing.T) {
	const over, notOver = 2 * time.Minute, 4 * time.Minute
	known := func(task *v1alpha1.Task) {
		hasPod(task)
		task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionProgressing, Status: metav1.ConditionTrue, Reason: "StepRunning", LastTransitionTime: metav1.Time{Time: created}}}
	}
	waitsForQuota := func(task *v1alpha1.Task) {
		task.Status.StartTime, task.Status.Phase = &metav1.Time{Time: created}, v1alpha1.TaskPending
	}
	retrying := func(task *v1alpha1.Task) {
		waitsForQuota(task)
		task.Spec.BackoffLimit, task.Status.Attempt = 5, 2
		task.Status.Attempts = []v1alpha1.AttemptStatus{{PodName: "example", CompletionTime: metav1.Time{Time: lookedAt.Add(-time.Second)}, Reason: "StepFailed"}}
	}
	mayRetry := func(task *v1alpha1.Task) {
		known(task)
		task.Spec.BackoffLimit = 5
	}
	deadline := func(reason string) edit {
		return func(pod *corev1.Pod) { pod.Status.Reason, pod.Status.Message = reason, "Pod was active too long" }
	}
	stepsRun := containers(running("a"), running("b"), running("c"))
	ran := containers(exited("a", 143, "Error", ""), exited("b", 143, "Error", ""), exited("c", 143, "Error", ""))
	type seen struct {
		Phase       v1alpha1.TaskPhase
		Progressing string
		Again       time.Duration
		// Pod is what became of the Pod: created, kept, ended or deleted.
		Pod string
	}
	failed := func(pod string) seen { return seen{v1alpha1.TaskFailed, v1alpha1.ReasonDeadlineExceeded, 0, pod} }
	cases := map[string]struct {
		task    func(*v1alpha1.Task)
		pod     *corev1.Pod
		timeout time.Duration
		want    seen
	}{
		"no Pod yet":               {waitsForQuota, nil, over, failed("none")},
		"no Pod yet, in time":      {waitsForQuota, nil, notOver, seen{v1alpha1.TaskPending, v1alpha1.ReasonPodCreated, startPatience, "created"}},
		"between two Pods":         {retrying, nil, over, failed("none")},
		"between two, in time":     {retrying, nil, notOver, seen{v1alpha1.TaskPending, "", 9 * time.Second, "none"}},
		"between two, soon":        {retrying, nil, 3*time.Minute + 4*time.Second, seen{v1alpha1.TaskPending, "", 5 * time.Second, "none"}},
		"no node":                  {known, sequential(owned, unboundPod), over, failed("deleted")},
		"a step runs":              {known, sequential(owned, onNode, stepsRun), over, seen{v1alpha1.TaskRunning, v1alpha1.ReasonDeadlineExceeded, 0, "ended"}},
		"a step runs, in time":     {known, sequential(owned, onNode, stepsRun), notOver, seen{v1alpha1.TaskRunning, v1alpha1.ReasonStepRunning, 61 * time.Second, "kept"}},
		"an image is missing":      {known, sequential(owned, bound, containers(waiting("a", "ImagePullBackOff", "x"))), over, seen{v1alpha1.TaskPending, v1alpha1.ReasonDeadlineExceeded, 0, "ended"}},
		"a volume is missing":      {known, sequential(owned, bound, creating, unstarted), over, seen{v1alpha1.TaskPending, v1alpha1.ReasonDeadlineExceeded, 0, "ended"}},
		"the kubelet has ended it": {mayRetry, sequential(owned, onNode, ran, phase(corev1.PodFailed), deadline("DeadlineExceeded")), over, failed("kept")},
		"all steps have succeeded": {known, sequential(owned, onNode, containers(succeeded("a"), succeeded("b"), succeeded("c"))), over, seen{v1alpha1.TaskSucceeded, v1alpha1.ReasonStepsSucceeded, 0, "kept"}},
		"it is suspended": {func(task *v1alpha1.Task) {
			waitsForQuota(task)
			task.Spec.Suspend = true
		}, nil, over, seen{v1alpha1.TaskSuspended, v1alpha1.ReasonSuspended, 0, "none"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := exampleTask(c.task)
			task.Spec.Timeout = &metav1.Duration{Duration: c.timeout}
			var pods []*corev1.Pod
			if c.pod != nil {
				pods = append(pods, c.pod)
			}
			w := newWorld(t, task, pods...)
			result, err := w.reconcile()
			if err != nil {
				t.Fatal(err)
			}
			status := w.task().Status
			got := seen{Phase: status.Phase, Again: result.RequeueAfter}
			if progressing := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing); progressing != nil {
				got.Progressing = progressing.Reason
			}
			switch pod := w.pod("example"); {
			case pod == nil && c.pod == nil:
				got.Pod = "none"
			case pod == nil:
				got.Pod = "deleted"
			case c.pod == nil:
				got.Pod = "created"
			case pod.Spec.ActiveDeadlineSeconds != nil && *pod.Spec.ActiveDeadlineSeconds == endNow:
				got.Pod = "ended"
			default:
				got.Pod = "kept"
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what comes of it (-want +got):\n%s", diff)
			}
			if status.Phase == v1alpha1.TaskFailed {
				want := "the Task took longer than spec.timeout, which is 2m0s"
				if got.Pod == "deleted" {
					want += `; the Pod "example" was deleted, because no node had taken it`
				}
				if diff := cmp.Diff(want, meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed).Message); diff != "" {
					t.Errorf("the condition Failed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestStartTime proves that a Task starts when the controller first sees it, that a resumed Task starts again, and that the Pod has the time
// that is left.
func TestStartTime(t *testing.T) {
	task := exampleTask(func(task *v1alpha1.Task) {
		task.Spec.Suspend, task.Spec.Timeout = true, &metav1.Duration{Duration: time.Minute}
		task.Status.StartTime = &metav1.Time{Time: created} // of an attempt that has failed
	})
	w := newWorld(t, task)
	if _, err := w.reconcile(); err != nil {
		t.Fatal(err)
	}
	if at := w.task().Status.StartTime; at != nil {
		t.Errorf("the suspended Task has started at %s", at)
	}
	resumed := w.task()
	resumed.Spec.Suspend = false
	if err := w.live.Update(t.Context(), resumed); err != nil {
		t.Fatal(err)
	}
	w.reconciler.Now = func() time.Time { return lookedAt.Add(300 * time.Millisecond) }
	if _, err := w.reconcile(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&metav1.Time{Time: lookedAt}, w.task().Status.StartTime); diff != "" {
		t.Errorf("the start (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(new(int64(60)), w.pod("example").Spec.ActiveDeadlineSeconds); diff != "" {
		t.Errorf("the Pod's deadline (-want +got):\n%s", diff)
	}
	retried := exampleTask(func(task *v1alpha1.Task) {
		task.Spec.Timeout, task.Spec.BackoffLimit = &metav1.Duration{Duration: 5 * time.Minute}, 1
		task.Status.StartTime, task.Status.Attempt = &metav1.Time{Time: created}, 2
		task.Status.Attempts = []v1alpha1.AttemptStatus{{PodName: "example", CompletionTime: metav1.Time{Time: ended}, Reason: "StepFailed"}}
	})
	w = newWorld(t, retried)
	if _, err := w.reconcile(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(new(int64(120)), w.pod("example-retry-1").Spec.ActiveDeadlineSeconds); diff != "" {
		t.Errorf("the second Pod's deadline (-want +got):\n%s", diff)
	}
}

// TestTimedOutNamesCause proves that a Task that timed out before a step began says what it waited for, also after its Pod was ended, and within
// the bound of an event. A Task whose step ran does not.
func TestTimedOutNamesCause(t *testing.T) {
	const message = "the Task took longer than spec.timeout, which is 2m0s"
	noNode := func(n *next) {
		n.progressing(metav1.ConditionFalse, "Unschedulable", "the Pod is unschedulable: 0/1 nodes")
	}
	endsPod := (*next).timingOut
	created := func(n *next) { n.progressing(metav1.ConditionTrue, "PodCreated", "the Pod is being started") }
	unknown := func(name string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "ContainerStatusUnknown"}}}
	}
	cases := map[string]struct {
		before []bring
		want   string
	}{
		"nothing is known":          {nil, message},
		"nothing unusual":           {[]bring{created}, message},
		"no node":                   {[]bring{noNode}, message + "; it waited for: the Pod is unschedulable: 0/1 nodes"},
		"its Pod has been ended":    {[]bring{noNode, endsPod, endsPod}, message + "; it waited for: the Pod is unschedulable: 0/1 nodes"},
		"a step runs":               {[]bring{mirrored(containers(running("a"), running("b"), running("c")))}, message},
		"a step ran, and has ended": {[]bring{mirrored(containers(succeeded("a"), waiting("b", "ImagePullBackOff", "x"), running("c")))}, message},
		"the kubelet has ended the Pod": {
			[]bring{
				func(n *next) {
					n.progressing(metav1.ConditionFalse, "CreateContainerConfigError", `container "a" cannot start: x`)
				},
				mirrored(phase(corev1.PodFailed), func(pod *corev1.Pod) { pod.Status.Reason = "DeadlineExceeded" }, containers(unknown("a"), skipped("b"), skipped("c"))),
			},
			message + `; it waited for: container "a" cannot start: x`,
		},
		"a long cause": {
			[]bring{func(n *next) { n.progressing(metav1.ConditionFalse, "PodRefused", strings.Repeat("x", 2000)) }},
			message + "; it waited for: " + strings.Repeat("x", maxNote/2-len(message+"; it waited for: …")) + "…",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := &v1alpha1.Task{}
			task.Spec.Timeout = &metav1.Duration{Duration: 2 * time.Minute}
			n := statusOf(task, time.Hour)
			for _, bring := range c.before {
				bring(n)
			}
			n.failTimedOut()
			n.failTimedOut()
			if diff := cmp.Diff(c.want, meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionFailed).Message); diff != "" {
				t.Errorf("the condition Failed (-want +got):\n%s", diff)
			}
		})
	}
}
