package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// rereadEvery is how often the configuration file is checked. The kubelet takes up to a minute to update a mounted ConfigMap.
const rereadEvery = 5 * time.Second

var fileValid = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "taskflow_config_valid",
	Help: "1 if the configuration file is in use, 0 if it is invalid or missing, so that the previous one still is.",
})

func init() {
	metrics.Registry.MustRegister(fileValid)
}

// commands resolves the commands of images as the configuration file currently says.
type commands struct {
	file    string
	secrets entrypoint.SecretReader
	every   time.Duration // between two reads
	content []byte        // in use
	problem string        // of the last read
	current atomic.Pointer[entrypoint.Resolver]
}

// newCommands returns an error for an unusable file.
func newCommands(file string, secrets entrypoint.SecretReader) (*commands, error) {
	c := &commands{file: file, secrets: secrets, every: rereadEvery, problem: "not read yet"}
	return c, c.reread()
}

// Resolve calls the current entrypoint.Resolver.
func (c *commands) Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error) {
	return c.current.Load().Resolve(ctx, request)
}

// Start checks the file for changes until ctx ends.
func (c *commands) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		before := c.current.Load()
		if err := c.reread(); err != nil {
			logf.FromContext(ctx).Error(err, "Keeping the previous configuration")
		} else if before != c.current.Load() {
			logf.FromContext(ctx).Info("Reloaded the configuration", "file", c.file)
		}
	}, c.every)
	return nil
}

// reread replaces the resolver, and so drops its caches, if the file has changed or is usable again. It reports each problem once.
func (c *commands) reread() error {
	var content []byte
	var err error
	if c.file != "" {
		if content, err = os.ReadFile(c.file); err != nil {
			return c.report(fmt.Errorf("reading the configuration: %w", err))
		}
	}
	if c.problem == "" && bytes.Equal(content, c.content) {
		return nil
	}
	resolver, err := resolverOf(content, c.secrets)
	if err != nil {
		return c.report(fmt.Errorf("%s: %w", c.file, err))
	}
	c.content, c.problem = content, ""
	c.current.Store(resolver)
	fileValid.Set(1)
	return nil
}

// report returns nil for the problem of the previous read.
func (c *commands) report(err error) error {
	fileValid.Set(0)
	if c.problem == err.Error() {
		return nil
	}
	c.problem = err.Error()
	return err
}

// resolverOf refuses unknown fields, which would otherwise be ignored silently.
func resolverOf(content []byte, secrets entrypoint.SecretReader) (*entrypoint.Resolver, error) {
	var parsed struct {
		Images entrypoint.Options `json:"images,omitzero"`
	}
	if err := yaml.UnmarshalStrict(content, &parsed); err != nil {
		return nil, err
	}
	parsed.Images.Secrets = secrets
	resolver, err := entrypoint.New(parsed.Images)
	if err != nil {
		return nil, fmt.Errorf("images.%w", err)
	}
	return resolver, nil
}

// pullSecrets reads from the API server: the operator may get the Secrets that Pods name, but neither list nor watch them.
func pullSecrets(live client.Reader) entrypoint.SecretReader {
	return func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
		var secret corev1.Secret
		err := live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret)
		return &secret, err
	}
}
