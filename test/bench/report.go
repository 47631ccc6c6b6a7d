package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/test/bench/report"
)

// results are the measured durations, by work and shape.
type results struct {
	plan plan
	// machine describes the machine and the versions.
	machine string
	times   map[string]map[string][]time.Duration
	hops    map[string][]time.Duration
	fanOuts []fanOut
	// agents is the cost of the agents; nil if they weren't measured.
	agents *agents
}

func (b *bench) newResults(ctx context.Context, p plan) (*results, error) {
	machine, err := b.describe(ctx)
	return &results{plan: p, machine: machine, times: map[string]map[string][]time.Duration{}, hops: map[string][]time.Duration{}}, err
}

// describe describes the machine and the versions.
func (b *bench) describe(ctx context.Context) (string, error) {
	nodes, err := b.clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(nodes.Items) != 1 {
		return "", fmt.Errorf("the cluster has %d nodes, not the one node of test/cluster", len(nodes.Items))
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	_, model, _ := strings.Cut(string(cpu), "model name\t: ")
	model, _, _ = strings.Cut(model, "\n")
	node := nodes.Items[0].Status
	facts := []string{fmt.Sprintf("%d cores (%s), %d MiB of memory, Linux %s %s, Kubernetes %s, %s, %s; load average before: %s",
		runtime.NumCPU(), model, node.Capacity.Memory().Value()>>20, node.NodeInfo.KernelVersion, node.NodeInfo.Architecture,
		node.NodeInfo.KubeletVersion, node.NodeInfo.ContainerRuntimeVersion, runtime.Version(), strings.Fields(string(load))[0])}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" || setting.Key == "vcs.modified" && setting.Value == "true" {
				facts = append(facts, setting.Key+" "+setting.Value)
			}
		}
	}
	return strings.Join(facts, "; "), nil
}

func (r *results) add(w work, s shape, took time.Duration) {
	if r.times[w.name] == nil {
		r.times[w.name] = map[string][]time.Duration{}
	}
	r.times[w.name][s.name] = append(r.times[w.name][s.name], took)
}

