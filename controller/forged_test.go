package controller

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// forged returns a record that the command of a step wrote.
func forged(startedAt, finishedAt, rest string) string {
	return `{"taskflow":{"finishedAt":"` + finishedAt + `","exitCode":0,"startedAt":"` + startedAt + `"` + rest + `}}`
}

// TestRecordIsWithinTheKubeletsTimes proves that the times of a record count only within the times of its container, or of its Pod if the
// container was restarted; that its retries count up to the bound of the API; and that no step ends before it starts.
func TestRecordIsWithinTheKubeletsTimes(t *testing.T) {
	const first, last = "12:00:00", "12:01:05" // of the container
	again := func(container corev1.ContainerStatus) corev1.ContainerStatus {
		container.RestartCount = 1
		container.State.Terminated.StartedAt = metav1.Time{Time: ended}
		return container
	}
	cases := map[string]struct {
		message    string
		restarted  bool
		start, end string
		retries    int32
	}{
		"within":                         {forged("2026-03-01T12:00:02.5Z", "2026-03-01T12:00:09.25Z", `,"retries":3`), false, "12:00:02.5", "12:00:09.25", 3},
		"within the last second":         {forged("2026-03-01T12:01:05.5Z", "2026-03-01T12:01:05.999Z", ""), false, "12:01:05.5", "12:01:05.999", 0},
		"in 2001":                        {forged("2001-01-01T00:00:00Z", "2001-01-01T00:00:01Z", ""), false, first, last, 0},
		"in 2999":                        {forged("2999-01-01T00:00:00Z", "2999-01-01T00:00:01Z", ""), false, first, last, 0},
		"in year 10000":                  {forged("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59-14:00", ""), false, first, last, 0},
		"before year 0":                  {forged("0001-01-01T00:00:01+14:00", "0001-01-01T00:00:01+14:00", ""), false, first, last, 0},
		"a second too late":              {forged("2026-03-01T12:00:02Z", "2026-03-01T12:01:06Z", ""), false, "12:00:02", last, 0},
		"a moment too early":             {forged("2026-03-01T11:59:59.999Z", "2026-03-01T12:00:01Z", ""), false, first, "12:00:01", 0},
		"reversed":                       {forged("2026-03-01T12:00:09Z", "2026-03-01T12:00:02Z", ""), false, "12:00:09", "12:00:09", 0},
		"below 0 retries":                {forged("2026-03-01T12:00:02Z", "2026-03-01T12:00:09Z", `,"retries":-5`), false, "12:00:02", "12:00:09", 0},
		"more retries than allowed":      {forged("2026-03-01T12:00:02Z", "2026-03-01T12:00:09Z", `,"retries":2147483647`), false, "12:00:02", "12:00:09", 100},
		"before the container restarted": {forged("2026-03-01T12:00:02Z", "2026-03-01T12:00:09Z", ""), true, "12:00:02", "12:00:09", 0},
		"before a restarted Pod":         {forged("2001-01-01T00:00:00Z", "2001-01-01T00:00:01Z", ""), true, last, last, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			container := exited("a", 0, "Completed", c.message)
			if c.restarted {
				container = again(container)
			}
			pod := sequential(containers(container, running("b"), running("c")))
			pod.Status.StartTime = &metav1.Time{Time: created}
			step := observe(pod).steps[0]
			const format = "15:04:05.999999"
			got := []any{step.StartedAt.Format(format), step.FinishedAt.Format(format), step.Retries}
			if diff := cmp.Diff([]any{c.start, c.end, c.retries}, got); diff != "" {
				t.Errorf("the times and retries (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTTLCountsByOurClock proves that ttlSecondsAfterFinished counts from when the controller saw the end, regardless of the nodes' clocks.
func TestTTLCountsByOurClock(t *testing.T) {
	for name, completed := range map[string]time.Time{"in time": ended, "in 2001": time.Unix(1e9, 0), "in 2999": time.Unix(32e9, 0)} {
		t.Run(name, func(t *testing.T) {
			task := exampleTask(func(task *v1alpha1.Task) {
				task.Spec.TTLSecondsAfterFinished = new(int32(60))
				task.Status.CompletionTime = &metav1.Time{Time: completed}
				task.Status.Conditions = []metav1.Condition{{
					Type: v1alpha1.ConditionComplete, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Time{Time: lookedAt.Add(-20 * time.Second)},
				}}
			})
			w := newWorld(t, task)
			if result, err := w.reconcile(); err != nil || result.RequeueAfter != 40*time.Second {
				t.Fatalf("Reconcile returns %v, %v, want to look again after 40s", result, err)
			}
			w.reconciler.Now = func() time.Time { return lookedAt.Add(40 * time.Second) }
			if _, err := w.reconcile(); err != nil {
				t.Fatal(err)
			}
			if err := w.live.Get(t.Context(), client.ObjectKeyFromObject(task), task); !apierrors.IsNotFound(err) {
				t.Errorf("after its ttl, reading the Task returns %v", err)
			}
		})
	}
}

// TestTextsAreCleaned proves that texts from a step, a kubelet, a scheduler or a registry are short and clean in a status, a halt and events.
func TestTextsAreCleaned(t *testing.T) {
	nasty := "\x1b[31mno\r\n\x00such " + strings.Repeat("A", 40_000)
	scheduled := func(pod *corev1.Pod) {
		unboundPod(pod)
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: nasty, Message: nasty}}
	}
	evicted := func(pod *corev1.Pod) { pod.Status.Reason, pod.Status.Message = nasty, nasty }
	for name, pod := range map[string]*corev1.Pod{
		"a step's message":    sequential(containers(exited("a", 3, "Error", nasty), running("b"), running("c"))),
		"a step's record":     sequential(containers(exited("a", 0, nasty, forged("2026-03-01T12:00:02Z", "2026-03-01T12:00:09Z", `,"reason":"\u001b[2J","message":"\u001b]0;x\u0007\u0000\n"`)), running("b"), running("c"))),
		"a runtime's error":   sequential(containers(exited("a", 128, "StartError", nasty), running("b"), running("c"))),
		"a kubelet's error":   sequential(containers(waiting("a", "InvalidImageName", nasty), running("b"), running("c"))),
		"a kubelet's reason":  sequential(containers(waiting("a", nasty, nasty), running("b"), running("c"))),
		"a scheduler's words": sequential(scheduled),
		"an eviction":         sequential(phase(corev1.PodFailed), evicted, containers(exited("a", 137, "Error", ""), failedWith("b", 137), failedWith("c", 137))),
		"a disruption": sequential(phase(corev1.PodFailed), func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: nasty, Message: nasty}}
		}),
		"a Pod that is retried": sequential(containers(exited("a", 128, "StartError", nasty), running("b"), running("c"))),
	} {
		t.Run(name, func(t *testing.T) {
			owned(pod)
			w := newWorld(t, exampleTask(func(task *v1alpha1.Task) {
				hasPod(task)
				if name == "a Pod that is retried" {
					task.Spec.BackoffLimit = 1
				}
			}), pod)
			recorder := events.NewFakeRecorder(100)
			w.reconciler.Events = recorder
			if _, err := w.reconcile(); err != nil {
				t.Fatal(err)
			}
			status := w.task().Status
			texts := map[string]string{}
			for _, c := range status.Conditions {
				texts["condition "+c.Type], texts["the reason of condition "+c.Type] = c.Message, c.Reason
			}
			for _, step := range status.Steps {
				texts["step "+step.Name], texts["the reason of step "+step.Name] = step.Message, step.Reason
			}
			for _, attempt := range status.Attempts {
				texts["an attempt"], texts["the reason of an attempt"] = attempt.Message, attempt.Reason
			}
			maps.Copy(texts, w.pod("example").Annotations)
			for len(recorder.Events) > 0 {
				texts["an event"] = <-recorder.Events
				if len(texts["an event"]) > 1024+50 { // and its type and reason
					t.Errorf("an event has %d bytes", len(texts["an event"]))
				}
			}
			if len(texts) < 5 {
				t.Errorf("too little is said: %v", texts)
			}
			for what, text := range texts {
				if len(text) > maxStepMessage || clean(text, maxStepMessage) != text {
					t.Errorf("%s isn't clean: %d bytes, %.100q", what, len(text), text)
				}
			}
		})
	}
}

