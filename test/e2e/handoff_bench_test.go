//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// BenchmarkHandOff measures how long a Task of 20 short steps takes from its creation to its end, and how long the hops are: from the
// end of one command to the start of the next, by the clock of their agents.
//
//	go test -tags e2e -run '^$' -bench HandOff -benchtime 3x ./test/e2e
func BenchmarkHandOff(b *testing.B) {
	const steps = 20
	for name, annotations := range map[string]map[string]string{
		"local":      nil,
		"controller": {"taskflow.practice.com/handoff": "controller"},
	} {
		b.Run(name, func(b *testing.B) {
			namespace := newNamespace(b, "baseline")
			var total time.Duration
			var hops []time.Duration
			for i := range b.N {
				task := newTask(namespace, fmt.Sprintf("bench-%d-%d", b.N, i))
				task.Spec.Template = &v1alpha1.PodTemplate{Metadata: metav1.ObjectMeta{Annotations: annotations}}
				for step := range steps {
					task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: shell(fmt.Sprintf("step-%d", step+1), "sleep 0.3")})
				}
				began := time.Now()
				create(b, task)
				status := awaitTask(b, task, "the Task to succeed", inPhase(v1alpha1.TaskSucceeded))
				total += time.Since(began)
				for step := range steps - 1 {
					hops = append(hops, elapsed(status.Steps[step].FinishedAt, status.Steps[step+1].StartedAt))
				}
			}
			slices.Sort(hops)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(total.Seconds()/float64(b.N), "s/task")
			for _, p := range []int{50, 90, 99} {
				b.ReportMetric(float64(hops[(len(hops)-1)*p/100].Milliseconds()), fmt.Sprintf("ms-p%d/hop", p))
			}
			b.ReportMetric(float64(hops[len(hops)-1].Milliseconds()), "ms-max/hop")
		})
	}
}

func elapsed(from, to *metav1.MicroTime) time.Duration { return to.Sub(from.Time) }
