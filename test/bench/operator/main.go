// Command operator measures the cost of taskflow's operator: of its controllers with thousands of live Tasks on simulated nodes, and of its
// webhook on one core. The operator runs as a separate program, with an API server and an etcd that serve nothing else. kwok plays the
// kubelets. The command writes a part of the report in Markdown. `make bench` runs it, from the root of the repository.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// plan lists what a run measures.
type plan struct {
	whole bool  // measure as many Pods without taskflow first, and an operator that starts with all live Tasks last
	live  []int // numbers of Tasks that stay at their first step meanwhile
	wave  int   // number of Tasks that run to their end
	// rounds is how often the webhook is measured with Pods of each size, each time for the duration load.
	rounds int
	load   time.Duration
	// rates are the rates at which Tasks are created, with a stand-in for the API server.
	rates []rate
}

var (
	few, many = rate{0, offeredPerSecond / 2}, rate{10000, offeredPerSecond / 2}

	full  = plan{whole: true, live: []int{0, 1000, 10000}, wave: 1000, rounds: 20, load: 3 * time.Second, rates: []rate{{0, offeredPerSecond}, few, many, many, few}}
	quick = plan{live: []int{30}, wave: 30, rounds: 2, load: time.Second}
)

const (
	partWebhook     = "webhook"
	partSustained   = "sustained"
	partControllers = "controllers"
)

// parts lists the parts in the order of their measurement. The controllers come last, because they leave live Tasks behind.
var parts = []string{partWebhook, partSustained, partControllers}

func main() {
	// This program shares the machine's cores with what it measures, and has plenty of memory.
	debug.SetGCPercent(400)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	logf.SetLogger(logr.Discard())
	flags := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	isQuick := flags.Bool("quick", false, "measure only a small part, in a minute")
	live := flags.IntSlice("live", nil, "numbers of live Tasks, instead of the default")
	only := flags.String("only", "", "measure only one part: "+strings.Join(parts, ", "))
	program := flags.String("operator", "", "path of the operator's program")
	kwok := flags.String("kwok", "", "path of kwok's program")
	profiles := flags.String("profiles", "", "folder to write the profiles to, for `go tool pprof` (default: none)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *program == "" || *kwok == "" {
		return errors.New("--operator or --kwok is missing: run `make bench`, which builds them")
	}
	if *only != "" && !slices.Contains(parts, *only) {
		return fmt.Errorf("--only: %q is none of %s", *only, strings.Join(parts, ", "))
	}
	b := &bench{plan: full, program: *program, profiles: *profiles, only: *only}
	if *isQuick {
		b.plan = quick
	}
	if len(*live) > 0 {
		b.plan.live = *live
	}
	if len(*live) > 0 && !*isQuick {
		b.plan.rates = nil
		for _, count := range *live {
			b.plan.rates = append(b.plan.rates, rate{count, offeredPerSecond})
		}
	}
	r, err := b.run(ctx, *kwok)
	if err != nil {
		return err
	}
	return r.write(os.Stdout)
}

type bench struct {
	plan     plan
	program  string
	profiles string
	only     string // one of parts; empty: all
	cluster  *cluster
}

func (b *bench) run(ctx context.Context, kwok string) (r *results, err error) {
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	if b.cluster, err = startCluster(ctx, kwok, failed); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = cmp.Or(context.Cause(ctx), err)
		}
		err = errors.Join(err, b.cluster.stop())
	}()
	r = &results{plan: b.plan}
	for _, part := range parts {
		if b.only != "" && b.only != part {
			continue
		}
		switch part {
		case partWebhook:
			r.reviews, err = b.webhook(ctx)
		case partSustained:
			err = b.sustained(ctx, r)
		case partControllers:
			err = b.controllers(ctx, r)
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// restart measures the peak memory of an operator that starts with all live Tasks.
func (b *bench) restart(ctx context.Context) (peak uint64, err error) {
	o, err := b.cluster.startOperator(ctx, b.program)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.end()) }()
	if err := o.idle(ctx); err != nil {
		return 0, err
	}
	_, peak, err = o.memory()
	return peak, err
}

// controllers measures one wave of Tasks after another, with an increasing number of live ones, and then an operator that starts with all
// of them.
func (b *bench) controllers(ctx context.Context, r *results) (err error) {
	if b.plan.whole {
		if r.bare, err = b.bare(ctx); err != nil {
			return err
		}
	}
	if err := b.waves(ctx, r); err != nil || !b.plan.whole {
		return err
	}
	r.restarted, err = b.restart(ctx)
	return err
}

func (b *bench) waves(ctx context.Context, r *results) (err error) {
	o, err := b.cluster.startOperator(ctx, b.program)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.end()) }()
	if err := b.cluster.warmUp(ctx, b.cluster.runTasks); err != nil {
		return err
	}
	live := 0
	for _, count := range b.plan.live {
		if err := b.cluster.hold(ctx, live, count); err != nil {
			return err
		}
		live = count
		w, err := b.wave(ctx, o, live)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%d live Tasks: %.0f Tasks/s, %.1f MB, %.1f MB at most, CPU a Task %s\n",
			live, w.perSecond(), megabytes(w.resident), megabytes(w.peak), w.each(operatorName))
		r.waves = append(r.waves, w)
	}
	return nil
}

// profileLength, in seconds, is less than a wave takes.
const profileLength = 30

// profile writes the CPU profiles of the operator and of the API server, or the heap profile of the operator.
func (b *bench) profile(ctx context.Context, o *operator, kind, name string) error {
	if b.profiles == "" {
		return nil
	}
	write := func(kind string, request *rest.Request) error {
		content, err := request.DoRaw(ctx)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(b.profiles, kind+"-"+name+".pprof"), content, 0o600)
	}
	operator, err := rest.UnversionedRESTClientFor(&rest.Config{Host: o.profile, ContentConfig: rest.ContentConfig{NegotiatedSerializer: scheme.Codecs}})
	if err != nil {
		return err
	}
	if kind == "heap" {
		return write("operator-heap", operator.Get().AbsPath("/debug/pprof/heap").Param("gc", "1"))
	}
	seconds := strconv.Itoa(profileLength)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return write("operator-cpu", operator.Get().AbsPath("/debug/pprof/profile").Param("seconds", seconds))
	})
	group.Go(func() error {
		return write("apiserver-cpu", b.cluster.clientset.RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", seconds))
	})
	return group.Wait()
}
