package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestExactlyOneRow proves that exactly one row of the decision table matches each combination of values.
func TestExactlyOneRow(t *testing.T) {
	for spec := asksRun; spec <= asksCancel; spec <<= 1 {
		for time := inTime; time <= timedOut; time <<= 1 {
			for pod := podPaused; pod <= podActive; pod <<= 1 {
				for steps := stepsChanged; steps <= stepsStarting; steps <<= 1 {
					var names []string
					for _, row := range rows {
						if row.when.matches(situation{spec, time, pod, steps}) {
							names = append(names, row.name)
						}
					}
					if len(names) != 1 {
						t.Errorf("spec %b, time %b, pod %b, steps %b: the rows are %q", spec, time, pod, steps, names)
					}
				}
			}
		}
	}
}

// TestRows proves for each row of the decision table which facts lead to it, and what follows: the phase, the condition that says most, and what
// is done to the Pod. It is 12:03:00, and the Pod was created at 12:00:00.
func TestRows(t *testing.T) {
	suspend := func(task *v1alpha1.Task) { task.Spec.Suspend = true }
	timeout := func(task *v1alpha1.Task) {
		task.Spec.Timeout, task.Status.StartTime = &metav1.Duration{Duration: 2 * time.Minute}, &metav1.Time{Time: created}
	}
	failedAt := func(at time.Time) func(*v1alpha1.Task) {
		return func(task *v1alpha1.Task) {
			task.Spec.BackoffLimit, task.Status.Attempt = 1, 2
			task.Status.Attempts = []v1alpha1.AttemptStatus{{PodName: "example", CompletionTime: metav1.Time{Time: at}, Reason: "StepFailed"}}
		}
	}
	notScheduled := func(reason string) edit {
		return func(pod *corev1.Pod) {
			pod.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
				{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: "why"},
			}}
			pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "gate"}}
		}
	}
	evicted := func(pod *corev1.Pod) { pod.Status.Reason, pod.Status.Message = "Evicted", "why" }
	run := containers(running("a"), running("b"), running("c"))
	fail := containers(failedWith("a", 3), running("b"), running("c"))
	succeed := containers(succeeded("a"), succeeded("b"), succeeded("c"))
	formerTask := func(pod *corev1.Pod) {
		owned(pod)
		pod.OwnerReferences[0].UID = "former"
	}
	permanent := &entrypoint.Error{Image: "x", Cause: "has no command", Remedy: "set command", Permanent: true}
	pod := func(edits ...edit) func(*facts) { return func(f *facts) { f.pod = sequential(edits...) } }
	final := annotated(contract.OptionsAnnotation, contract.Options{"c": {Finally: true}}.Marshal())
	cancelling := func(pod *corev1.Pod) {
		halt("spec.cancel of the Task is true")(pod)
		annotated(contract.CancelAnnotation, contract.CancelCancelled)(pod)
	}
	interrupted := exited("a", 143, "Error", contract.Record{FinishedAt: ended, StartedAt: &started, ExitCode: 143, Reason: contract.ReasonCancelled}.Marshal())
	why := func(u unresolved) func(*facts) { return func(f *facts) { f.unresolved = &u } }

	cases := map[string]struct {
		task  func(*v1alpha1.Task)
		facts func(*facts)
		want  string
	}{
		"cancelled without a Pod":  {cancel, nil, "Cancelled Failed Cancelled: spec.cancel is true"},
		"suspended":                {suspend, nil, "Suspended Progressing Suspended: spec.suspend is true"},
		"timed out without a Pod":  {timeout, nil, "Failed Failed DeadlineExceeded: the Task took longer than spec.timeout, which is 2m0s"},
		"pause before a retry":     {failedAt(lookedAt.Add(-4 * time.Second)), nil, "again in 6s"},
		"failed Pod has not ended": {failedAt(created), func(f *facts) { f.failedPod = sequential() }, `Progressing PodTerminating: the next Pod is created when the failed Pod "example" has ended`},
		"spec can't be run":        {func(task *v1alpha1.Task) { task.Spec.Steps[0].DependsOn = []string{"nobody"} }, nil, `Failed Failed SpecInvalid: spec.steps[0].dependsOn[0]: there is no step "nobody" in the list: add it, or fix the name`},
		"resolving a command":      {nil, why(unresolved{pending: time.Millisecond}), "again in 999ms"},
		"resolving a command takes long": {
			func(task *v1alpha1.Task) { task.Spec.Steps[0].Container = corev1.Container{Name: "a", Image: "x"} }, why(unresolved{pending: time.Minute}),
			`Pending Progressing EntrypointUnresolved: step "a": resolving the command of image "x"; set command to skip the look-up`,
		},
		"command not resolved yet":                    {nil, why(unresolved{err: errors.New("why"), again: time.Minute}), "Pending Progressing EntrypointUnresolved: why; again in 1m0s"},
		"command can't be resolved":                   {nil, why(unresolved{err: permanent}), `Failed Failed EntrypointUnresolved: image "x" has no command; set command`},
		"Pod is due":                                  {nil, nil, "create"},
		"Pod is gone":                                 {hasPod, nil, `Failed Failed PodDeleted: the Pod "example" was deleted before all steps had ended`},
		"name taken by a former Task's Pod":           {nil, func(f *facts) { f.foreign = sequential(formerTask) }, `Pending Progressing PodNameConflict: the Pod "example" of an earlier Task of this name is still being deleted; retry`},
		"name taken by another Pod":                   {nil, func(f *facts) { f.foreign = sequential() }, `Failed Failed PodNameConflict: Pod "example" exists and does not belong to this Task; delete or rename it, then create the Task again`},
		"final container states are due":              {nil, func(f *facts) { pod(run, phase(corev1.PodFailed))(f); f.settleTime = time.Second }, "again in 1s"},
		"reason of a kill is due":                     {nil, pod(containers(exited("a", 137, "Error", ""))), ""},
		"steps annotation was changed":                {nil, pod(annotated(contract.StepsAnnotation, "a")), `Failed Failed PodFailed: the annotation taskflow.practice.com/steps of the Pod "example" was changed; halt`},
		"all steps succeeded":                         {nil, pod(succeed), "Succeeded Complete StepsSucceeded: all steps succeeded"},
		"cancelled while unscheduled":                 {cancel, pod(notScheduled("Unschedulable")), `Cancelled Failed Cancelled: spec.cancel is true; the Pod "example" was deleted, because no node had taken it; delete`},
		"cancelled, and the Pod is deleted":           {cancel, pod(run, deleted), "Cancelled Failed Cancelled: spec.cancel is true; halt"},
		"cancelled, and nothing runs":                 {cancel, pod(containers(failedWith("a", 3), skipped("b"), skipped("c"))), "Cancelled Failed Cancelled: spec.cancel is true; halt"},
		"cancelled while the Pod runs":                {cancel, pod(run), "Running Progressing Cancelled: spec.cancel is true: the running containers are being terminated; halt"},
		"Pod is being deleted":                        {nil, pod(run, deleted), `Failed Failed PodDeleted: the Pod "example" was deleted before all steps had ended; halt`},
		"step failed":                                 {nil, pod(fail), `Failed Failed StepFailed: step "a" failed with exit code 3; halt`},
		"Pod ended before its steps":                  {nil, pod(fail, evicted, phase(corev1.PodFailed)), "Failed Failed Evicted: the Pod failed: why; halt"},
		"timed out while unscheduled":                 {timeout, pod(notScheduled("Unschedulable")), `Failed Failed DeadlineExceeded: the Task took longer than spec.timeout, which is 2m0s; the Pod "example" was deleted, because no node had taken it; delete`},
		"timed out while the Pod runs":                {timeout, pod(run), "Running Progressing DeadlineExceeded: the Task took longer than spec.timeout, which is 2m0s: its Pod is being terminated; end"},
		"interrupted, and the Pod goes on":            {nil, pod(containers(failedWith("a", 137), running("b"), running("c")), evicted), "Running"},
		"cancelled, and a final step runs or is next": {cancel, pod(final, cancelling, order("3"), containers(interrupted, skipped("b"), running("c"))), `Running Progressing FinalStepRunning: final step "c" is running; the other steps have ended: spec.cancel of the Task is true; halt`},
		"cancelled, and a final step can't start":     {cancel, pod(final, cancelling, containers(interrupted, skipped("b"), waiting("c", "ErrImagePull", "why"))), `Running Progressing ImagePullBackOff: container "c" cannot start: why; again in 5m0s; halt`},
		"sequence was halted":                         {nil, pod(final, halt("why"), containers(succeeded("a"), skipped("b"), succeeded("c"))), "Failed Failed PodFailed: the sequence was halted: why; halt"},
		"timed out, and final steps follow":           {timeout, pod(final, run), "Running Progressing DeadlineExceeded: the Task took longer than spec.timeout, which is 2m0s: its final steps follow; again in 4m1s; halt"},
		"final step runs or is next":                  {nil, pod(final, halt("why"), containers(failedWith("a", 3), skipped("b"), running("c"))), `Running Progressing FinalStepRunning: final step "c" is next; the other steps have ended: why`},
		"final step can't start":                      {nil, pod(final, containers(succeeded("a"), succeeded("b"), waiting("c", "ErrImagePull", "why"))), `Running Progressing ImagePullBackOff: container "c" cannot start: why; again in 5m0s`},
		"halted, and containers have not ended":       {nil, pod(final, halt("why"), containers(failedWith("a", 3), running("b"), running("c"))), "Running"},
		"held by scheduling gates":                    {nil, pod(notScheduled(corev1.PodReasonSchedulingGated)), "Pending Progressing SchedulingGated: the Pod is not scheduled before its scheduling gates are removed: gate"},
		"unschedulable":                               {nil, pod(notScheduled("Unschedulable")), "Pending Progressing Unschedulable: the Pod is unschedulable: why"},
		"container can't start":                       {nil, pod(containers(waiting("a", "ErrImagePull", "why"))), `Running Progressing ImagePullBackOff: container "a" cannot start: why; again in 5m0s`},
		"step runs":                                   {nil, pod(run), `Running Progressing StepRunning: step "a" is running`},
		"first step waits for helpers":                {nil, pod(order("0"), run), `Running Progressing StepWaiting: step "a" waits until the helper containers are ready; again in 10s`},
		"next step is about to run":                   {nil, pod(containers(succeeded("a"), waiting("b", "ContainerCreating", ""))), `Running Progressing StepWaiting: step "b" is next; again in 10s`},
		"Pod is starting":                             {nil, pod(phase(corev1.PodPending)), `Pending Progressing PodCreated: the Pod "example" is starting; again in 10s`},
	}
	for _, row := range rows {
		c, has := cases[row.name]
		if !has {
			t.Errorf("the row %q has no case", row.name)
			continue
		}
		delete(cases, row.name)
		t.Run(row.name, func(t *testing.T) {
			f := facts{task: exampleTask(c.task), now: lookedAt, startGrace: 5 * time.Minute}
			if c.facts != nil {
				c.facts(&f)
			}
			n := nextStatus(f)
			if !row.when.matches(n.situation()) {
				t.Errorf("the row does not match the situation %+v", n.situation())
			}
			if diff := cmp.Diff(c.want, outcome(decide(f))); diff != "" {
				t.Errorf("the outcome (-want +got):\n%s", diff)
			}
		})
	}
	for name := range cases {
		t.Errorf("the case %q has no row", name)
	}
}

// outcome is what follows from a decision, in one line.
func outcome(n *next) string {
	parts := []string{string(n.Phase)}
	for _, kind := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
		if condition := meta.FindStatusCondition(n.Conditions, kind); condition != nil {
			parts[0] += fmt.Sprintf(" %s %s: %s", kind, condition.Reason, condition.Message)
			break
		}
	}
	for what, is := range map[string]bool{
		"create": n.create, "end": n.expire, "delete": n.remove, "halt": n.pod != nil && n.halt != "" && !n.remove, "retry": n.err != nil,
		fmt.Sprintf("again in %s", n.again.Round(time.Millisecond)): n.again > 0,
	} {
		if is {
			parts = append(parts, what)
		}
	}
	slices.Sort(parts[1:])
	return strings.TrimLeft(strings.Join(parts, "; "), "; ")
}
