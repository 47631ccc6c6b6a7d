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
	// offeredPerSecond is the goal's. With the stand-in, it takes nearly all of two cores; what a Task costs is compared at half of it, since an
	// operator that falls behind has less to write.
	offeredPerSecond = 100
	// offeredFor is how long Tasks come.
	offeredFor = time.Minute
	// settling is how long Tasks come before they are counted: the first end after some four seconds.
	settling = 10 * time.Second
	// standInName is that of this program, of which little else is at work then.
	standInName = "stand-in"
)

// rate is how many Tasks come a second, with so many live ones.
type rate struct{ live, perSecond int }

// sustained is what was measured while Tasks came at a steady rate, and the API server was a stand-in.
type sustained struct {
	cost

	rate  rate
	ended int             // so many ended while Tasks came, but for settling
	lags  []time.Duration // standin.Task.Lag
	peak  uint64          // memory of the operator
}

// endedPerSecond is less than is offered where the operator doesn't keep up.
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

// offer creates Tasks, so many a second, whether or not those before have come as far as that phase, and returns all when they have.
func offer(ctx context.Context, server *standin.Server, name string, count, perSecond int, until v1alpha1.TaskPhase) ([]standin.Task, error) {
	began := time.Now()
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	stalled := time.NewTimer(longestPause)
	defer stalled.Stop()
	var tasks []standin.Task
	for created := 0; len(tasks) < count; {
		select {
		case <-ticker.C: // some ticks are left out where this program has to wait for a CPU
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
			return nil, fmt.Errorf("%d of %d Tasks are %s, and no other for %s", len(tasks), count, until, longestPause)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return tasks, nil
}

// sample runs one Task with the real API server.
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
