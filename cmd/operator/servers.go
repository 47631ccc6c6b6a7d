package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/internal/serve"
)

// Any Pod may reach the operator's ports. So each has an own listener, which keeps so many connections of strangers; controller-runtime's servers
// keep all that come.
const (
	// webhookStrangers is above what an API server opens at once: each of its connections is a stranger's until its first request.
	webhookStrangers = 1000
	metricsStrangers = 200
	healthStrangers  = 100
)

// listen opens a port.
func listen(ctx context.Context, address string, strangers int) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return serve.Limit(listener, strangers), nil
}

// webhookServer is controller-runtime's server for webhooks, with a listener of its own.
type webhookServer struct {
	ctrlwebhook.Server
	address string
	mux     *http.ServeMux
	tls     *tls.Config
	started atomic.Bool
}

func newWebhookServer(port int, settings *tls.Config) *webhookServer {
	mux := http.NewServeMux()
	return &webhookServer{
		Server:  ctrlwebhook.NewServer(ctrlwebhook.Options{Port: port, WebhookMux: mux}),
		address: net.JoinHostPort("", strconv.Itoa(port)),
		mux:     mux,
		tls:     settings,
	}
}

// shutdownTimeout bounds how long a server waits for the answers that are under way when it is told to end.
const shutdownTimeout = time.Minute

// Start serves until the context ends.
func (s *webhookServer) Start(ctx context.Context) error {
	listener, err := listen(ctx, s.address, webhookStrangers)
	if err != nil {
		return err
	}
	server := &manager.Server{
		Name:            "webhook",
		Server:          serve.Server(s.mux),
		Listener:        tls.NewListener(listener, s.tls),
		ShutdownTimeout: new(shutdownTimeout),
	}
	s.started.Store(true)
	return server.Start(ctx)
}

// StartedChecker returns a readiness check. It doesn't call the server, because everybody may ask for it.
func (s *webhookServer) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.started.Load() {
			return errors.New("the webhook's server hasn't been started yet")
		}
		return nil
	}
}

// addHealth serves /healthz and /readyz.
func addHealth(ctx context.Context, m manager.Manager, address string, ready map[string]healthz.Checker) error {
	if address == "" || address == "0" {
		return nil
	}
	listener, err := listen(ctx, address, healthStrangers)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"ping": healthz.Ping},
		"/readyz":  ready,
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return m.Add(&manager.Server{Name: "health", Server: serve.Server(mux), Listener: listener, ShutdownTimeout: new(shutdownTimeout)})
}

// addMetrics serves /metrics.
func addMetrics(ctx context.Context, m manager.Manager, address string, settings *tls.Config) error {
	if address == "0" {
		return nil
	}
	guard, err := newMetricsGuard(m.GetConfig(), m.GetHTTPClient(), ctrl.Log.WithName("metrics"))
	if err != nil {
		return err
	}
	listener, err := listen(ctx, address, metricsStrangers)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", guard.protect(serve.Trusting(promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))))
	return m.Add(&manager.Server{
		Name: "metrics", Server: serve.Server(mux), Listener: tls.NewListener(listener, settings), ShutdownTimeout: new(shutdownTimeout),
	})
}
