package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"
)

// cost is what was measured while Tasks or Pods ran to their end.
type cost struct {
	count int
	took  time.Duration            // from the creation of the first to the end of the last
	cpu   map[string]time.Duration // by the name of the process
	calls calls
}

// perSecond returns how many ended a second.
func (c cost) perSecond() float64 { return float64(c.count) / c.took.Seconds() }

// each returns the CPU time that a process has used for one of them.
func (c cost) each(process string) time.Duration { return c.cpu[process] / time.Duration(c.count) }

// and returns the sum of two costs.
func (c cost) and(other cost) cost {
	sum := cost{count: c.count + other.count, cpu: maps.Clone(other.cpu)}
	for name, used := range c.cpu {
		sum.cpu[name] += used
	}
	return sum
}

// cost measures as many Tasks or Pods as the plan's wave has.
func (b *bench) cost(ctx context.Context, run runner, processes ...process) (cost, error) {
	processes = slices.Concat(processes, []process{{name: "benchmark", pid: os.Getpid()}}, b.cluster.processes)
	return measure(ctx, run, b.plan.wave, b.cluster.calls, processes)
}

// measure runs Tasks or Pods to their end, and waits until the operator writes no more events.
func measure(ctx context.Context, run runner, count int, called counter, processes []process) (cost, error) {
	c := cost{count: count, cpu: map[string]time.Duration{}}
	before := map[string]time.Duration{}
	var err error
	for _, p := range processes {
		if before[p.name], err = p.cpu(); err != nil {
			return c, err
		}
	}
	callsBefore, err := called(ctx)
	if err != nil {
		return c, err
	}
	if c.took, err = run(ctx, count); err != nil {
		return c, err
	}
	if err := eventsSettle(ctx, called); err != nil {
		return c, err
	}
	for _, p := range processes {
		after, err := p.cpu()
		if err != nil {
			return c, err
		}
		c.cpu[p.name] = after - before[p.name]
	}
	callsAfter, err := called(ctx)
	c.calls = callsAfter.since(callsBefore)
	return c, err
}

// bare measures similar Pods without an operator: the limit of what is possible here.
func (b *bench) bare(ctx context.Context) (cost, error) {
	if err := b.cluster.warmUp(ctx, b.cluster.runPods); err != nil {
		return cost{}, err
	}
	c, err := b.cost(ctx, b.cluster.runPods)
	if err != nil {
		return c, err
	}
	fmt.Fprintf(os.Stderr, "without taskflow: %.0f Pods/s\n", c.perSecond())
	return c, b.cluster.deleteEnded(ctx)
}

// wave is what was measured while Tasks ran to their end, with live ones in the cluster.
type wave struct {
	cost

	live     int
	resident uint64 // memory of the operator before the wave
	peak     uint64 // and its peak during the wave
}

// onOneCore returns how many Tasks a second would take all of one core for the operator.
func (w wave) onOneCore() float64 { return float64(time.Second) / float64(w.each(operatorName)) }

// operatorName names the operator's process.
const operatorName = "operator"

func (b *bench) wave(ctx context.Context, o *operator, live int) (wave, error) {
	w := wave{live: live}
	var err error
	if w.resident, _, err = o.memory(); err != nil {
		return w, err
	}
	if err := o.forgetPeak(); err != nil {
		return w, err
	}
	if err := b.profile(ctx, o, "heap", strconv.Itoa(live)); err != nil {
		return w, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, o, "cpu", strconv.Itoa(live)) }()
	if w.cost, err = b.cost(ctx, b.cluster.runTasks, o.process); err != nil {
		return w, err
	}
	if err := <-profiled; err != nil {
		return w, err
	}
	if _, w.peak, err = o.memory(); err != nil {
		return w, err
	}
	return w, b.cluster.deleteEnded(ctx)
}
