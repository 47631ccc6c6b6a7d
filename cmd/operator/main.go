// Command operator runs taskflow's webhook and controllers.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/serve"
	"github.com/taskflow/taskflow-operator/webhook"
)

// What every operator needs; its controllers and certs.SourceOwn need more. Of Secrets it reads its own alone: a watch of one name is
// allowed by that name.
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,resourceNames=taskflow-webhook-cert,verbs=get;list;watch
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,resourceNames=taskflow,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=taskflow-system,resources=leases,resourceNames=taskflow-operator,verbs=get;update

// leaseName is the Lease that the replicas elect a leader with.
const leaseName = "taskflow-operator"

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "operator: %v\n", err)
		os.Exit(1)
	}
}

// run runs the operator until it is told to end, and c.shutdownDelay longer.
func run(told context.Context, args []string) error {
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
	if err := spendMemory(memlimit.FromCgroup); err != nil {
		logger.V(1).Info("Can't find the container's memory limit", "why", err.Error())
	}
	ctx, cancel := outlast(told, c.shutdownDelay)
	defer cancel()

	keeper := certs.New(c.certs)
	m, err := newManager(c, keeper)
	if err != nil {
		return err
	}
	commands, err := newCommands(c.file, pullSecrets(m.GetAPIReader()))
	if err != nil {
		return err
	}
	if err := m.Add(everyReplica{commands}); err != nil {
		return err
	}
	if err := keeper.SetupWithManager(m); err != nil {
		return fmt.Errorf("setting up the webhook's certificate: %w", err)
	}
	nodes := webhook.NewNodes(m.GetCache(), c.agent.Delivery)
	serving := make(chan struct{})
	start := func(ctx context.Context) error {
		// The controllers wait too: without the webhook they could make no Pod.
		select {
		case <-keeper.Ready():
		case <-ctx.Done():
			return nil
		}
		operator, err := username(ctx, m.GetClient())
		if err != nil {
			return err
		}
		m.GetWebhookServer().Register(certs.UnmutatedPath, http.HandlerFunc(webhook.Unmutated))
		m.GetWebhookServer().Register(certs.Pattern, drained(told.Done(), keeper.Guard(serve.Trusting(webhook.Bounded(&ctrlwebhook.Admission{
			Handler: webhook.Handler{
				Agent:        c.agent,
				ImageVolumes: nodes.ImageVolumes,
				Tasks:        m.GetClient(),
				Live:         m.GetAPIReader(),
				LargeTasks:   webhook.NewLargeTasks(),
				Operator:     operator,
				Commands:     commands,
			},
		})))))
		if err := controller.SetupWithManager(m, commands, c.startGrace); err != nil {
			return err
		}
		if err := metrics.Registry.Register(controller.TaskCounter{Tasks: m.GetClient()}); err != nil {
			return err
		}
		if !m.GetCache().WaitForCacheSync(ctx) {
			return nil // the operator ends
		}
		close(serving)
		if c.agent.Delivery == contract.DeliveryInit {
			return nil
		}
		return nodes.Start(ctx)
	}
	if err := m.Add(everyReplica{manager.RunnableFunc(start)}); err != nil {
		return err
	}
	ready := map[string]healthz.Checker{
		"certificate": keeper.Check,
		"webhook":     m.GetWebhookServer().StartedChecker(),
		"caches": func(*http.Request) error {
			select {
			case <-serving:
				return nil
			default:
				return errors.New("the operator hasn't read all Tasks and Pods yet")
			}
		},
	}
	if err := addHealth(ctx, m, c.healthAddress, ready); err != nil {
		return err
	}
	if err := addMetrics(ctx, m, c.metricsAddress, keeper.TLS()); err != nil {
		return err
	}
	return m.Start(ctx)
}

// logWith makes all that is logged look alike, also what libraries tell by other ways: such as a server, of a connection that isn't TLS.
func logWith(logger logr.Logger) {
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	slog.SetDefault(slog.New(logr.ToSlogHandler(logger))) // package log, too
}

func newManager(c config, keeper *certs.Keeper) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	cluster, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	// Both ends of a cluster's own network would compress each event of a watch, for nothing but their time.
	cluster.DisableCompression = true
	cluster.Wrap(keeper.Listen)
	cluster.Wrap(controller.BoundEvents)
	webhookTLS := keeper.TLS()
	if err := c.webhookClients.require(webhookTLS); err != nil {
		return nil, err
	}
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme:         scheme,
		MapperProvider: newMapper,
		Cache:          c.cacheOptions(),
		WebhookServer:  newWebhookServer(c.webhookPort, webhookTLS),
		// addHealth and addMetrics serve both.
		HealthProbeBindAddress:        "0",
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		PprofBindAddress:              c.profileAddress,
		LeaderElection:                true,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       c.namespace,
		LeaderElectionReleaseOnCancel: true,
	})
}

// outlast gives a context that ends so long after another one.
func outlast(told context.Context, delay time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(told))
	context.AfterFunc(told, func() { time.AfterFunc(delay, cancel) })
	return ctx, cancel
}

// drained lets each request have its answer while the operator ends. Two things would cost one: the server cancels what it is at when
// it is shut down (the webhook has a deadline of its own, and the server waits for it), and it closes connections at the very moment
// that the API server, which keeps them for its next calls, may use one. So from the moment the operator is told to end,
// each answer asks the API server to close the connection, and the next call goes to another replica.
func drained(told <-chan struct{}, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-told:
			w.Header().Set("Connection", "close")
		default:
		}
		handler.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
}

// everyReplica is a Runnable that doesn't wait for the leader election.
type everyReplica struct{ manager.Runnable }

func (everyReplica) NeedLeaderElection() bool { return false }
