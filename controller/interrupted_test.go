package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestMirrorWaitsForThePodsReason proves that a Pod whose containers were all killed is not judged before the kubelet has reported why, and that
// other Pods are.
func TestMirrorWaitsForThePodsReason(t *testing.T) {
	killed := containers(succeeded("a"), exited("b", 137, "Error", ""), exited("c", 143, "Error", ""))
	before := mirrored(order("2"), containers(succeeded("a"), running("b"), running("c")))
	cases := map[string]struct {
		pod  bring
		want bool
	}{
		"all are killed":                    {mirrored(order("2"), killed), true},
		"one of them succeeded":             {mirrored(order("2"), containers(succeeded("a"), succeeded("b"), exited("c", 143, "Error", ""))), true},
		"one failed by itself":              {mirrored(order("2"), containers(succeeded("a"), failedWith("b", 1), succeeded("c"))), false},
		"one was killed for its memory":     {mirrored(order("2"), containers(succeeded("a"), exited("b", 137, "OOMKilled", ""), succeeded("c"))), false},
		"one was killed, and others run":    {mirrored(order("2"), containers(succeeded("a"), exited("b", 137, "Error", ""), running("c"))), false},
		"a sidecar runs":                    {mirrored(order("2"), killed, func(pod *corev1.Pod) { pod.Status.InitContainerStatuses = []corev1.ContainerStatus{running("proxy")} }), false},
		"the kubelet has said it":           {mirrored(order("2"), killed, phase(corev1.PodFailed)), false},
		"the Pod is being deleted":          {mirrored(order("2"), killed, deleted), false},
		"the kubelet will start them again": {mirrored(order("2"), killed, restartPolicy(corev1.RestartPolicyOnFailure)), false},
		"the Task is cancelled":             {func(n *next) { n.task = n.task.DeepCopy(); n.task.Spec.Cancel = true; mirrored(order("2"), killed)(n) }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			was, is := statusAfter(before), statusAfter(before, c.pod)
			if waits := states(was.Steps) == states(is.Steps) && is.Phase == was.Phase; waits != c.want {
				t.Errorf("it waits: %t, want %t; the steps are %s, the phase is %s", waits, c.want, states(is.Steps), is.Phase)
			}
		})
	}
}

// TestIsUnsettled proves for which Pods the kubelet may still report final container states.
func TestIsUnsettled(t *testing.T) {
	killed := exited("b", 143, "Error", "")
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"it runs":                    {sequential(phase(corev1.PodRunning), containers(succeeded("a"), running("b"))), false},
		"over, and one runs":         {sequential(phase(corev1.PodFailed), containers(succeeded("a"), running("b"))), true},
		"over, and one waits":        {sequential(phase(corev1.PodFailed), containers(waiting("a", "PodInitializing", ""), killed)), true},
		"over, and all have ended":   {sequential(phase(corev1.PodFailed), containers(succeeded("a"), killed)), false},
		"over, and nothing is known": {sequential(phase(corev1.PodFailed)), false},
	} {
		if got := isUnsettled(c.pod); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// TestInterruptedStep proves that a terminating Pod does not count as one whose steps are all done, regardless of how its last step ends when it is
// told to stop: with exit code 0, or with a failure that is allowed.
func TestInterruptedStep(t *testing.T) {
	may := annotated(contract.OptionsAnnotation, `{"c":{"continueOnError":true}}`)
	told := func(code int32) corev1.ContainerStatus {
		return exited("c", code, "Error", contract.Record{FinishedAt: ended, ExitCode: int(code), Reason: contract.ReasonStopped}.Marshal())
	}
	evicted := func(pod *corev1.Pod) { pod.Status.Reason = "Evicted" }
	preempted := func(pod *corev1.Pod) {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler"}}
	}
	pod := func(last corev1.ContainerStatus, edits ...edit) bring {
		return mirrored(append([]edit{order("3"), phase(corev1.PodFailed), containers(succeeded("a"), succeeded("b"), last)}, edits...)...)
	}
	own := func(code int32) corev1.ContainerStatus { return exited("c", code, "Error", "a message of its own") }
	cases := map[string]struct {
		pod  bring
		want string // reason of the condition, state and reason of the last step
	}{
		"ends with 0":                      {pod(told(0), evicted), "Evicted Failed Evicted"},
		"fails, and may":                   {pod(told(143), may, evicted), "Evicted Failed Evicted"},
		"fails by another code, and may":   {pod(told(1), may, evicted), "Evicted Failed Evicted"},
		"fails, and may, without a record": {pod(own(143), may, evicted), "Evicted Failed Evicted"},
		"fails, and may, preempted":        {pod(told(143), may, preempted), "PreemptionByScheduler Failed PreemptionByScheduler"},
		"ends with 0, deleted":             {pod(told(0), phase(corev1.PodRunning), deleted), "PodDeleted Failed PodDeleted"},
		"its end is unknown": {
			mirrored(phase(corev1.PodFailed), evicted, containers(
				succeeded("a"), exited("b", 137, "ContainerStatusUnknown", "could not be located"), exited("c", 137, "ContainerStatusUnknown", "could not be located"))),
			"Evicted Skipped Skipped",
		},
		"had failed by itself before, and may": {pod(failedWith("c", 1), may, evicted), "StepsSucceeded Failed Error"},
		"told from inside the container":       {pod(told(0), phase(corev1.PodSucceeded)), "StepsSucceeded Succeeded Stopped"},
		"and fails":                            {pod(told(143), may), "StepFailed Failed Stopped"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status := statusAfter(c.pod)
			got := "not at its end"
			for _, condition := range status.Conditions {
				if condition.Type != v1alpha1.ConditionProgressing && condition.Status == metav1.ConditionTrue {
					got = fmt.Sprintf("%s %s %s", condition.Reason, status.Steps[2].State, status.Steps[2].Reason)
				}
			}
			if got != c.want {
				t.Errorf("the Task: %s, want %s", got, c.want)
			}
		})
	}
}

