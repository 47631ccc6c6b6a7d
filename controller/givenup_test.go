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

// looks returns what the Task says each time the Pod is looked at: at first, and after further changes, each when the start grace period is over
// since the one before. What the controllers write comes to the Pod in between.
func looks(t *testing.T, pod *corev1.Pod, changes ...edit) []string {
	t.Helper()
	task := exampleTask(func(task *v1alpha1.Task) {
		hasPod(task)
		task.Spec.Steps = make([]v1alpha1.Step, len(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])))
	})
	var all []string
	for i := range len(changes) + 1 {
		if i > 0 {
			changes[i-1](pod)
		}
		lookAtOrder(t, pod)
		n := decide(facts{task: task, pod: pod, now: lookedAt.Add(time.Duration(i) * 5 * time.Minute), startGrace: 5 * time.Minute})
		for _, told := range n.untold(pod) {
			annotated(told.key, told.value)(pod)
		}
		if len(n.advance) > 0 {
			write(t, pod, n.seen)
		}
		task.Status = n.TaskStatus
		all = append(all, fmt.Sprintf("%s, order %s, %s: %s", n.CurrentStep, pod.Annotations[contract.OrderAnnotation], states(n.Steps), outcome(n)))
	}
	return all
}

// TestFinalStepCannotStart proves that the next final step runs when the container of one can't start for the start grace period, what it is told,
// and that the Task ends as after a failure of that step. Step a is followed by the final steps f, g and h.
func TestFinalStepCannotStart(t *testing.T) {
	missing := func(name string) corev1.ContainerStatus { return waiting(name, "CreateContainerConfigError", "why") }
	with := func(options contract.Options, statuses ...corev1.ContainerStatus) *corev1.Pod {
		for _, name := range []string{"f", "g", "h"} {
			step := options[name]
			step.Finally = true
			options[name] = step
		}
		return sequential(annotated(contract.StepsAnnotation, "a,f,g,h"), annotated(contract.OptionsAnnotation, options.Marshal()), containers(statuses...))
	}
	type options = contract.Options
	goesOn := options{"f": {ContinueOnError: true}}
	same := func(*corev1.Pod) {}
	const (
		cause  = `container %q cannot start: why`
		lasted = "; this lasted 5m0s (--start-grace-period); the Task has failed: fix the cause, then create the Task again"
		failed = `step "a" failed with exit code 3`
	)
	stuck := func(name string) string {
		return "Running Progressing CreateContainerConfigError: " + fmt.Sprintf(cause, name) + "; again in 5m0s"
	}
	next := func(what, behind string) string {
		return "Running Progressing FinalStepRunning: final step " + what + behind
	}
	cases := map[string]struct {
		pod     *corev1.Pod
		changes []edit
		want    []string
		told    string
	}{
		"the first of three": {
			with(options{}, succeeded("a"), missing("f"), running("g"), running("h")),
			[]edit{same, same, containers(succeeded("a"), missing("f"), succeeded("g"), running("h")), containers(succeeded("a"), missing("f"), succeeded("g"), succeeded("h"))},
			[]string{
				"f, order 2, Succeeded Waiting Waiting Waiting: " + stuck("f"),
				"g, order 3, Succeeded Failed Running Waiting: " + next(`"g" is running`, ""),
				"g, order 3, Succeeded Failed Running Waiting: " + next(`"g" is running`, ""),
				"h, order 4, Succeeded Failed Succeeded Running: " + next(`"h" is running`, ""),
				"f, order 4, Succeeded Failed Succeeded Succeeded: Failed Failed CreateContainerConfigError: " + fmt.Sprintf(cause, "f") + lasted + "; end; halt",
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Failed -1","3":"Succeeded 0"}}`,
		},
		"a step has failed": {
			with(options{}, failedWith("a", 3), missing("f"), running("g"), running("h")),
			[]edit{same, containers(failedWith("a", 3), missing("f"), succeeded("g"), succeeded("h"))},
			[]string{
				"f, order 2, Failed Waiting Waiting Waiting: " + stuck("f"),
				"g, order 3, Failed Failed Running Waiting: " + next(`"g" is running`, "; the other steps have ended: "+failed),
				"a, order 3, Failed Failed Succeeded Succeeded: Failed Failed StepFailed: " + failed + `; final step "f" failed (CreateContainerConfigError); end; halt`,
			},
			`{"status":"Failed","failedStep":"a","steps":{"1":"Failed 3","2":"Failed -1"}}`,
		},
		"onError: Continue": {
			with(goesOn, succeeded("a"), missing("f"), running("g"), running("h")),
			[]edit{same, containers(succeeded("a"), missing("f"), succeeded("g"), succeeded("h"))},
			[]string{
				"f, order 2, Succeeded Waiting Waiting Waiting: " + stuck("f"),
				"g, order 3, Succeeded Failed Running Waiting: " + next(`"g" is running`, ""),
				`, order 4, Succeeded Failed Succeeded Succeeded: Succeeded Complete StepsSucceeded: all steps have ended; final step "f" failed (CreateContainerConfigError), which does not fail the Task (onError: Continue); end`,
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Failed -1","3":"Succeeded 0","4":"Succeeded 0"}}`,
		},
		"two of them": {
			with(options{}, succeeded("a"), missing("f"), missing("g"), running("h")),
			[]edit{same, same, same, containers(succeeded("a"), missing("f"), missing("g"), succeeded("h"))},
			[]string{
				"f, order 2, Succeeded Waiting Waiting Waiting: " + stuck("f"),
				"g, order 3, Succeeded Failed Waiting Waiting: " + next(`"g" is next`, ""),
				"g, order 3, Succeeded Failed Waiting Waiting: " + stuck("g"),
				"h, order 4, Succeeded Failed Failed Running: " + next(`"h" is running`, ""),
				"f, order 4, Succeeded Failed Failed Succeeded: Failed Failed CreateContainerConfigError: " + fmt.Sprintf(cause, "f") + lasted +
					`; final step "g" failed (CreateContainerConfigError); end; halt`,
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Failed -1","3":"Failed -1"}}`,
		},
		"the last": {
			with(options{}, succeeded("a"), succeeded("f"), succeeded("g"), missing("h")), []edit{same},
			[]string{
				"h, order 4, Succeeded Succeeded Succeeded Waiting: " + stuck("h"),
				"h, order 4, Succeeded Succeeded Succeeded Failed: Failed Failed CreateContainerConfigError: " + fmt.Sprintf(cause, "h") + lasted + "; end; halt",
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Succeeded 0","3":"Succeeded 0"}}`,
		},
		"the last, onError: Continue": {
			with(options{"h": {ContinueOnError: true}}, succeeded("a"), succeeded("f"), succeeded("g"), missing("h")), []edit{same},
			[]string{
				"h, order 4, Succeeded Succeeded Succeeded Waiting: " + stuck("h"),
				`, order 4, Succeeded Succeeded Succeeded Failed: Succeeded Complete StepsSucceeded: all steps have ended; final step "h" failed (CreateContainerConfigError), which does not fail the Task (onError: Continue); end`,
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Succeeded 0","3":"Succeeded 0"}}`,
		},
		"it starts late": {
			with(options{}, succeeded("a"), missing("f"), running("g"), running("h")),
			[]edit{same, containers(succeeded("a"), running("f"), succeeded("g"), succeeded("h")), containers(succeeded("a"), succeeded("f"), succeeded("g"), succeeded("h"))},
			[]string{
				"f, order 2, Succeeded Waiting Waiting Waiting: " + stuck("f"),
				"g, order 3, Succeeded Failed Running Waiting: " + next(`"g" is running`, ""),
				"f, order 3, Succeeded Running Succeeded Succeeded: " + next(`"f" is running`, ""),
				", order 4, Succeeded Succeeded Succeeded Succeeded: Succeeded Complete StepsSucceeded: all steps succeeded",
			},
			`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Succeeded 0","3":"Succeeded 0","4":"Succeeded 0"}}`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, looks(t, c.pod, c.changes...)); diff != "" {
				t.Errorf("what comes of it (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.told, c.pod.Annotations[contract.OutcomeAnnotation]); diff != "" {
				t.Errorf("what the final steps are told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStepBesideCannotStart proves what a Task says while a step runs and the container of another one beside it can't start, that the start grace
// period goes on when the first one ends, and that the message of the end and the current step are about the step that failed first. Steps b and c
// follow a, and f is final.
func TestStepBesideCannotStart(t *testing.T) {
	options := contract.Options{"b": {DependsOn: []string{"a"}}, "c": {DependsOn: []string{"a"}}, "f": {Finally: true}}
	pull := func(reason string) corev1.ContainerStatus { return waiting("b", reason, reason+" of x") }
	change := func(statuses ...corev1.ContainerStatus) edit {
		return containers(append([]corev1.ContainerStatus{succeeded("a")}, statuses...)...)
	}
	const cause = `container "b" cannot start: ErrImagePull of x`
	cases := map[string]struct {
		changes []edit
		want    []string
	}{
		"the other runs on": {
			[]edit{
				change(pull("ImagePullBackOff"), running("c"), running("f")), change(pull("ImagePullBackOff"), running("c"), running("f")),
				change(pull("ErrImagePull"), succeeded("c"), running("f")), change(pull("ErrImagePull"), succeeded("c"), failedWith("f", 4)),
			},
			[]string{
				"c, order 2, Succeeded Waiting Running Waiting: Running Progressing ImagePullBackOff: step \"c\" is running; " + cause + "; again in 5m0s",
				"c, order 2, Succeeded Waiting Running Waiting: Running Progressing ImagePullBackOff: step \"c\" is running; " + cause + "; halt",
				"c, order 2, Succeeded Failed Running Waiting: Running Progressing StepRunning: step \"c\" is running; no further step starts: " + cause,
				"f, order 3, Succeeded Failed Succeeded Running: Running Progressing FinalStepRunning: final step \"f\" is running; the other steps have ended: " + cause,
				"b, order 3, Succeeded Failed Succeeded Failed: Failed Failed ImagePullBackOff: " + cause +
					`; this lasted 5m0s (--start-grace-period); the Task has failed: fix the cause, then create the Task again; final step "f" failed with exit code 4; end; halt`,
			},
		},
		"the other ends": {
			[]edit{change(pull("ImagePullBackOff"), succeeded("c"), running("f")), change(pull("ImagePullBackOff"), succeeded("c"), running("f"))},
			[]string{
				"c, order 2, Succeeded Waiting Running Waiting: Running Progressing ImagePullBackOff: step \"c\" is running; " + cause + "; again in 5m0s",
				"b, order 2, Succeeded Waiting Succeeded Waiting: Running Progressing ImagePullBackOff: " + cause + "; halt",
				"f, order 3, Succeeded Failed Succeeded Running: Running Progressing FinalStepRunning: final step \"f\" is running; the other steps have ended: " + cause,
			},
		},
		"the other fails after that": {
			[]edit{change(pull("ErrImagePull"), running("c"), running("f")), change(pull("ErrImagePull"), failedWith("c", 3), succeeded("f"))},
			[]string{
				"c, order 2, Succeeded Waiting Running Waiting: Running Progressing ImagePullBackOff: step \"c\" is running; " + cause + "; again in 5m0s",
				"c, order 2, Succeeded Waiting Running Waiting: Running Progressing ImagePullBackOff: step \"c\" is running; " + cause + "; halt",
				"b, order 2, Succeeded Failed Failed Succeeded: Failed Failed ImagePullBackOff: " + cause +
					`; this lasted 5m0s (--start-grace-period); the Task has failed: fix the cause, then create the Task again; end; halt`,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := sequential(annotated(contract.StepsAnnotation, "a,b,c,f"), annotated(contract.OptionsAnnotation, options.Marshal()),
				change(pull("ErrImagePull"), running("c"), running("f")))
			if diff := cmp.Diff(c.want, looks(t, pod, c.changes...)); diff != "" {
				t.Errorf("what comes of it (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFailedBeforeTheDeadline proves that a Task says which step failed, or that it was cancelled, also if spec.finallyTimeout ends its final steps.
// Step a is followed by the final steps f and g.
func TestFailedBeforeTheDeadline(t *testing.T) {
	byDeadline := func(edits ...edit) *corev1.Pod {
		options := contract.Options{"f": {Finally: true}, "g": {Finally: true}}
		pod := sequential(append([]edit{annotated(contract.StepsAnnotation, "a,f,g"), annotated(contract.OptionsAnnotation, options.Marshal()), order("2")}, edits...)...)
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, "DeadlineExceeded", "why"
		return pod
	}
	stopped := leftRecord("f", 143, contract.Record{Reason: contract.ReasonStopped}, true)
	waited := leftRecord("g", 143, contract.Record{Reason: contract.ReasonTerminated}, false)
	const (
		late = "; the final steps took longer than spec.finallyTimeout, which is 30s"
		f    = `; final step "f" failed with exit code 143 (DeadlineExceeded)`
	)
	cases := map[string]struct {
		pod    *corev1.Pod
		cancel bool
		want   string
	}{
		"a step had failed": {
			byDeadline(halt(`step "a" failed with exit code 6`), containers(failedWith("a", 6), stopped, waited)), false,
			`a, StepFailed: step "a" failed with exit code 6` + late + f,
		},
		"a final step had failed": {
			byDeadline(order("3"), containers(succeeded("a"), failedWith("f", 6), leftRecord("g", 143, contract.Record{Reason: contract.ReasonStopped}, true))), false,
			`f, StepFailed: final step "f" failed with exit code 6` + late + `; final step "g" failed with exit code 143 (DeadlineExceeded)`,
		},
		"a step could not start": {
			byDeadline(halt(`container "a" cannot start: why`), containers(waiting("a", "ErrImagePull", "why"), stopped, waited)), false,
			`a, ImagePullBackOff: container "a" cannot start: why` + late + f,
		},
		"none had failed": {
			byDeadline(containers(succeeded("a"), stopped, waited)), false,
			"f, DeadlineExceeded: the Task took longer than spec.timeout, which is 1m0s; its" + late[len("; the"):],
		},
		"it was cancelled": {
			byDeadline(halt("spec.cancel of the Task is true"), annotated(contract.CancelAnnotation, contract.CancelCancelled), containers(
				leftRecord("a", 143, contract.Record{Reason: contract.ReasonCancelled}, true), stopped, waited)), true,
			"a, Cancelled: spec.cancel is true" + late + `; final step "f" failed with exit code 143 (Stopped); final step "g" was interrupted before its turn`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := exampleTask(func(task *v1alpha1.Task) {
				hasPod(task)
				task.Spec.Cancel, task.Status.StartTime = c.cancel, &metav1.Time{Time: created}
				task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: time.Minute}, &metav1.Duration{Duration: 30 * time.Second}
			})
			n := decide(facts{task: task, pod: c.pod, now: lookedAt, startGrace: 5 * time.Minute})
			end := endOf(&n.TaskStatus)
			if end == nil {
				t.Fatalf("the Task has not ended: %+v", n.Conditions)
			}
			if diff := cmp.Diff(c.want, fmt.Sprintf("%s, %s: %s", n.CurrentStep, end.Reason, end.Message)); diff != "" {
				t.Errorf("the current step and the end (-want +got):\n%s", diff)
			}
		})
	}
}
