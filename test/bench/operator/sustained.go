package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/bench/operator/standin"
)

const (
	// offeredPerSecond is the rate of the goal. With the stand-in, it takes nearly all of two cores. The cost of a Task is compared at half
	// of this rate, because an operator that falls behind has less to write.
	offeredPerSecond = 100
	// offeredFor is how long Tasks are created.
	offeredFor = time.Minute
	// settling is how long Tasks are created before ends are counted. The first Task ends after some four seconds.
	settling = 10 * time.Second
	// standInName names this program, which does little but play the API server during this measurement.
	standInName = "stand-in"
)

// rate is how many Tasks are created in a second, with so many live ones.
type rate struct{ live, perSecond int }

// sustained is what was measured while Tasks were created at a steady rate, with a stand-in for the API server.
type sustained struct {
	cost

	rate  rate
	ended int             // Tasks that ended while Tasks were created, without those during settling
	lags  []time.Duration // standin.Task.Lag
	peak  uint64          // memory of the operator
}

// endedPerSecond is less than the offered rate if the operator doesn't keep up.
func (s sustained) endedPerSecond() float64 {
	return float64(s.ended) / (offeredFor - settling).Seconds()
}

func (b *bench) sustained(ctx context.Context, r *results) error {
	if len(b.plan.rates) == 0 {
		return nil
	}
	sample, err := b.sample(ctx)
	if err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1600)) // there is more memory here than CPU
	for _, rate := range b.plan.rates {
		s, err := b.sustain(ctx, sample, rate)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d live Tasks: %.1f of %d Tasks/s, %.1f MB at most, CPU a Task %s\n",
			rate.live, s.endedPerSecond(), rate.perSecond, megabytes(s.peak), s.each(operatorName))
		r.sustained = append(r.sustained, s)
	}
	return nil
}

func (b *bench) sustain(ctx context.Context, sample standin.Sample, rate rate) (s sustained, err error) {
	s.rate = rate
	total := int(offeredFor.Seconds()) * rate.perSecond
	server, err := standin.Start(b.cluster.config, sample, rate.live+warmUpCount+total)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	kubeconfig := filepath.Join(b.cluster.dir, "kubeconfig-standin")
	if err := server.WriteKubeconfig(kubeconfig); err != nil {
		return s, err
	}
	o, err := b.cluster.startOperator(ctx, b.program, "KUBECONFIG="+kubeconfig)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, o.end()) }()
	server.CallWebhook(o.webhook)

	if _, err := offer(ctx, server, "warm-up", warmUpCount, offeredPerSecond, v1alpha1.TaskSucceeded); err != nil {
		return s, err
	}
	if _, err := offer(ctx, server, "live", rate.live, offeredPerSecond, v1alpha1.TaskRunning); err != nil {
		return s, err
	}
	called := func(context.Context) (calls, error) { return server.Calls(), nil }
	if err := eventsSettle(ctx, called); err != nil {
		return s, err
	}
	profile := fmt.Sprintf("%d-live-%d-a-second", rate.live, rate.perSecond)
	if err := b.profile(ctx, o, "heap", profile); err != nil {
		return s, err
	}
	if err := o.forgetPeak(); err != nil {
		return s, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, o, "cpu", profile) }()
	var tasks []standin.Task
	begun := time.Now()
	run := func(ctx context.Context, count int) (time.Duration, error) {
		var err error
		tasks, err = offer(ctx, server, "sustained", count, rate.perSecond, v1alpha1.TaskSucceeded)
		return time.Since(begun), err
	}
	s.cost, err = measure(ctx, run, total, called, []process{o.process, {name: standInName, pid: os.Getpid()}})
	if err := errors.Join(err, <-profiled); err != nil {
		return s, err
	}
	if _, s.peak, err = o.memory(); err != nil {
		return s, err
	}
	from, to := begun.Add(settling), begun.Add(offeredFor)
	for _, task := range tasks {
		s.lags = append(s.lags, task.Lag)
		if task.At.After(from) && task.At.Before(to) {
			s.ended++
		}
	}
	return s, nil
}

// offer creates count Tasks at a steady rate, regardless of the progress of earlier ones, and returns all when they have reached that
// phase.
func offer(ctx context.Context, server *standin.Server, name string, count, perSecond int, until v1alpha1.TaskPhase) ([]standin.Task, error) {
	began := time.Now()
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	stalled := time.NewTimer(longestPause)
	defer stalled.Stop()
	var tasks []standin.Task
	for created := 0; len(tasks) < count; {
		select {
		case <-ticker.C: // some ticks are dropped when this program has to wait for a CPU
			for due := int(time.Since(began).Seconds() * float64(perSecond)); created < min(due, count); created++ {
				if err := server.CreateTask(fmt.Sprintf("%s-%d", name, created), until); err != nil {
					return nil, err
				}
			}
		case task := <-server.Done():
			if task.Err != nil {
				return nil, fmt.Errorf("the Task %s: %w", task.Name, task.Err)
			}
			tasks = append(tasks, task)
			stalled.Reset(longestPause)
		case <-stalled.C:
			return nil, fmt.Errorf("%d of %d Tasks are %s, and no other became so for %s", len(tasks), count, until, longestPause)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return tasks, nil
}

// sample runs one Task with the real API server, and returns it with its Pod.
func (b *bench) sample(ctx context.Context) (sample standin.Sample, err error) {
	o, err := b.cluster.startOperator(ctx, b.program)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, o.end()) }()
	if _, err := b.cluster.runTasks(ctx, 1); err != nil {
		return sample, err
	}
	if err := b.cluster.Get(ctx, client.ObjectKey{Namespace: taskNamespace, Name: "wave-0"}, &sample.Task); err != nil {
		return sample, err
	}
	if err := b.cluster.Get(ctx, client.ObjectKey{Namespace: taskNamespace, Name: sample.Task.Status.PodName}, &sample.Pod); err != nil {
		return sample, err
	}
	return sample, b.cluster.deleteEnded(ctx)
}
