// Command bench measures how long sequences take on the node of test/cluster, with taskflow as `make deploy-local` installs it, in
// comparison with other ways to run them. It measures all of them in one run, in several rounds, one after another. It writes a report in
// Markdown. `make bench` runs it.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/test/kube"
)

// plan lists what a run measures.
type plan struct {
	works   []work
	shapes  []shape
	hops    []hopKind
	fanOuts int // Pods in which one step releases several
	waiting int // steps of the Pod whose waiting agents are measured
}

// The works that have goals.
var (
	oneTrue      = work{name: "1 × true", command: "true", steps: 1, rounds: 6, slowRounds: 6}
	twentySleeps = work{name: "20 × sleep 0.3", command: "sleep 0.3", steps: 20, rounds: 3, slowRounds: 1}
)

const (
	// goalSteps take as long as the steps of twentySleeps. The node is mostly idle between their ends. After shorter steps it isn't: the
	// container runtime needs a tenth of a second when a container ends.
	goalSteps      = "steps of 0.3 s"
	shortSteps     = "steps of 0.1 s"
	withoutInotify = shortSteps + ", no inotify instances left"
)

var full = plan{
	works: []work{
		oneTrue,
		{name: "3 × true", command: "true", steps: 3, rounds: 3, slowRounds: 3},
		{name: "20 × true", command: "true", steps: 20, rounds: 2, slowRounds: 1},
		{name: "50 × true", command: "true", steps: 50, rounds: 1, slowRounds: 1},
		twentySleeps,
	},
	shapes: shapes,
	hops: []hopKind{
		{name: goalSteps, pods: 21, steps: 50, length: "0.3"}, // 1,029 hops
		{name: shortSteps, pods: 5, steps: 50, length: "0.1"},
		{name: "steps that do nothing", pods: 3, steps: 50},
		{name: "steps that do nothing, CPU request 10m", pods: 2, steps: 50, cpu: "10m"},
		{name: withoutInotify, pods: 2, steps: 50, length: "0.1", noInotify: true},
		{name: shortSteps + ", handoff: controller", pods: 1, steps: 10, length: "0.1", annotations: controllerAlone},
		{name: "no taskflow: shells of 0.3 s, started by one shell", pods: 2, steps: 50, length: "0.3", oneShell: true},
		{name: "no taskflow: the clock itself, in one shell", pods: 1, steps: 50, oneShell: true},
	},
	fanOuts: 15,
	waiting: 50,
}

var quick = plan{
	works:  []work{oneTrue.once(), twentySleeps.once()},
	shapes: slices.DeleteFunc(slices.Clone(shapes), func(s shape) bool { return s.name == byController || s.name == atOnce }),
	hops: []hopKind{
		{name: goalSteps, pods: 1, steps: 10, length: "0.3"},
	},
	fanOuts: 2,
	waiting: 10,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	logf.SetLogger(logr.Discard())
	p := full
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	isQuick := flags.Bool("quick", false, "measure only a small part, in one round and three minutes")
	file := flags.String("report", "", "file to write the report to (default: standard output)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *isQuick {
		p = quick
	}
	cluster, clientset, err := kube.Connect()
	if err != nil {
		return fmt.Errorf("connecting to the cluster (is KUBECONFIG set? run `make bench`): %w", err)
	}
	b := &bench{cluster: cluster, clientset: clientset}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
	if err := b.cluster.Create(ctx, namespace); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cluster.Delete(context.WithoutCancel(ctx), namespace)) }()
	b.namespace = namespace.Name

	results, failure := b.measure(ctx, p)
	if results == nil {
		return failure
	}
	output := os.Stdout
	if *file != "" {
		if output, err = os.Create(*file); err != nil {
			return errors.Join(failure, err)
		}
		defer func() { err = errors.Join(err, output.Close()) }()
	}
	return errors.Join(failure, results.write(output))
}

// measure runs each shape once to warm up, and then measures round by round, so that a disturbance of the machine affects all shapes alike.
// Each round has another order of the shapes, because the cleanup after one shape delays the next one. With an error, measure also returns
// what it measured before.
func (b *bench) measure(ctx context.Context, p plan) (*results, error) {
	r, err := b.newResults(ctx, p)
	if err != nil {
		return nil, err
	}
	most := slices.MaxFunc(p.works, func(a, b work) int { return cmp.Compare(a.rounds, b.rounds) }).rounds
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // the same order in each run
	for round := range most + 1 {
		for _, w := range p.works {
			for _, i := range random.Perm(len(p.shapes)) {
				s := p.shapes[i]
				if round == 0 && w.name != p.works[0].name || round > w.rounds || s.slow && round > w.slowRounds {
					continue
				}
				// The kubelet looks at its containers once a second. A random start makes it random how soon the kubelet sees an end.
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				took, err := b.sequence(ctx, s, w)
				if err != nil {
					return r, err
				}
				fmt.Fprintf(os.Stderr, "round %d: %s, %s: %s\n", round, w.name, s.name, took.Round(time.Millisecond))
				if round > 0 {
					r.add(w, s, took)
				}
			}
		}
	}
	for _, kind := range p.hops {
		var err error
		if r.hops[kind.name], err = b.hops(ctx, kind); err != nil {
			return r, err
		}
	}
	if r.fanOuts, err = b.fanOuts(ctx, p.fanOuts); err != nil {
		return r, err
	}
	if r.agents, err = b.measureAgents(ctx, p.waiting); err != nil {
		return r, err
	}
	return r, nil
}
