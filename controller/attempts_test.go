package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// TestAttempts proves that new Pods follow failed ones up to backoffLimit, after pauses that double up to six minutes, and what the status says
// meanwhile.
func TestAttempts(t *testing.T) {
	retry := func(at time.Time) bring {
		return asked(func(spec *v1alpha1.TaskSpec) { spec.BackoffLimit = 8 }, func(n *next) {
			n.PodName = podspec.Name(&v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example"}}, int32(len(n.Attempts)+1))
			n.podFailed("StepFailed", "why", at)
		})
	}
	var states []bring
	for i, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 360, 360} {
		states = append(states, retry(created.Add(time.Duration(i)*time.Hour+500*time.Millisecond)))
		status := statusAfter(states...)
		failed := created.Add(time.Duration(i) * time.Hour)
		n := &next{TaskStatus: status}
		if got, want := n.nextAttempt(), failed.Add(pause*time.Second); !got.Equal(want) {
			t.Errorf("after %d failures the next Pod is due at %s, want %s", i+1, got, want)
		}
		if got := len(status.Attempts); got != i+1 || status.Attempt != int32(i+2) || finished(&status) {
			t.Errorf("after %d failures the status is %+v", i+1, status)
		}
	}
	want := view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Progressing: `False Retrying: the Pod "example-retry-7" failed, and the next one is created at 19:06:00: why`}
	if diff := cmp.Diff(want, viewOf(statusAfter(states...))); diff != "" {
		t.Errorf("the status after 8 failures (-want +got):\n%s", diff)
	}
	last := statusAfter(append(states, retry(lookedAt))...)
	if last.Phase != v1alpha1.TaskFailed || !finished(&last) || len(last.Attempts) != 8 {
		t.Errorf("the status after the last failure is %+v", last)
	}
	if got := (&next{}).nextAttempt(); !got.IsZero() {
		t.Errorf("the first Pod is due at %s, want at once", got)
	}
}

// TestNextAttemptWaits proves that the next Pod is not created while containers of the failed one may run, and that the Task says what it waits
// for.
func TestNextAttemptWaits(t *testing.T) {
	retrying := func(task *v1alpha1.Task) {
		task.Spec.BackoffLimit = 1
		task.Status.StartTime, task.Status.Attempt, task.Status.Phase = &metav1.Time{Time: created}, 2, v1alpha1.TaskPending
		task.Status.Attempts = []v1alpha1.AttemptStatus{{PodName: "example", CompletionTime: metav1.Time{Time: ended}, Reason: "StepFailed"}}
	}
	failed := []edit{owned, onNode, halt("why"), containers(failedWith("a", 3), skipped("b"), skipped("c"))}
	deletedAt := func(at time.Time) edit {
		return func(pod *corev1.Pod) {
			pod.DeletionTimestamp, pod.Finalizers = &metav1.Time{Time: at}, []string{"example.com/keep"}
		}
	}
	proxied := containers(failedWith("a", 3), skipped("b"), skipped("c"), running("proxy"))
	const waits = `PodTerminating: the next Pod is created when the failed Pod "example" has ended`
	cases := map[string]struct {
		pod   *corev1.Pod
		want  string // the condition Progressing; empty: the next Pod is there
		ended bool   // the old Pod is
		again time.Duration
	}{
		"its sidecars are being stopped": {pod: sequential(failed...), want: "True " + waits},
		"it is being deleted":            {pod: sequential(append(failed, deletedAt(lookedAt.Add(30*time.Second)))...), want: "True " + waits, again: 30 * time.Second},
		"its node is lost": {
			pod: sequential(append(failed, deletedAt(lookedAt.Add(-time.Minute)))...),
			want: "False " + waits + `: its grace period ended at 2026-03-01T12:02:00Z, and its node "node" has not confirmed the end; ` +
				"if the node is lost, delete the Node, or delete the Pod with --force",
		},
		"what is no step runs on":     {pod: sequential(append(failed, proxied)...), want: "True " + waits, ended: true},
		"it has ended":                {pod: sequential(append(failed, phase(corev1.PodFailed))...), again: startPatience},
		"it is gone":                  {pod: sequential(owned, named("another")), again: startPatience},
		"it is another's by now":      {pod: sequential(onNode), again: startPatience},
		"it was gone, says the cache": {pod: sequential(failed...), want: "True " + waits},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(retrying), c.pod)
			if name == "it was gone, says the cache" {
				w.cached = func(*corev1.Pod) bool { return false }
			}
			result, err := w.reconcile()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if progressing := meta.FindStatusCondition(w.task().Status.Conditions, v1alpha1.ConditionProgressing); c.want != "" && progressing != nil {
				got = string(progressing.Status) + " " + progressing.Reason + ": " + progressing.Message
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the condition Progressing (-want +got):\n%s", diff)
			}
			if there := w.pod("example-retry-1") != nil; there != (c.want == "") {
				t.Errorf("the next Pod is there: %t", there)
			}
			if old := w.pod("example"); old != nil && (old.Spec.ActiveDeadlineSeconds != nil) != c.ended {
				t.Errorf("the deadline of the failed Pod is %v", old.Spec.ActiveDeadlineSeconds)
			}
			if result.RequeueAfter != c.again {
				t.Errorf("it is looked at again after %s, want %s", result.RequeueAfter, c.again)
			}
		})
	}
}