// TestInterruptedBeforeFinalSteps proves that a step which spec.timeout interrupted has that reason although a final step has run after it, and that
// a step that had failed by itself keeps its own.
func TestInterruptedBeforeFinalSteps(t *testing.T) {
	halted := exited("b", 143, "Error", contract.Record{FinishedAt: ended, ExitCode: 143, Reason: contract.ReasonCancelled}.Marshal())
	task := exampleTask(hasPod)
	task.Spec.Timeout = &metav1.Duration{Duration: time.Minute}
	task.Spec.Steps[2].Finally = true
	w := newWorld(t, task, sequential(owned, onNode, order("3"), phase(corev1.PodFailed), containers(failedWith("a", 137), halted, succeeded("c")),
		annotated(contract.OptionsAnnotation, `{"a":{"failAtEnd":true},"c":{"finally":true}}`),
		annotated(contract.CancelAnnotation, contract.CancelDeadlineExceeded), annotated(contract.HaltAnnotation, "too long")))
	if _, err := w.reconcile(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, step := range w.task().Status.Steps {
		got = append(got, step.Name+" "+string(step.State)+" "+step.Reason)
	}
	if diff := cmp.Diff([]string{"a Failed Error", "b Failed DeadlineExceeded", "c Succeeded Completed"}, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s\n%+v", diff, w.task().Status)
	}
}

// TestProgressOfAnInterruptedStep proves that an interrupted step does not count as done, in PROGRESS and STEP too, although its command ended with
// exit code 0.
func TestProgressOfAnInterruptedStep(t *testing.T) {
	told := exited("b", 0, "Completed", contract.Record{FinishedAt: ended, Reason: contract.ReasonStopped}.Marshal())
	waited := exited("c", 143, "Error", contract.Record{FinishedAt: ended, ExitCode: 143, Reason: contract.ReasonTerminated}.Marshal())
	status := statusAfter(mirrored(order("3"), phase(corev1.PodFailed), containers(succeeded("a"), told, waited), func(pod *corev1.Pod) {
		pod.Status.Reason = "DeadlineExceeded"
	}))
	got := []string{status.Progress, status.CurrentStep, string(status.Steps[1].State), status.Steps[1].Reason, string(status.Steps[2].State)}
	if diff := cmp.Diff([]string{"1/3", "b", "Failed", "DeadlineExceeded", "Skipped"}, got); diff != "" {
		t.Errorf("progress, step, and how the steps ended (-want +got):\n%s", diff)
	}
}
