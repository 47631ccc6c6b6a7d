package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestMissedFinalSteps proves that the message about the end of a Task says if its final steps did not run, and names the step that took all of
// spec.finallyTimeout. The Task began at 12:00:00, its timeout is 1m, and its finallyTimeout is 30s.
func TestMissedFinalSteps(t *testing.T) {
	recorded := func(name string, code int, reason string, after time.Duration) corev1.ContainerStatus {
		at := created.Add(after)
		record := contract.Record{FinishedAt: at, ExitCode: code, Reason: reason}
		if reason != contract.ReasonTerminated {
			record.StartedAt = &started
		}
		status := exited(name, int32(code), "Error", record.Marshal())
		status.State.Terminated.FinishedAt = metav1.Time{Time: at}
		return status
	}
	stopped := func(after time.Duration) corev1.ContainerStatus {
		return recorded("b", 137, contract.ReasonCancelled, after)
	}
	waited := recorded("c", 143, contract.ReasonTerminated, 90*time.Second)
	ended := func(reason string, edits ...edit) []edit {
		return append(edits, phase(corev1.PodFailed), func(pod *corev1.Pod) { pod.Status.Reason, pod.Status.Message = reason, "why" })
	}
	told := annotated(contract.CancelAnnotation, contract.CancelDeadlineExceeded)
	const (
		timeout = "the Task took longer than spec.timeout, which is 1m0s"
		missed  = "; the final steps did not run"
	)
	cases := map[string]struct {
		task  func(*v1alpha1.Task)
		edits []edit // nil: the Pod is gone
		want  string
	}{
		"a step takes all of finallyTimeout": {nil, ended("DeadlineExceeded", told, containers(succeeded("a"), stopped(93*time.Second), waited)),
			timeout + missed + `, because step "b" had not ended when spec.finallyTimeout (30s) was over: raise it above the Pod's grace period`},
		"a step ends in time":  {nil, ended("DeadlineExceeded", told, containers(succeeded("a"), stopped(89*time.Second), waited)), timeout + missed},
		"the operator is away": {nil, ended("DeadlineExceeded", containers(succeeded("a"), stopped(93*time.Second), waited)), timeout + missed},
		"the final step runs":  {nil, ended("DeadlineExceeded", told, containers(succeeded("a"), stopped(65*time.Second), failedWith("c", 137))), timeout + `; its final steps took longer than spec.finallyTimeout, which is 30s; final step "c" failed with exit code 137 (DeadlineExceeded)`},
		"evicted":              {nil, ended("Evicted", containers(succeeded("a"), recorded("b", 143, contract.ReasonStopped, time.Minute), waited)), "the Pod failed: why" + missed},
		"deleted":              {nil, []edit{deleted, containers(succeeded("a"), running("b"), running("c"))}, `the Pod "example" was deleted before all steps had ended` + missed},
		"deleted while the final step runs": {nil, []edit{deleted, order("3"), containers(succeeded("a"), succeeded("b"), running("c"))},
			`the Pod "example" was deleted before all steps had ended`},
		"gone":                   {nil, nil, `the Pod "example" was deleted before all steps had ended` + missed},
		"cancelled, and deleted": {cancel, []edit{onNode, deleted, containers(succeeded("a"), running("b"), running("c"))}, "spec.cancel is true" + missed},
		"cancelled, deleted, and its agent was told": {cancel, []edit{onNode, deleted, containers(succeeded("a"), stopped(time.Minute), waited)},
			`spec.cancel is true; final step "c" was interrupted before its turn` + missed},
		"cancelled without a node": {cancel, []edit{unboundPod}, `spec.cancel is true; the Pod "example" was deleted, because no node had taken it`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := exampleTask(func(task *v1alpha1.Task) {
				hasPod(task)
				task.Status.StartTime = &metav1.Time{Time: created}
				task.Spec.Steps[2].Finally = true
				if c.task != nil {
					c.task(task)
				}
			})
			f := facts{task: task, now: created.Add(50 * time.Second), startGrace: 5 * time.Minute}
			task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: time.Minute}, &metav1.Duration{Duration: 30 * time.Second}
			if c.edits == nil {
				for _, name := range []string{"a", "b", "c"} {
					task.Status.Steps = append(task.Status.Steps, v1alpha1.StepStatus{Name: name, State: v1alpha1.StepWaiting})
				}
			} else {
				options := annotated(contract.OptionsAnnotation, contract.Options{"c": {Finally: true}}.Marshal())
				f.pod = sequential(append([]edit{owned, options, order("2")}, c.edits...)...)
			}
			n := decide(f)
			failed := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionFailed)
			if failed == nil {
				t.Fatalf("the Task has not failed: %+v", n.Conditions)
			}
			if diff := cmp.Diff(c.want, failed.Message); diff != "" {
				t.Errorf("the message (-want +got):\n%s", diff)
			}
		})
	}
}
