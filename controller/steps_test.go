package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestObserveStep proves the status of one step: what the agent's record adds to what the kubelet reports, such as when the command ran, and why it
// did not.
func TestObserveStep(t *testing.T) {
	micro := func(at time.Time) *metav1.MicroTime { return &metav1.MicroTime{Time: at} }
	start, end := started.Add(123456*time.Microsecond), ended.Add(-time.Microsecond)
	record := func(exitCode int, reason, message string) string {
		r := contract.Record{StartedAt: &start, FinishedAt: end, ExitCode: exitCode, Reason: reason, Message: message}
		if reason != "" {
			r.StartedAt = nil
		}
		return r.Marshal()
	}
	step := func(state v1alpha1.StepState, reason, message string) v1alpha1.StepStatus {
		return v1alpha1.StepStatus{Name: "a", State: state, Reason: reason, Message: message}
	}
	// by the kubelet's times, by those of the record, and by those of a record of a command that didn't run
	kubelet := func(code int32, s v1alpha1.StepStatus) v1alpha1.StepStatus {
		s.ExitCode, s.StartedAt, s.FinishedAt, s.Duration = &code, micro(created), micro(ended), "65s"
		return s
	}
	recorded := func(code int32, s v1alpha1.StepStatus) v1alpha1.StepStatus {
		s.ExitCode, s.StartedAt, s.FinishedAt, s.Duration = &code, micro(start), micro(end), "62s"
		return s
	}
	notStarted := func(code int32, s v1alpha1.StepStatus) v1alpha1.StepStatus {
		s.ExitCode, s.FinishedAt = &code, micro(end)
		return s
	}

	skipped := func(s v1alpha1.StepStatus) v1alpha1.StepStatus {
		s.FinishedAt = micro(end)
		return s
	}

	cases := map[string]struct {
		container corev1.ContainerStatus
		want      v1alpha1.StepStatus
	}{
		"no status yet":           {corev1.ContainerStatus{}, step("Waiting", "", "")},
		"waits for init":          {waiting("a", "PodInitializing", ""), step("Waiting", "", "")},
		"waits for its image":     {waiting("a", "ImagePullBackOff", "Back-off pulling"), step("Waiting", "ImagePullBackOff", "Back-off pulling")},
		"runs":                    {running("a"), v1alpha1.StepStatus{Name: "a", State: "Running", StartedAt: micro(created)}},
		"the image":               {corev1.ContainerStatus{Name: "a", ImageID: "sha256:0"}, v1alpha1.StepStatus{Name: "a", State: "Waiting", ImageID: "sha256:0"}},
		"no record":               {exited("a", 0, "Completed", ""), kubelet(0, step("Succeeded", "Completed", ""))},
		"failed without a record": {exited("a", 2, "Error", ""), kubelet(2, step("Failed", "Error", ""))},
		"no times": {
			corev1.ContainerStatus{Name: "a", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}},
			v1alpha1.StepStatus{Name: "a", State: "Failed", ExitCode: new(int32(137))},
		},
		"the user's message":             {exited("a", 0, "Completed", "42 tests"), kubelet(0, step("Succeeded", "Completed", "42 tests"))},
		"the user's message is JSON":     {exited("a", 0, "Completed", `{"exitCode":3}`), kubelet(0, step("Succeeded", "Completed", `{"exitCode":3}`))},
		"the user's message is like one": {exited("a", 0, "Completed", `{"taskflow":{}}`), kubelet(0, step("Succeeded", "Completed", `{"taskflow":{}}`))},
		"a record":                       {exited("a", 0, "Completed", record(0, "", "")), recorded(0, step("Succeeded", "Completed", ""))},
		"a record of a failure":          {exited("a", 2, "Error", record(2, "", "")), recorded(2, step("Failed", "Error", ""))},
		"a record of a start error": {
			exited("a", 127, "Error", record(127, contract.ReasonStartError, "not found")),
			notStarted(127, step("Failed", "StartError", "not found")),
		},
		"a record of a step told to stop": {
			exited("a", 143, "Error", record(143, contract.ReasonTerminated, "told to stop")),
			notStarted(143, step("Failed", "Terminated", "told to stop")),
		},
		"a record of the agent's own failure": {
			exited("a", 125, "Error", record(125, contract.ReasonAgentError, "no order file")),
			notStarted(125, step("Failed", "AgentError", "no order file")),
		},
		"a record of a skipped step": {
			exited("a", 0, "Completed", record(0, contract.ReasonSkipped, "halted")),
			skipped(step("Skipped", "Skipped", "halted")),
		},
		// Killed after it had left its record: the kubelet knows better how it ended.
		"killed after a record":         {exited("a", 137, "OOMKilled", record(0, "", "")), recorded(137, step("Failed", "OOMKilled", ""))},
		"killed after it was skipped":   {exited("a", 137, "OOMKilled", record(0, contract.ReasonSkipped, "halted")), notStarted(137, step("Failed", "OOMKilled", "halted"))},
		"skipped, with another's code":  {exited("a", 0, "Completed", record(1, contract.ReasonSkipped, "halted")), skipped(step("Skipped", "Completed", "halted"))},
		"a record and the image's name": {withImage(exited("a", 0, "Completed", record(0, "", "")), "sha256:0"), withImageID(recorded(0, step("Succeeded", "Completed", "")), "sha256:0")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := sequential(annotated(contract.StepsAnnotation, "a"), containers(c.container))
			if c.want.State == v1alpha1.StepSkipped {
				halt("halted")(pod)
			}
			if diff := cmp.Diff([]v1alpha1.StepStatus{c.want}, observe(pod).steps); diff != "" {
				t.Errorf("the step (-want +got):\n%s", diff)
			}
		})
	}
}

