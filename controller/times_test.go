package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestStepTimes proves that a step has its start while it runs, that the exact one takes its place at the end, and how long it took: that
// is there only for a step that has ended.
func TestStepTimes(t *testing.T) {
	second := func(n float64) time.Time { return created.Add(time.Duration(n * float64(time.Second))) }
	runningSince := func(name string, at time.Time) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: at}}}}
	}
	record := func(name string, start, end time.Time) corev1.ContainerStatus {
		return exited(name, 0, "Completed", contract.Record{StartedAt: &start, FinishedAt: end}.Marshal())
	}
	cases := map[string]struct {
		pod  *corev1.Pod
		want []string // start, end and duration of each step
	}{
		"the first step runs": {
			sequential(containers(runningSince("a", second(2)), runningSince("b", second(3)), runningSince("c", second(3)))),
			[]string{"2s - ", " - ", " - "},
		},
		"the first step waited for a helper": {
			sequential(containers(runningSince("a", second(2)), runningSince("helper", second(9)), runningSince("b", second(3)), runningSince("c", second(3)))),
			[]string{"9s - ", " - ", " - "},
		},
		"the second runs since the end of the first": {
			sequential(containers(record("a", second(4), second(14.5)), runningSince("b", second(3)), runningSince("c", second(3)))),
			[]string{"4s - 14.5s 10s", "14.5s - ", " - "},
		},
		"the second's container started later": {
			sequential(order("2"), containers(record("a", second(4), second(5)), runningSince("b", second(20)), runningSince("c", second(3)))),
			[]string{"4s - 5s 1s", "20s - ", " - "},
		},
		"the second has ended, and its record says when it started": {
			sequential(order("2"), containers(record("a", second(4), second(14.5)), record("b", second(14.504), second(14.754)), runningSince("c", second(3)))),
			[]string{"4s - 14.5s 10s", "14.504s - 14.754s 250ms", "14.754s - "},
		},
		"it took some seconds": {
			sequential(containers(record("a", second(4), second(7.46)))),
			[]string{"4s - 7.46s 3.5s", " - ", " - "},
		},
		"its end is before its start": {
			sequential(containers(record("a", second(4), second(3)))),
			[]string{"4s - 4s 0s", " - ", " - "},
		},
		"a failed step": {
			sequential(containers(failedWith("a", 1), runningSince("b", second(3)), runningSince("c", second(3)))),
			[]string{"0s - 1m5s 65s", " - ", " - "},
		},
		"the container of a skipped step was late": {
			sequential(
				annotated(contract.OptionsAnnotation, contract.Options{"c": {Finally: true}}.Marshal()), halt("why"), order("3"),
				containers(
					exited("a", 3, "Error", contract.Record{StartedAt: new(second(4)), FinishedAt: second(5), ExitCode: 3}.Marshal()),
					exited("b", 0, "Completed", contract.Record{FinishedAt: second(20), Reason: contract.ReasonSkipped}.Marshal()), record("c", second(6), second(30)),
				),
			),
			[]string{"4s - 5s 1s", " - 20s", "6s - 30s 24s"},
		},
		"a skipped step": {
			sequential(halt("why"), containers(failedWith("a", 1), skipped("b"), skipped("c"))),
			[]string{"0s - 1m5s 65s", " - 1m5s", " - 1m5s"},
		},
	}
	since := func(at *metav1.MicroTime) string {
		if at == nil {
			return ""
		}
		return at.Sub(created).String()
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, step := range observe(c.pod).steps {
				line := since(step.StartedAt) + " - " + since(step.FinishedAt)
				if step.Duration != "" {
					line += " " + step.Duration
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the times (-want +got):\n%s", diff)
			}
		})
	}
}
