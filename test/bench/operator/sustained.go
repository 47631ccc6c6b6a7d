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

	"github.com/taskflow/taskflow-operator/test/bench/operator/standin"
)

const (
	offeredPerSecond = 100
	// settling is how long Tasks come before they are counted: the first end after some four seconds.
	settling = 10 * time.Second
	// standInName is that of this program, of which little else is at work then.
	standInName = "stand-in"
)

// sustained is what was measured while Tasks came at a steady rate, and the API server was a stand-in.
type sustained struct {
	cost

	offered time.Duration   // how long Tasks came
	ended   int             // so many ended in that time, but for settling
	lags    []time.Duration // standin.Task.Lag
	peak    int64           // memory of the operator
}

// endedPerSecond is less than is offered where the operator doesn't keep up.
func (s sustained) endedPerSecond() float64 {
	return float64(s.ended) / (s.offered - settling).Seconds()
}

func (b *bench) sustained(ctx context.Context, r *results) error {
	if b.plan.sustained == 0 {
		return nil
	}
	var err error
	r.sustained, err = b.sustain(ctx)
	return err
}

func (b *bench) sustain(ctx context.Context) (s sustained, err error) {
	s.offered = b.plan.sustained
	total := int(s.offered.Seconds()) * offeredPerSecond
	sample, err := b.sample(ctx)
	if err != nil {
		return s, err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // there is more memory here than CPU
	server, err := standin.Start(b.cluster.config, sample, total)
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

	if _, err := offer(ctx, server, "warm-up", warmUpCount); err != nil {
		return s, err
	}
	if err := o.forgetPeak(); err != nil {
		return s, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- b.profile(ctx, o, "cpu", "sustained") }()
	var tasks []standin.Task
	begun := time.Now()
	run := func(ctx context.Context, count int) (time.Duration, error) {
		var err error
		tasks, err = offer(ctx, server, "sustained", count)
		return time.Since(begun), err
	}
	called := func(context.Context) (calls, error) { return server.Calls(), nil }
	s.cost, err = measure(ctx, run, total, called, []process{o.process, {name: standInName, pid: os.Getpid()}})
	if err := errors.Join(err, <-profiled); err != nil {
		return s, err
	}
	if _, s.peak, err = o.memory(); err != nil {
		return s, err
	}
	from, to := begun.Add(settling), begun.Add(s.offered)
	for _, task := range tasks {
		s.lags = append(s.lags, task.Lag)
		if task.At.After(from) && task.At.Before(to) {
			s.ended++
		}
	}
	return s, nil
}

// offer creates Tasks at a steady rate, whether or not those before have ended, and returns all when they have.
func offer(ctx context.Context, server *standin.Server, name string, count int) ([]standin.Task, error) {
	ticker := time.NewTicker(time.Second / offeredPerSecond)
	defer ticker.Stop()
	stalled := time.NewTimer(longestPause)
	defer stalled.Stop()
	var tasks []standin.Task
	for created := 0; len(tasks) < count; {
		select {
		case <-ticker.C:
			if created == count {
				continue
			}
			if err := server.CreateTask(fmt.Sprintf("%s-%d", name, created)); err != nil {
				return nil, err
			}
			created++
		case task := <-server.Ended():
			if task.Err != nil {
				return nil, fmt.Errorf("the Task %s: %w", task.Name, task.Err)
			}
			tasks = append(tasks, task)
			stalled.Reset(longestPause)
		case <-stalled.C:
			return nil, fmt.Errorf("%d of %d Tasks have ended, and no other for %s", len(tasks), count, longestPause)
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
