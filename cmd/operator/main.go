// Command operator runs taskflow's webhook and controllers.
//
// Every replica serves the webhook, because Pods must not wait for a leader. Only the leader runs the controllers. The command line is in
// flags.go, the configuration file in configfile.go, what the manager is made with in manager.go, and its ports in servers.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/serve"
	"github.com/taskflow/taskflow-operator/webhook"
)

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "operator: %v\n", err)
		os.Exit(1)
	}
}

// run runs the operator until terminating ends, and c.shutdownDelay longer.
func run(terminating context.Context, args []string) error {
	c, err := parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	logger, err := c.logger()
	if err != nil {
		return err
	}
	logWith(logger)
	if err := tuneMemory(memlimit.FromCgroup); err != nil {
		logger.V(1).Info("Cannot read the container's memory limit", "why", err.Error())
	}
	ctx, cancel := outlast(terminating, c.shutdownDelay)
	defer cancel()
	o, err := newOperator(c, terminating)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return o.Add(everyReplica{o.commands}) },
		func() error { return o.keeper.SetupWithManager(o) },
		func() error { return o.Add(everyReplica{manager.RunnableFunc(o.serve)}) },
		func() error { return addHealth(ctx, o, c.healthAddress, o.readiness()) },
		func() error { return addMetrics(ctx, o, c.metricsAddress, o.keeper.TLS()) },
		func() error { return o.Start(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// operator is a manager and what it runs.
type operator struct {
	manager.Manager

	config      config
	keeper      *certs.Keeper
	commands    *commands
	terminating <-chan struct{}
	serving     chan struct{} // closed once the webhook and the controllers have their caches
}

func newOperator(c config, terminating context.Context) (*operator, error) {
	keeper := certs.New(c.certs)
	m, err := newManager(c, keeper)
	if err != nil {
		return nil, err
	}
	commands, err := newCommands(c.file, pullSecrets(m.GetAPIReader()))
	if err != nil {
		return nil, err
	}
	return &operator{m, c, keeper, commands, terminating.Done(), make(chan struct{})}, nil
}

// serve starts the webhook and the controllers. The controllers wait for the webhook's certificate, too: without it they can create no Pod.
func (o *operator) serve(ctx context.Context) error {
	select {
	case <-o.keeper.Ready():
	case <-ctx.Done():
		return nil
	}
	nodes := webhook.NewNodes(o.GetCache(), o.config.agent.Delivery)
	if err := o.registerWebhook(ctx, nodes); err != nil {
		return err
	}
	if err := controller.SetupWithManager(o, o.commands, o.config.startGrace); err != nil {
		return err
	}
	if err := metrics.Registry.Register(controller.TaskCounter{Tasks: o.GetClient()}); err != nil {
		return err
	}
	if !o.GetCache().WaitForCacheSync(ctx) {
		return nil // the operator ends
	}
	close(o.serving)
	if o.config.agent.Delivery == contract.DeliveryInit {
		return nil
	}
	return nodes.Start(ctx)
}

func (o *operator) registerWebhook(ctx context.Context, nodes *webhook.Nodes) error {
	username, err := username(ctx, o.GetClient())
	if err != nil {
		return err
	}
	pods := &ctrlwebhook.Admission{Handler: webhook.Handler{
		Agent:        o.config.agent,
		ImageVolumes: nodes.ImageVolumes,
		Tasks:        o.GetClient(),
		Live:         o.GetAPIReader(),
		LargeTasks:   webhook.NewLargeTasks(),
		Operator:     username,
		Commands:     o.commands,
	}}
	server := o.GetWebhookServer()
	server.Register(certs.UnmutatedPath, http.HandlerFunc(webhook.Unmutated))
	// Pods and Tasks share one bound.
	both := http.NewServeMux()
	both.Handle(certs.Pattern, pods)
	both.Handle(certs.TasksPattern, &ctrlwebhook.Admission{Handler: webhook.TaskHandler{}})
	guarded := drained(o.terminating, o.keeper.Guard(serve.Trusting(webhook.Bounded(both))))
	server.Register(certs.Pattern, guarded)
	server.Register(certs.TasksPattern, guarded)
	return nil
}

// readiness returns the checks behind /readyz.
func (o *operator) readiness() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"certificate": o.keeper.Check,
		"webhook":     o.GetWebhookServer().StartedChecker(),
		"caches": func(*http.Request) error {
			select {
			case <-o.serving:
				return nil
			default:
				return errors.New("the operator has not read all Tasks and Pods yet")
			}
		},
	}
}

// everyReplica is a Runnable that does not wait for leader election.
type everyReplica struct{ manager.Runnable }

func (everyReplica) NeedLeaderElection() bool { return false }
