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

// leftRecord returns a container whose agent left the record. If hasRun, its command started.
func leftRecord(name string, code int32, record contract.Record, hasRun bool) corev1.ContainerStatus {
	record.FinishedAt, record.ExitCode = ended, int(code)
	if hasRun {
		record.StartedAt = &started
	}
	reason := "Error"
	if code == 0 {
		reason = "Completed"
	}
	return exited(name, code, reason, record.Marshal())
}

// told returns what the events about a Task tell while its Pod takes one state after the other, each a minute after the one before it, and ends
// with the end of the Task's message.
func told(edit func(*v1alpha1.Task), pods ...*corev1.Pod) []string {
	task := exampleTask(edit)
	hasPod(task)
	var all []string
	for i, pod := range pods {
		before := task.Status
		n := decide(facts{task: task, pod: pod, now: created.Add(time.Duration(i+1) * time.Minute), startGrace: 5 * time.Minute})
		for _, e := range n.transitions(before) {
			all = append(all, e.reason+": "+e.note)
		}
		task.Status = n.TaskStatus
	}
	return all
}

// TestEventsWithFinalSteps proves that events, the reasons of steps and the Task's message agree if final steps run after the others, that none of
// them repeats, and that a message names a final step as one.
func TestEventsWithFinalSteps(t *testing.T) {
	options := contract.Options{"c": {Finally: true}}
	state := func(statuses []corev1.ContainerStatus, edits ...edit) *corev1.Pod {
		return sequential(append([]edit{annotated(contract.OptionsAnnotation, options.Marshal()), order("3"), containers(statuses...)}, edits...)...)
	}
	type list = []corev1.ContainerStatus
	var (
		bRuns    = state(list{succeeded("a"), running("b"), running("c")}, order("2"))
		bFailed  = list{succeeded("a"), failedWith("b", 3), running("c")}
		finalToo = list{succeeded("a"), failedWith("b", 3), failedWith("c", 4)}
		why      = halt(`step "b" failed with exit code 3`)
		retry    = func(task *v1alpha1.Task) { task.Spec.BackoffLimit = 1 }
		timeout  = func(task *v1alpha1.Task) {
			task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: 30 * time.Second}, &metav1.Duration{Duration: 2 * time.Minute}
		}
		tooLong = func(pod *corev1.Pod) {
			halt("the Task took longer than spec.timeout, which is 30s")(pod)
			annotated(contract.CancelAnnotation, contract.CancelDeadlineExceeded)(pod)
		}
		bEnded   = leftRecord("b", 143, contract.Record{Reason: contract.ReasonCancelled}, true)
		cRuns    = state(list{succeeded("a"), bEnded, running("c")}, tooLong)
		byDead   = func(pod *corev1.Pod) { pod.Status.Phase, pod.Status.Reason = corev1.PodFailed, "DeadlineExceeded" }
		cStopped = leftRecord("c", 143, contract.Record{Reason: contract.ReasonStopped}, true)
	)
	const (
		bStarted  = `StepStarted: step "b" started`
		cStarted  = `StepStarted: step "c" started`
		cEnded    = `StepSucceeded: step "c" succeeded`
		bTold     = `StepFailed: step "b" failed with exit code 3`
		begins    = `StepSucceeded: step "a" succeeded`
		interrupt = `StepFailed: step "b" failed with exit code 143 (DeadlineExceeded)`
		timedOut  = `DeadlineExceeded: the Task took longer than spec.timeout, which is 30s`
		finally   = "; its final steps took longer than spec.finallyTimeout, which is 2m0s"
	)
	cases := map[string]struct {
		task func(*v1alpha1.Task)
		pods []*corev1.Pod
		want []string
	}{
		"a step failed": {
			nil, []*corev1.Pod{bRuns, state(bFailed, why), state(list{succeeded("a"), failedWith("b", 3), succeeded("c")}, why)},
			[]string{begins, bStarted, bTold, cStarted, cEnded, `StepFailed: the Task failed: step "b" failed with exit code 3`},
		},
		"a final step failed, too": {
			nil, []*corev1.Pod{bRuns, state(bFailed, why), state(finalToo, why)},
			[]string{
				begins, bStarted, bTold, cStarted, `StepFailed: final step "c" failed with exit code 4`,
				`StepFailed: the Task failed: step "b" failed with exit code 3; final step "c" failed with exit code 4`,
			},
		},
		"only a final step failed": {
			nil, []*corev1.Pod{bRuns, state(list{succeeded("a"), succeeded("b"), failedWith("c", 4)})},
			[]string{begins, bStarted, `StepSucceeded: step "b" succeeded`, `StepFailed: final step "c" failed with exit code 4`},
		},
		"a final step failed, and another attempt follows": {
			retry, []*corev1.Pod{bRuns, state(bFailed, why), state(finalToo, why)},
			[]string{
				begins, bStarted, bTold, cStarted, `StepFailed: final step "c" failed with exit code 4`,
				`Retrying: the Pod "example" failed, and the next one is created at 12:01:15: step "b" failed with exit code 3; final step "c" failed with exit code 4`,
			},
		},
		"spec.timeout passed": {
			timeout, []*corev1.Pod{bRuns, cRuns, state(list{succeeded("a"), bEnded, succeeded("c")}, tooLong)},
			[]string{begins, bStarted, interrupt, cStarted, cEnded, timedOut},
		},
		"spec.finallyTimeout passed": {
			timeout, []*corev1.Pod{bRuns, cRuns, cRuns, state(list{succeeded("a"), bEnded, cStopped}, tooLong, byDead)},
			[]string{begins, bStarted, interrupt, cStarted, `StepFailed: final step "c" failed with exit code 143 (DeadlineExceeded)`, timedOut + finally + `; final step "c" failed with exit code 143 (DeadlineExceeded)`},
		},
		"the final steps ended before the operator looked": {
			timeout, []*corev1.Pod{bRuns, cRuns, state(list{succeeded("a"), bEnded, succeeded("c")}, tooLong, phase(corev1.PodFailed))},
			[]string{begins, bStarted, interrupt, cStarted, cEnded, timedOut},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, told(c.task, c.pods...)); diff != "" {
				t.Errorf("the events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEventsOfAStepThatChecksFirst proves that no event says that a step started before its command is known to have run, and that what is added to
// the sentence about a failed step stands before the remedy.
func TestEventsOfAStepThatChecksFirst(t *testing.T) {
	const remedy = `input V: step "a" has no output A; write A=VALUE to $TASKFLOW_OUTPUT there, or set a default`
	options := contract.Options{
		"b": {When: []contract.Condition{{}}, Inputs: []contract.Input{{Name: "V"}}, ContinueOnError: true, Retries: 1},
	}
	state := func(b corev1.ContainerStatus, edits ...edit) *corev1.Pod {
		return sequential(append([]edit{
			annotated(contract.OptionsAnnotation, options.Marshal()), order("3"), containers(succeeded("a"), b, succeeded("c")),
		}, edits...)...)
	}
	runs := sequential(annotated(contract.OptionsAnnotation, options.Marshal()), order("2"), containers(succeeded("a"), running("b"), running("c")))
	code := 125
	missing := leftRecord("b", 0, contract.Record{Reason: contract.ReasonInputInvalid, Message: remedy, Passes: true, CommandExitCode: &code}, false)
	cases := map[string]struct {
		end  corev1.ContainerStatus
		want []string
	}{
		"it ran": {leftRecord("b", 0, contract.Record{}, true), []string{
			`StepStarted: step "b" started`, `StepSucceeded: step "b" succeeded`, "Complete: all steps succeeded",
		}},
		"a condition did not hold": {leftRecord("b", 0, contract.Record{Reason: contract.ReasonWhenFalse, Message: "why"}, false), []string{
			`StepSkipped: step "b" was skipped: why`, "Complete: all steps succeeded or were skipped by their conditions",
		}},
		"an input is missing": {missing, []string{
			`StepFailed: step "b" failed with exit code 125 (InputInvalid): ` + remedy,
			`Complete: all steps have ended; step "b" failed with exit code 125 (InputInvalid), which does not fail the Task (onError: Continue): ` + remedy,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := append([]string{`StepSucceeded: step "a" succeeded`}, c.want[:len(c.want)-1]...)
			want = append(want, `StepSucceeded: step "c" succeeded`, c.want[len(c.want)-1])
			if diff := cmp.Diff(want, told(nil, runs, state(c.end))); diff != "" {
				t.Errorf("the events (-want +got):\n%s", diff)
			}
			var h history
			var got []string
			for _, pod := range []*corev1.Pod{runs, state(c.end)} {
				seen := observe(pod)
				for _, e := range stepEvents(h.next(pod, seen), seen) {
					got = append(got, e.reason+": "+e.note)
				}
			}
			if diff := cmp.Diff(want[1:len(want)-1], got); diff != "" {
				t.Errorf("the events of a Pod without a Task (-want +got):\n%s", diff)
			}
		})
	}

	delete(options, "b")
	invalid := leftRecord("b", 125, contract.Record{Reason: contract.ReasonInputInvalid, Message: remedy}, false)
	pod := state(invalid)
	want := `step "b" failed with exit code 125 (InputInvalid) in the Pod "example": ` + remedy
	if diff := cmp.Diff(want, ownerEvent(pod, observe(pod)).note); diff != "" {
		t.Errorf("the event of a Job (-want +got):\n%s", diff)
	}
}
