package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are durations by work and shape.
type results struct {
	plan  plan
	times map[string]map[string][]time.Duration
	hops  map[string][]time.Duration
}

func newResults(p plan) *results {
	return &results{plan: p, times: map[string]map[string][]time.Duration{}, hops: map[string][]time.Duration{}}
}

func (r *results) add(w work, s shape, took time.Duration) {
	if r.times[w.name] == nil {
		r.times[w.name] = map[string][]time.Duration{}
	}
	r.times[w.name][s.name] = append(r.times[w.name][s.name], took)
}

// write makes the report.
func (r *results) write(w io.Writer) error {
	version, err := os.ReadFile("/proc/version")
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# How fast it is\n\nMeasured %s by `make bench`, in one run, on %d cores (%s, %s) with the node of [test/cluster](../test/cluster).\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.GOARCH, kernel(string(version)))
	fmt.Fprintf(&text, "Each cell is the time from `create` to the Pod's `Succeeded`: the median of %d rounds (least–greatest), and its ratio to the first row.\n\n", r.plan.rounds)
	text.WriteString("| |")
	for _, w := range r.plan.works {
		fmt.Fprintf(&text, " %s |", w.name)
	}
	text.WriteString("\n|---|" + strings.Repeat("---|", len(r.plan.works)) + "\n")
	for _, s := range shapes {
		fmt.Fprintf(&text, "| %s |", s.name)
		for _, w := range r.plan.works {
			text.WriteString(" " + cell(r.times[w.name][s.name], r.times[w.name][floor.name]) + " |")
		}
		text.WriteString("\n")
	}
	fmt.Fprintf(&text, "\n## From step to step\n\nFrom the end of one command to the start of the next, by the commands' own clocks, in Pods of %d steps:\n\n", hopSteps)
	text.WriteString("| | hops | p50 | p99 | greatest |\n|---|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.hops)) {
		hops := r.hops[name]
		fmt.Fprintf(&text, "| %s | %d | %s | %s | %s |\n", name, len(hops), milliseconds(quantile(hops, 0.5)), milliseconds(quantile(hops, 0.99)), milliseconds(quantile(hops, 1)))
	}
	_, err = io.WriteString(w, text.String())
	return err
}

func cell(times, floor []time.Duration) string {
	median := quantile(times, 0.5)
	text := fmt.Sprintf("%.2f s", median.Seconds())
	if len(times) > 1 {
		text += fmt.Sprintf(" (%.2f–%.2f)", quantile(times, 0).Seconds(), quantile(times, 1).Seconds())
	}
	return text + fmt.Sprintf(", %.2f×", median.Seconds()/quantile(floor, 0.5).Seconds())
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
