package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/bench/report"
)

// width is how many steps start side by side in a fan-out.
const width = 10

// fanOut is one step that releases several at once.
type fanOut struct {
	released time.Time   // the end of the one
	starts   []time.Time // of the others, in order of time
}

// toFirst returns the time from the end of the one to the first start.
func (f fanOut) toFirst() time.Duration { return f.starts[0].Sub(f.released) }

// spread returns the time from the first start to the last one.
func (f fanOut) spread() time.Duration { return f.starts[len(f.starts)-1].Sub(f.starts[0]) }

// fanOuts runs Pods in which a step releases several at once.
func (b *bench) fanOuts(ctx context.Context, pods int) ([]fanOut, error) {
	var all []fanOut
	for range pods {
		_, err := b.run(ctx, fanOutTask, func(pod *corev1.Pod) error {
			fan, err := b.readFanOut(ctx, pod)
			all = append(all, fan)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("fan-out: %w", err)
		}
		last := all[len(all)-1]
		fmt.Fprintf(os.Stderr, "fan-out of %d: first start after %s, last one %s later\n", width, last.toFirst(), last.spread())
	}
	return all, nil
}

// fanOutTask returns a Task with a first step and others that follow it side by side. All of them print the clock.
func fanOutTask(meta metav1.ObjectMeta) client.Object {
	t := task(meta, work{steps: 1 + width, command: look + "; exec sleep 0.3"}, nil)
	t.Spec.Steps[0].Command = []string{"sh", "-c", "sleep " + allUp(1+width) + "; " + look}
	for i := range t.Spec.Steps[1:] {
		t.Spec.Steps[1+i].StepOptions = v1alpha1.StepOptions{DependsOn: []string{t.Spec.Steps[0].Name}}
	}
	return t
}

func (b *bench) readFanOut(ctx context.Context, pod *corev1.Pod) (fanOut, error) {
	var looks []time.Time
	for i := range 1 + width {
		step := container(i, "").Name
		log, err := b.clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: step}).DoRaw(ctx)
		if err != nil {
			return fanOut{}, err
		}
		found, err := parseLooks(string(log))
		if err != nil {
			return fanOut{}, fmt.Errorf("log of %s: %w", step, err)
		}
		looks = append(looks, found[0])
	}
	starts := looks[1:]
	slices.SortFunc(starts, time.Time.Compare)
	return fanOut{looks[0], starts}, nil
}

// writeFanOuts writes the table of fan-outs.
func (r *results) writeFanOuts(text *strings.Builder) {
	if len(r.fanOuts) == 0 {
		return
	}
	fmt.Fprintf(text, "\n## Side by side\n\nOne step releases %d others. By the commands' own clocks, in %d Pods:\n\n| | median | greatest |\n|---|---|---|\n", width, len(r.fanOuts))
	row := func(name string, times []time.Duration) {
		fmt.Fprintf(text, "| %s | %s | %s |\n", name, report.Milliseconds(report.Quantile(times, 0.5)), report.Milliseconds(report.Quantile(times, 1)))
	}
	row("from the end of the step to the first start", durations(r.fanOuts, fanOut.toFirst))
	row("from the first start to the last", durations(r.fanOuts, fanOut.spread))
}

func durations(fans []fanOut, of func(fanOut) time.Duration) []time.Duration {
	var all []time.Duration
	for _, fan := range fans {
		all = append(all, of(fan))
	}
	return all
}
