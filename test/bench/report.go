package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
)

// results are durations by work and shape.
type results struct {
	plan  plan
	times map[string]map[string][]time.Duration
	hops  map[string][]time.Duration
	// agents are those that wait.
	agents *agents
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
	for _, s := range r.plan.shapes {
		fmt.Fprintf(&text, "| %s |", s.name)
		for _, w := range r.plan.works {
			text.WriteString(" " + cell(r.times[w.name][s.name], r.times[w.name][floor.name]) + " |")
		}
		text.WriteString("\n")
	}
	r.writeHops(&text)
	r.agents.write(&text)
	_, err = io.WriteString(w, text.String())
	return err
}

// writeHops makes the table of hops.
func (r *results) writeHops(text *strings.Builder) {
	text.WriteString("\n## From step to step\n\nFrom the end of one command to the start of the next, by the commands' own clocks. " +
		"The commands wait until all containers of their Pod are up:\n\n")
	text.WriteString("| | hops | p50 | p90 | p99 | greatest |\n|---|---|---|---|---|---|\n")
	for _, kind := range r.plan.hops {
		hops := r.hops[kind.name]
		fmt.Fprintf(text, "| %s | %d | %s | %s | %s | %s |\n", kind.name, len(hops), milliseconds(quantile(hops, 0.5)),
			milliseconds(quantile(hops, 0.9)), milliseconds(quantile(hops, 0.99)), milliseconds(quantile(hops, 1)))
	}
}

// write makes the table of the agent.
func (a *agents) write(text *strings.Builder) {
	fmt.Fprintf(text, "\n## The agent\n\nOf %d agents in one Pod, which wait for their turn; and of %d starts on the host, from the start of the program until `echo` says something:\n\n",
		len(a.resident), len(a.behind))
	text.WriteString("| | median | greatest |\n|---|---|---|\n")
	fmt.Fprintf(text, "| on disk | %.2f MiB | |\n", float64(a.size)/(1<<20))
	fmt.Fprintf(text, "| resident while it waits | %s | %s |\n", mebibytes(quantile(a.resident, 0.5)), mebibytes(quantile(a.resident, 1)))
	fmt.Fprintf(text, "| of that, not of its file | %s | %s |\n", mebibytes(quantile(a.own, 0.5)), mebibytes(quantile(a.own, 1)))
	fmt.Fprintf(text, "| CPU time in %s of waiting | %s | %s |\n", waitingTime, milliseconds(quantile(a.cpu, 0.5)), milliseconds(quantile(a.cpu, 1)))
	fmt.Fprintf(text, "| `echo` alone | %s | %s |\n", milliseconds(quantile(a.alone, 0.5)), milliseconds(quantile(a.alone, 1)))
	fmt.Fprintf(text, "| `echo` behind an open gate | %s | %s |\n", milliseconds(quantile(a.behind, 0.5)), milliseconds(quantile(a.behind, 1)))
}

func mebibytes(kibibytes int64) string {
	return fmt.Sprintf("%.2f MiB", float64(kibibytes)/(1<<10))
}

func cell(times, floor []time.Duration) string {
	if len(times) == 0 {
		return "–"
	}
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
