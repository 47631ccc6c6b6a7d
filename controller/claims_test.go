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

// TestObserveClaims proves that the status says what ran, whatever a step's own message says: a step can write a record there, and release
// the next one before it fails.
func TestObserveClaims(t *testing.T) {
	type seen struct {
		Steps []string // state, reason and, if they are known, that there are an exit code and a start
		Done  int
		Order int
		Halt  string
	}
	at := func(seconds int) time.Time { return ended.Add(time.Duration(seconds) * time.Second) }
	message := func(reason string, started *time.Time, finished time.Time) string {
		return contract.Record{Reason: reason, StartedAt: started, FinishedAt: finished}.Marshal()
	}
	// ranUntil is a step whose container ended with 0, at that time by its record or without one by the kubelet.
	ranUntil := func(name string, finished time.Time, message string) corev1.ContainerStatus {
		status := exited(name, 0, "Completed", message)
		status.State.Terminated.FinishedAt = metav1.Time{Time: finished}
		return status
	}
	skipRecord := message(contract.ReasonSkipped, nil, at(2))
	const failed3 = `step "a" failed with exit code 3`
	start := started
	missing := contract.Record{
		FinishedAt: at(60), ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing, Message: "step 1 failed with exit code 3, but no halt came",
	}.Marshal()

	cases := map[string]struct {
		pod  *corev1.Pod
		want seen
	}{
		"the first says that it was skipped, and nobody has halted the sequence": {
			sequential(containers(ranUntil("a", ended, skipRecord), running("b"), running("c"))),
			seen{[]string{"Succeeded Completed code start", "Running start", "Waiting"}, 1, 2, ""},
		},
		"and so do the others": {
			sequential(containers(ranUntil("a", ended, skipRecord), ranUntil("b", ended, skipRecord), ranUntil("c", ended, skipRecord))),
			seen{[]string{"Succeeded Completed code start", "Succeeded Completed code start", "Succeeded Completed code start"}, 3, 3, ""},
		},
		"it says so, the next was released, and the sequence is halted then": {
			sequential(order("2"), halt("mine"), containers(ranUntil("a", ended, skipRecord), running("b"), running("c"))),
			seen{[]string{"Succeeded Completed code start", "Running start", "Skipped Skipped"}, 1, 2, "mine"},
		},
		"a step is skipped before its turn, by an agent that sees a failure first": {
			sequential(containers(running("a"), ranUntil("b", ended, skipRecord), running("c"))),
			seen{[]string{"Running start", "Skipped Skipped", "Waiting"}, 0, 1, ""},
		},
		"the next ran, by its record, and the first has failed": {
			sequential(containers(failedWith("a", 3), ranUntil("b", ended, message("", &start, ended)), ranUntil("c", at(2), skipRecord))),
			seen{[]string{"Failed Error code start", "Succeeded Completed code start", "Skipped Skipped"}, 0, 1, failed3},
		},
		"the next ran, and the one after it runs until it sees the halt": {
			sequential(containers(failedWith("a", 3), ranUntil("b", ended, message("", &start, ended)), running("c"))),
			seen{[]string{"Failed Error code start", "Succeeded Completed code start", "Running start"}, 0, 1, failed3},
		},
		"the next ran, by the message that its command left, and the first has failed": {
			sequential(containers(failedWith("a", 3), ranUntil("b", at(5), "42 tests"), ranUntil("c", at(7), skipRecord))),
			seen{[]string{"Failed Error code start", "Succeeded Completed code start", "Skipped Skipped"}, 0, 1, failed3},
		},
		"the next ran, since it ended long before the first has failed": {
			sequential(containers(failedWith("a", 3), ranUntil("b", at(-5), ""), ranUntil("c", at(-5), `{"taskflow":{"finish`))),
			seen{[]string{"Failed Error code start", "Succeeded Completed code start", "Succeeded Completed code start"}, 0, 1, failed3},
		},
		"the records of those that were skipped are cut, or missing": {
			sequential(containers(failedWith("a", 3), ranUntil("b", ended, ""), ranUntil("c", at(2), `{"taskflow":{"finish`))),
			seen{[]string{"Failed Error code start", "Skipped Skipped", "Skipped Skipped"}, 0, 1, failed3},
		},
		"the records of those that were skipped are cut behind the exit code": {
			sequential(containers(failedWith("a", 3), ranUntil("b", at(2), skipRecord[:66]), running("c"))),
			seen{[]string{"Failed Error code start", "Skipped Skipped", "Skipped Skipped"}, 0, 1, failed3},
		},
		"the others have waited for the halt in vain": {
			sequential(containers(failedWith("a", 3), exited("b", contract.ExitAgentFailure, "Error", missing), exited("c", contract.ExitAgentFailure, "Error", missing))),
			seen{[]string{"Failed Error code start", "Skipped Skipped", "Skipped Skipped"}, 0, 1, failed3},
		},
		"the next has waited in vain for a halt that was never due, although it may fail": {
			sequential(annotated(contract.OptionsAnnotation, `{"b":{"continueOnError":true}}`),
				containers(succeeded("a"), exited("b", contract.ExitAgentFailure, "Error", missing), running("c"))),
			seen{
				[]string{"Succeeded Completed code start", "Failed HaltMissing code", "Skipped Skipped"}, 1, 1,
				`step "b" failed with exit code 125 (HaltMissing): step "a" failed with exit code 3, but no halt came`,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := observe(c.pod)
			got := seen{nil, s.done, s.order, s.halt}
			for _, step := range s.steps {
				text := string(step.State)
				if step.Reason != "" {
					text += " " + step.Reason
				}
				if step.ExitCode != nil {
					text += " code"
				}
				if step.StartedAt != nil {
					text += " start"
				}
				got.Steps = append(got.Steps, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
		})
	}
}

// TestObserveSignaled proves that a command which ended soon after a signal that may have been its stop signal counts as stopped if
// somebody ends the Pod, and otherwise as what it ended with.
func TestObserveSignaled(t *testing.T) {
	may := annotated(contract.OptionsAnnotation, `{"a":{"continueOnError":true,"timeout":60000000000}}`)
	a := func(code int32) corev1.ContainerStatus {
		reason := "Error"
		if code == 0 {
			reason = "Completed"
		}
		return exited("a", code, reason, contract.Record{FinishedAt: ended, StartedAt: &started, ExitCode: int(code), Reason: contract.ReasonSignaled}.Marshal())
	}
	type seen struct {
		State  v1alpha1.StepState
		Reason string
		Done   int
		Failed int
	}
	cases := map[string]struct {
		pod  *corev1.Pod
		want seen
	}{
		"it succeeded":          {sequential(containers(a(0), running("b"))), seen{"Succeeded", "Completed", 1, -1}},
		"it failed":             {sequential(containers(a(138), running("b"))), seen{"Failed", "Error", 0, 0}},
		"it failed, and may":    {sequential(may, containers(a(138), running("b"))), seen{"Failed", "Error", 1, -1}},
		"it timed out, and may": {sequential(may, containers(a(124), running("b"))), seen{"Failed", "TimedOut", 1, -1}},
		"it failed, and may, and the Pod is deleted": {sequential(may, deleted, containers(a(138), running("b"))), seen{"Failed", "Stopped", 0, 0}},
		"it timed out, and may, during a deletion":   {sequential(may, deleted, containers(a(124), running("b"))), seen{"Failed", "Stopped", 0, 0}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := observe(c.pod)
			if diff := cmp.Diff(c.want, seen{s.steps[0].State, s.steps[0].Reason, s.done, s.failed}); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
		})
	}
}
