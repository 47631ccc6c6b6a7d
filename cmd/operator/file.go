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
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// settings is the configuration file.
type settings struct {
	// Images is how the commands of images are found out.
	Images entrypoint.Options `json:"images,omitzero"`
}

// parseSettings fails on a field that there isn't: it would be passed over in silence.
func parseSettings(content []byte) (settings, error) {
	var s settings
	err := yaml.UnmarshalStrict(content, &s)
	return s, err
}

// rereadEvery is how often the configuration file is looked at. The kubelet itself takes up to a minute to bring a change of the
// ConfigMap into it.
const rereadEvery = 5 * time.Second

var fileValid = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "taskflow_config_valid",
	Help: "1 while the configuration file is the one in use; 0 when it has changed and can't be used, so that the one before still is.",
})

func init() {
	metrics.Registry.MustRegister(fileValid)
}

// commands finds out the commands of images as the configuration file says now.
type commands struct {
	file    string
	secrets entrypoint.SecretReader
	content []byte // that was read last
	valid   bool   // whether it can be used
	missing string // why nothing could be read, the last time
	current atomic.Pointer[entrypoint.Resolver]
}

// newCommands fails on a file that can't be used.
func newCommands(file string, secrets entrypoint.SecretReader) (*commands, error) {
	c := &commands{file: file, secrets: secrets}
	return c, c.reread(true)
}

// Resolve is entrypoint.Resolver's.
func (c *commands) Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error) {
	return c.current.Load().Resolve(ctx, request)
}

// Start reads the file anew until the context ends.
func (c *commands) Start(ctx context.Context) error { return c.start(ctx, rereadEvery) }

func (c *commands) start(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		before := c.content
		if err := c.reread(false); err != nil {
			logf.FromContext(ctx).Error(err, "Kept the configuration as it was")
		} else if !bytes.Equal(before, c.content) {
			logf.FromContext(ctx).Info("Read the configuration anew", "file", c.file)
		}
	}
}

// reread begins anew, with nothing in mind, where the file has changed. It says once of one content what is wrong with it, or why there is none.
func (c *commands) reread(first bool) error {
	var content []byte
	if c.file != "" {
		var err error
		if content, err = os.ReadFile(c.file); err != nil {
			fileValid.Set(0)
			said := c.missing == err.Error()
			if c.missing = err.Error(); said {
				return nil
			}
			return fmt.Errorf("reading the configuration: %w", err)
		}
	}
	c.missing = ""
	if first || !bytes.Equal(content, c.content) {
		resolver, err := resolverOf(content, c.secrets)
		c.content, c.valid = content, err == nil
		if err != nil {
			fileValid.Set(0)
			return fmt.Errorf("%s: %w", c.file, err)
		}
		c.current.Store(resolver)
	}
	if c.valid {
		fileValid.Set(1)
	}
	return nil
}

func resolverOf(content []byte, secrets entrypoint.SecretReader) (*entrypoint.Resolver, error) {
	parsed, err := parseSettings(content)
	if err != nil {
		return nil, err
	}
	parsed.Images.Secrets = secrets
	resolver, err := entrypoint.New(parsed.Images)
	if err != nil {
		return nil, fmt.Errorf("images.%w", err)
	}
	return resolver, nil
}

// pullSecrets reads from the API server: the operator may get a Secret that a Pod names, and neither list nor watch them.
func pullSecrets(live client.Reader) entrypoint.SecretReader {
	return func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
		var secret corev1.Secret
		err := live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret)
		return &secret, err
	}
}