// write writes the report.
func (r *results) write(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "# How fast it is\n\nMeasured %s by `make bench`, in one run, with the node of [test/cluster](../test/cluster) and taskflow as `make deploy-local` installs it: %s.\n\n",
		time.Now().UTC().Format(time.DateOnly), r.machine)
	text.WriteString(method)
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
	r.writeFanOuts(&text)
	if r.agents != nil {
		r.agents.write(&text)
	}
	text.WriteString(tried)
	text.WriteString("\n## Goals\n")
	if err := report.WriteGoals(&text, r.goals()); err != nil {
		return err
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// goals returns the goals for which the plan has measured something.
func (r *results) goals() []report.Goal {
	var goals []report.Goal
	ratio := func(w work, shape string, goal func(string, float64, float64, string) report.Goal, bound float64) {
		if times := r.times[w.name]; len(times[shape]) > 0 {
			goals = append(goals, goal(w.name+": "+shape+", beside "+floor.name, report.Ratio(times[shape], times[floor.name]), bound, "×"))
		}
	}
	ratio(twentySleeps, byImage, report.AtMost, 1.15)
	ratio(twentySleeps, taskflow, report.AtMost, 1.35)
	ratio(twentySleeps, initContainers, report.AtLeast, 2.5)
	ratio(oneTrue, byImage, report.AtMost, 1.15)
	if hops := r.hops[goalSteps]; len(hops) > 0 {
		goals = append(goals,
			report.Within("from step to step, "+goalSteps+": p50", report.Quantile(hops, 0.5), 5*time.Millisecond),
			report.Within("from step to step, "+goalSteps+": p99", report.Quantile(hops, 0.99), 25*time.Millisecond))
	}
	if hops := r.hops[withoutInotify]; len(hops) > 0 {
		goals = append(goals, report.Within("from step to step, "+withoutInotify+": greatest", report.Quantile(hops, 1), 250*time.Millisecond))
	}
	if len(r.fanOuts) > 0 {
		goals = append(goals, report.Within(fmt.Sprintf("from the first to the last start of %d steps side by side: median", width),
			report.Quantile(durations(r.fanOuts, fanOut.spread), 0.5), 10*time.Millisecond))
	}
	a := r.agents
	if a == nil {
		return goals
	}
	const megabyte = 1e6
	return append(goals,
		report.AtMost("agent on disk", float64(a.size)/megabyte, 2.5, " MB"),
		report.AtMost("agent resident while it waits: greatest", float64(report.Quantile(a.resident, 1))/megabyte, 3, " MB"),
		report.Within("CPU time of an agent in "+waitingTime.String()+" of waiting: median", report.Quantile(a.cpu, 0.5), time.Millisecond),
		report.Within("from exec of the agent to the command: median, less the median of the command alone", report.Quantile(a.behind, 0.5)-report.Quantile(a.alone, 0.5), 5*time.Millisecond))
}

// writeHops writes the table of hops.
func (r *results) writeHops(text *strings.Builder) {
	text.WriteString("\n## From step to step\n\nFrom the end of one command to the start of the next, by the commands' own clocks. " +
		"The commands wait until all containers of their Pod run:\n\n")
	text.WriteString("| | hops | p50 | p90 | p99 | greatest |\n|---|---|---|---|---|---|\n")
	for _, kind := range r.plan.hops {
		hops := r.hops[kind.name]
		if len(hops) == 0 {
			continue
		}
		fmt.Fprintf(text, "| %s | %d | %s | %s | %s | %s |\n", kind.name, len(hops), report.Milliseconds(report.Quantile(hops, 0.5)),
			report.Milliseconds(report.Quantile(hops, 0.9)), report.Milliseconds(report.Quantile(hops, 0.99)), report.Milliseconds(report.Quantile(hops, 1)))
	}
}

// write writes the table of the agent.
func (a *agents) write(text *strings.Builder) {
	fmt.Fprintf(text, "\n## The agent\n\nMeasured with %d agents in one Pod that wait for their turn, and with %d starts on the host, from the start of the program until `echo` writes something:\n\n",
		len(a.resident), len(a.behind))
	text.WriteString("| | median | greatest |\n|---|---|---|\n")
	fmt.Fprintf(text, "| on disk | %s | |\n", mebibytes(a.size))
	fmt.Fprintf(text, "| resident while it waits | %s | %s |\n", mebibytes(report.Quantile(a.resident, 0.5)), mebibytes(report.Quantile(a.resident, 1)))
	fmt.Fprintf(text, "| of that, not of its file | %s | %s |\n", mebibytes(report.Quantile(a.own, 0.5)), mebibytes(report.Quantile(a.own, 1)))
	fmt.Fprintf(text, "| CPU time in %s of waiting | %s | %s |\n", waitingTime, report.Milliseconds(report.Quantile(a.cpu, 0.5)), report.Milliseconds(report.Quantile(a.cpu, 1)))
	fmt.Fprintf(text, "| `echo` alone | %s | %s |\n", report.Milliseconds(report.Quantile(a.alone, 0.5)), report.Milliseconds(report.Quantile(a.alone, 1)))
	fmt.Fprintf(text, "| `echo` behind an open gate | %s | %s |\n", report.Milliseconds(report.Quantile(a.behind, 0.5)), report.Milliseconds(report.Quantile(a.behind, 1)))
}

func mebibytes(bytes uint64) string {
	return fmt.Sprintf("%.2f MiB", float64(bytes)/(1<<20))
}

func cell(times, floor []time.Duration) string {
	if len(times) == 0 {
		return "–"
	}
	median := report.Quantile(times, 0.5)
	text := fmt.Sprintf("%.2f s", median.Seconds())
	if len(times) > 1 {
		text += fmt.Sprintf(" (%.2f–%.2f, n=%d)", report.Quantile(times, 0).Seconds(), report.Quantile(times, 1).Seconds(), len(times))
	}
	return text + fmt.Sprintf(", %.2f×", median.Seconds()/report.Quantile(floor, 0.5).Seconds())
}
