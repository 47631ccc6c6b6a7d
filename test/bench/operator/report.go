package main

import (
	_ "embed"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/taskflow/taskflow-operator/test/bench/report"
)

type results struct {
	plan  plan
	bare  cost
	waves []wave
	// restarted is the peak memory of an operator that starts with all live Tasks.
	restarted uint64
	sustained []sustained
	reviews   map[int][]reviews // rounds, by the number of the Pod's containers
}

// tried describes what earlier runs showed.
//
//go:embed tried.md
var tried []byte

// The texts around the tables.
const (
	controllersMethod = `## Controllers

While the live Tasks are at their first step, the benchmark creates %d more Tasks of %d steps as fast as the API server accepts them, and waits for their end.

| live Tasks | memory | at most | Tasks a second | the operator's CPU for a Task | at most on one core | CPU of all others for a Task |
|---|---|---|---|---|---|---|
`
	wholeReading = `
*No taskflow* is the same number of similar Pods without an operator. It shows the limit of the API server, etcd, the nodes and the benchmark here. An operator that
starts with %d live Tasks takes at most %.0f MB until it has reconciled all of them.
`
	controllersReading = `
*Memory* is the operator's resident memory before those Tasks, and *at most* is the peak while they run. *At most on one core* follows from the operator's CPU for a
Task: that many Tasks a second would take all of one core. *Tasks a second* is the throughput here, where etcd, the API server, the nodes, the
operator and the benchmark share the machine's cores. It counts all Tasks from the creation of the first to the end of the last.

The operator is the real program, with the memory limit of the container in config/manager, beside an API server and an etcd of its own. [kwok](https://kwok.sigs.k8s.io) plays the kubelets of %d nodes. It writes a Pod's
status as a real kubelet was observed to do, nine times for three steps: the containers wait, the network is ready, the init container runs, it has ended, all containers run, each step
has ended, the Pod is terminal ([kubelet.yaml](../test/bench/operator/kubelet.yaml)). A real kubelet looks at its containers once a second, and reports all changes since then in one
write. Each step takes a second here, so that its end is a separate write. There is no scheduler (the Tasks name their nodes), and there are no images and no containers. etcd doesn't wait for the disk.

Calls to the API server for a Task, without the calls of the nodes:

`
	controllersCalls = `
A Task of %d steps needs one call to create its Pod, %d for the annotation (admission releases the first step), and %d for its status (the Pod exists, the first step
runs, each step has ended). The other calls write events. ` + "`make test`" + ` counts them, too.
`
	sustainedMethod = `
### A hundred Tasks a second

A real API server leaves no CPU for that here, as the first table shows. So this measurement uses a stand-in ([standin](../test/bench/operator/standin)), which keeps Tasks and Pods
in memory, calls the webhook for each Pod, and plays the kubelets with the same nine writes. The operator is the same program, on all cores. It sends and receives the same as with a
real API server: encodings, protocol, and the fields that a real one adds. For %.0f s, the benchmark creates Tasks of %d steps at a steady rate, and removes them
some seconds after their end. *Ended* counts the Tasks that end in each second, except the first %.0f.
*Late* is the operator's share of the time that a Task takes: from the Task's creation to the Pod's, and from the end of the last step to the Task's end. The cost of a Task is compared at half of
the rate, because an operator that shares few cores with the stand-in, and falls behind, has less to write. It is measured twice, there and back, because the machine's speed changes by the minute.

| live Tasks | created a second | ended a second | late, p50 | p99 | greatest | the operator's CPU for a Task | the stand-in's | memory at most | calls for a Task |
|---|---|---|---|---|---|---|---|---|---|
`
	webhookReading = `
*Stolen* is the share of the machine's CPU time that its hypervisor gave to other machines while something here was ready to run. It comes in pieces of some milliseconds, and each piece delays one or two
answers. So it shows in p99, and the goals apply to the half of the rounds with the least stolen time, however long their answers took.
`
	webhookMethod = `
## Webhook

The operator runs on one core (` + "`GOMAXPROCS=1`" + `) and gets %d requests a second, for Pods whose steps have a command. The times are from the moment when a request is due to its answer, over HTTP/1.1, which the API
server uses for a webhook behind a Service. There are no Tasks meanwhile. The two kinds of Pods take turns, in rounds of %.0f s. p50 and p99 are the medians over the rounds
(least–greatest).

| containers | rounds | requests | a second | p50 | p99 | greatest | the operator's CPU for one | stolen |
|---|---|---|---|---|---|---|---|---|
`
)