// TestRefusedStatus proves that a status which the API server rejects is reported in one event and a metric, and is not retried at once.
func TestRefusedStatus(t *testing.T) {
	refusal := apierrors.NewInvalid(schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "Task"}, "example", field.ErrorList{field.Invalid(field.NewPath("status", "steps"), nil, "too long")})
	for name, err := range map[string]error{
		"invalid":   refusal,
		"too large": apierrors.NewGenericServerResponse(http.StatusRequestEntityTooLarge, "patch", schema.GroupResource{}, "example", "", 0, false),
		"a policy":  apierrors.NewForbidden(schema.GroupResource{Resource: "tasks"}, "example", errors.New("denied")),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(hasPod), sequential(owned, onNode, containers(running("a"), running("b"), running("c"))))
			recorder := events.NewFakeRecorder(100)
			w.reconciler.Events = recorder
			w.reconciler.Client = interceptor.NewClient(w.live, interceptor.Funcs{
				SubResourcePatch: func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
					return err
				},
			})
			before := sums(t)["taskflow_statuses_refused_total"]
			for range 3 {
				result, err := w.reconcile()
				if err != nil || result.RequeueAfter != refusedRetry {
					t.Fatalf("Reconcile returns %v, %v, want to try again after %s", result, err, refusedRetry)
				}
			}
			if got := sums(t)["taskflow_statuses_refused_total"] - before; got != 3 {
				t.Errorf("the metric counts %v refusals, want 3", got)
			}
			if len(recorder.Events) != 1 {
				t.Fatalf("there are %d events, want 1", len(recorder.Events))
			}
			want := "Warning StatusRefused the API server rejected the Task's status, which stays unchanged: "
			if got := <-recorder.Events; !strings.HasPrefix(got, want) {
				t.Errorf("the event is %q, want %q", got, want)
			}
			if failed := meta.FindStatusCondition(w.task().Status.Conditions, v1alpha1.ConditionFailed); failed != nil {
				t.Errorf("the status was written: %+v", failed)
			}
		})
	}
}
