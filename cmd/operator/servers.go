package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/internal/serve"
)

// Every Pod can reach the operator's ports. So each has a listener that limits unauthenticated connections; controller-runtime's servers accept
// any number.
const (
	// webhookStrangers exceeds what an API server opens at once: each of its connections is unauthenticated until its first request.
	webhookStrangers = 1000
	metricsStrangers = 200
	healthStrangers  = 100
)

// shutdownTimeout bounds how long a server waits for requests in progress when it is shut down.
const shutdownTimeout = time.Minute

// newServer opens a port, with TLS unless settings is nil, for so many unauthenticated connections.
func newServer(ctx context.Context, name, address string, strangers int, settings *tls.Config, handler http.Handler) (*manager.Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	listener = serve.Limit(listener, strangers)
	if settings != nil {
		listener = tls.NewListener(listener, settings)
	}
	return &manager.Server{Name: name, Server: serve.Server(handler), Listener: listener, ShutdownTimeout: new(shutdownTimeout)}, nil
}

// webhookServer is controller-runtime's webhook server with a listener of its own.
type webhookServer struct {
	ctrlwebhook.Server
	open    func(context.Context) (*manager.Server, error)
	started atomic.Bool
}

func newWebhookServer(port int, settings *tls.Config) *webhookServer {
	mux := http.NewServeMux()
	return &webhookServer{
		Server: ctrlwebhook.NewServer(ctrlwebhook.Options{Port: port, WebhookMux: mux}),
		open: func(ctx context.Context) (*manager.Server, error) {
			return newServer(ctx, "webhook", fmt.Sprintf(":%d", port), webhookStrangers, settings, mux)
		},
	}
}

// Start serves until ctx ends.
func (s *webhookServer) Start(ctx context.Context) error {
	server, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.started.Store(true)
	return server.Start(ctx)
}

// StartedChecker returns a readiness check. It does not connect to the server, because anyone may trigger it.
func (s *webhookServer) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.started.Load() {
			return errors.New("the webhook's server has not started yet")
		}
		return nil
	}
}

// addHealth serves /healthz and /readyz.
func addHealth(ctx context.Context, m manager.Manager, address string, ready map[string]healthz.Checker) error {
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"ping": healthz.Ping},
		"/readyz":  ready,
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return addServer(ctx, m, "health", address, healthStrangers, nil, mux)
}

// addMetrics serves /metrics.
func addMetrics(ctx context.Context, m manager.Manager, address string, settings *tls.Config) error {
	guard, err := newMetricsGuard(m)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", guard.protect(serve.Trusting(promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))))
	return addServer(ctx, m, "metrics", address, metricsStrangers, settings, mux)
}

// addServer adds a server to the manager unless its address is empty or 0.
func addServer(ctx context.Context, m manager.Manager, name, address string, strangers int, settings *tls.Config, handler http.Handler) error {
	if address == "" || address == "0" {
		return nil
	}
	server, err := newServer(ctx, name, address, strangers, settings, handler)
	if err != nil {
		return err
	}
	return m.Add(server)
}