// write writes this part of the report, for what was measured.
func (r *results) write(w io.Writer) error {
	var text strings.Builder
	if len(r.waves) > 0 {
		r.writeWaves(&text)
	}
	if len(r.sustained) > 0 {
		r.writeSustained(&text)
	}
	if len(r.waves) > 0 {
		text.Write(tried)
	}
	if len(r.reviews) > 0 {
		r.writeReviews(&text)
	}
	text.WriteString("\n## Goals of the operator\n")
	if err := report.WriteGoals(&text, r.goals()); err != nil {
		return err
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func (r *results) writeWaves(text *strings.Builder) {
	fmt.Fprintf(text, "\n"+controllersMethod, r.plan.wave, steps)
	if r.plan.whole {
		fmt.Fprintf(text, "| no taskflow | | | %.0f | | | %s |\n", r.bare.perSecond(), r.bare.others())
	}
	for _, w := range r.waves {
		fmt.Fprintf(text, "| %d | %.0f MB | %.0f MB | %.0f | %s | %.0f | %s |\n", w.live, megabytes(w.resident), megabytes(w.peak), w.perSecond(),
			report.Milliseconds(w.each(operatorName)), w.onOneCore(), w.others())
	}
	if r.plan.whole {
		fmt.Fprintf(text, wholeReading, r.plan.live[len(r.plan.live)-1], megabytes(r.restarted))
	}
	fmt.Fprintf(text, controllersReading, nodes)
	text.WriteString("| live Tasks |")
	shown := r.shownCalls()
	for _, what := range shown {
		fmt.Fprintf(text, " %s |", what)
	}
	text.WriteString("\n|---|" + strings.Repeat("---|", len(shown)) + "\n")
	for _, w := range r.waves {
		fmt.Fprintf(text, "| %d |", w.live)
		for _, what := range shown {
			fmt.Fprintf(text, " %.2f |", w.calls[what]/float64(w.count))
		}
		text.WriteString("\n")
	}
	fmt.Fprintf(text, controllersCalls, steps, steps-1, steps+2)
}

func (r *results) writeSustained(text *strings.Builder) {
	fmt.Fprintf(text, sustainedMethod, offeredFor.Seconds(), steps, settling.Seconds())
	for _, s := range r.sustained {
		var called []string
		for what, count := range s.calls {
			called = append(called, fmt.Sprintf("%s %.2f", what, count/float64(s.count)))
		}
		slices.Sort(called)
		fmt.Fprintf(text, "| %d | %d | %.1f | %s | %s | %s | %s | %s | %.0f MB | %s |\n", s.rate.live, s.rate.perSecond, s.endedPerSecond(),
			report.Milliseconds(report.Quantile(s.lags, 0.5)), report.Milliseconds(report.Quantile(s.lags, 0.99)), report.Milliseconds(report.Quantile(s.lags, 1)),
			report.Milliseconds(s.each(operatorName)), report.Milliseconds(s.each(standInName)), megabytes(s.peak), strings.Join(called, ", "))
	}
}

func (r *results) writeReviews(text *strings.Builder) {
	fmt.Fprintf(text, webhookMethod, reviewsPerSecond, r.plan.load.Seconds())
	for _, count := range podSizes {
		rounds := r.reviews[count]
		quiet := quietest(rounds)
		writeRounds(text, count, fmt.Sprintf("all %d", len(rounds)), rounds)
		writeRounds(text, count, fmt.Sprintf("the %d quietest", len(quiet)), quiet)
	}
	text.WriteString(webhookReading)
}

func writeRounds(text *strings.Builder, containers int, which string, rounds []reviews) {
	asked := total(rounds)
	fmt.Fprintf(text, "| %d | %s | %d | %.0f | %s | %s | %s | %s | %.1f%% |\n", containers, which, len(asked.times), asked.perSecond(), spread(quantiles(rounds, 0.5)), spread(quantiles(rounds, 0.99)),
		report.Milliseconds(report.Quantile(asked.times, 1)), report.Milliseconds(asked.cpu/time.Duration(len(asked.times))),
		100*asked.stolen.Seconds()/asked.took.Seconds()/float64(runtime.NumCPU()))
}

// spread formats the median, the least and the greatest.
func spread(measured []time.Duration) string {
	return fmt.Sprintf("%s (%s–%s)", report.Milliseconds(report.Quantile(measured, 0.5)), report.Milliseconds(report.Quantile(measured, 0)), report.Milliseconds(report.Quantile(measured, 1)))
}

// goals returns the goals for which the plan has measured something.
func (r *results) goals() []report.Goal {
	var goals []report.Goal
	if count := len(r.waves); count > 0 && r.waves[count-1].live >= goalLive {
		most := r.waves[count-1]
		goals = append(goals,
			report.AtMost(fmt.Sprintf("memory with %d live Tasks, at most", most.live), megabytes(most.peak), 300, " MB"),
			report.AtMost(fmt.Sprintf("memory of an operator that starts with %d live Tasks, at most", most.live), megabytes(r.restarted), 300, " MB"))
	}
	for _, s := range r.sustained {
		goals = append(goals, report.AtLeast(fmt.Sprintf("Tasks of %d steps ended a second, of %d, with %d live Tasks (with the stand-in)",
			steps, s.rate.perSecond, s.rate.live), s.endedPerSecond(), keptUp*float64(s.rate.perSecond), ""))
	}
	growth := func(where string, least, most cost, leastLive, mostLive int) report.Goal {
		return report.AtMost(fmt.Sprintf("the operator's CPU for a Task with %d live Tasks, compared with %d%s", mostLive, leastLive, where),
			most.each(operatorName).Seconds()/least.each(operatorName).Seconds(), mostGrowth, "×")
	}
	steady := map[int]cost{} // by the number of live Tasks, at the rate that was measured last
	for _, s := range r.sustained {
		if s.rate.perSecond == r.sustained[len(r.sustained)-1].rate.perSecond {
			steady[s.rate.live] = steady[s.rate.live].and(s.cost)
		}
	}
	if live := slices.Sorted(maps.Keys(steady)); len(live) > 1 {
		least, most := live[0], live[len(live)-1]
		goals = append(goals, growth(" (with the stand-in)", steady[least], steady[most], least, most))
	}
	if count := len(r.waves); count > 1 {
		least, most := r.waves[0], r.waves[count-1]
		goals = append(goals, growth("", least.cost, most.cost, least.live, most.live))
	}
	for _, count := range podSizes {
		if rounds := r.reviews[count]; len(rounds) > 0 {
			goals = append(goals,
				report.Within(fmt.Sprintf("webhook, %d containers: p99 (in the quiet half of the rounds)", count), report.Quantile(quantiles(quietest(rounds), 0.99), 0.5), 5*time.Millisecond),
				report.AtLeast(fmt.Sprintf("webhook, %d containers: requests a second", count), total(rounds).perSecond(), keptUp*reviewsPerSecond, ""))
		}
	}
	return goals
}

const (
	// goalLive is the number of live Tasks to which the goal for memory applies.
	goalLive = 10000
	// mostGrowth is by how much an equal cost may seem to grow on a machine that other programs use, too.
	mostGrowth = 1.25
	// keptUp is the share of the offered work that must be done in time. Less means that something falls behind.
	keptUp = 0.98
)

// others formats the CPU time of all other processes.
func (c cost) others() string {
	var all []string
	for name := range c.cpu {
		if name != operatorName {
			all = append(all, fmt.Sprintf("%s %s", name, report.Milliseconds(c.each(name))))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// operatorsCalls are the calls that only the operator makes here. kwok writes the status of Pods, and this program creates and lists Tasks.
var operatorsCalls = []string{"POST pods", "PATCH pods", "PATCH tasks/status", "POST events", "GET pods", "GET tasks", "LIST pods"}

// shownCalls returns operatorsCalls, each followed by its failures if there are any.
func (r *results) shownCalls() []string {
	var shown []string
	for _, what := range operatorsCalls {
		shown = append(shown, what)
		for _, w := range r.waves {
			for failed := range w.calls {
				if strings.HasPrefix(failed, what+" (") && w.calls[failed] > 0 && !slices.Contains(shown, failed) {
					shown = append(shown, failed)
				}
			}
		}
	}
	return shown
}

func megabytes(bytes uint64) float64 { return float64(bytes) / 1e6 }