func withImage(status corev1.ContainerStatus, id string) corev1.ContainerStatus {
	status.ImageID = id
	return status
}

func withImageID(step v1alpha1.StepStatus, id string) v1alpha1.StepStatus {
	step.ImageID = id
	return step
}

// TestObserveContinue proves that the failure of a step with onError: Continue releases the next step, and that its interruption does not.
func TestObserveContinue(t *testing.T) {
	may := annotated(contract.OptionsAnnotation, `{"b":{"continueOnError":true}}`)
	record := func(reason string) string {
		return contract.Record{FinishedAt: ended, ExitCode: 143, Reason: reason}.Marshal()
	}
	type seen struct {
		States              string
		Done, Failed, Order int
		Halt                string
	}
	cases := map[string]struct {
		pod  *corev1.Pod
		want seen
	}{
		"it fails":             {sequential(may, order("2"), containers(succeeded("a"), failedWith("b", 1), running("c"))), seen{"Succeeded Failed Running", 2, -1, 3, ""}},
		"it times out":         {sequential(may, order("2"), containers(succeeded("a"), exited("b", 124, "Error", contract.Record{FinishedAt: ended, ExitCode: 124, Reason: contract.ReasonTimedOut}.Marshal()), running("c"))), seen{"Succeeded Failed Running", 2, -1, 3, ""}},
		"it is killed":         {sequential(may, order("2"), containers(succeeded("a"), exited("b", 137, "OOMKilled", ""), running("c"))), seen{"Succeeded Failed Running", 2, -1, 3, ""}},
		"all have ended":       {sequential(may, order("3"), containers(succeeded("a"), failedWith("b", 1), succeeded("c"))), seen{"Succeeded Failed Succeeded", 3, -1, 3, ""}},
		"it is cancelled":      {sequential(may, order("2"), containers(succeeded("a"), exited("b", 143, "Error", record(contract.ReasonCancelled)), running("c"))), seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 143 (Cancelled)`}},
		"it is told to stop":   {sequential(may, order("2"), containers(succeeded("a"), exited("b", 143, "Error", record(contract.ReasonTerminated)), running("c"))), seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" was interrupted before its turn`}},
		"another fails":        {sequential(may, containers(failedWith("a", 1), running("b"), running("c"))), seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 1`}},
		"it fails too early":   {sequential(may, containers(running("a"), exited("b", 137, "OOMKilled", ""), running("c"))), seen{"Running Failed Waiting", 0, -1, 1, ""}},
		"the option is spoilt": {sequential(annotated(contract.OptionsAnnotation, "{"), order("2"), containers(succeeded("a"), failedWith("b", 1), running("c"))), seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 1`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := observe(c.pod)
			if diff := cmp.Diff(c.want, seen{states(s.steps), s.done, s.failed, s.order, s.halt}); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
		})
	}
}
