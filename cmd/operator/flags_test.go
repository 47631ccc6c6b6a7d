package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// defaults is the configuration without flags, in the namespace taskflow-system. config/manager relies on it.
func defaults() config {
	return config{
		namespace:      "taskflow-system",
		webhookPort:    9443,
		healthAddress:  ":8081",
		metricsAddress: ":8443",
		logLevel:       zapcore.InfoLevel,
		logFormat:      "json",
		startGrace:     5 * time.Minute,
		shutdownDelay:  5 * time.Second,
		agent: podspec.Agent{
			Image:    "taskflow/agent:latest",
			Delivery: "init",
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			},
		},
		certs: certs.Options{
			Source:               certs.SourceOwn,
			Lifetimes:            certs.Lifetimes{Authority: 5 * 365 * 24 * time.Hour, Serving: 90 * 24 * time.Hour},
			Secret:               types.NamespacedName{Namespace: "taskflow-system", Name: "taskflow-webhook-cert"},
			WebhookConfiguration: "taskflow",
			Services:             []string{"taskflow-webhook-a.taskflow-system.svc", "taskflow-webhook-b.taskflow-system.svc"},
		},
	}
}

// TestParse proves the defaults, and what each flag changes.
func TestParse(t *testing.T) {
	cases := map[string]struct {
		args []string
		edit func(*config)
	}{
		"no flags": {nil, func(*config) {}},
		"another namespace": {
			[]string{"--namespace=other"},
			func(c *config) {
				c.namespace, c.certs.Secret.Namespace = "other", "other"
				c.certs.Services = []string{"taskflow-webhook-a.other.svc", "taskflow-webhook-b.other.svc"}
			},
		},
		"the agent": {
			[]string{"--agent-image", "example.com/agent@sha256:0", "--agent-pull-policy", "IfNotPresent"},
			func(c *config) {
				c.agent.Image, c.agent.PullPolicy = "example.com/agent@sha256:0", corev1.PullIfNotPresent
			},
		},
		"the agent as an image volume": {
			[]string{"--agent-delivery=image"},
			func(c *config) { c.agent.Delivery = "image" },
		},
		"the agent as an image volume, if all nodes support it": {
			[]string{"--agent-delivery=auto"},
			func(c *config) { c.agent.Delivery = "auto" },
		},
		"the agent in memory": {
			[]string{"--agent-medium=Memory"},
			func(c *config) { c.agent.Medium = corev1.StorageMediumMemory },
		},
		"the agent is always pulled": {
			[]string{"--agent-pull-policy=Always"},
			func(c *config) { c.agent.PullPolicy = corev1.PullAlways },
		},
		"the agent is never pulled": {
			[]string{"--agent-pull-policy=Never"},
			func(c *config) { c.agent.PullPolicy = corev1.PullNever },
		},
		"the agent's resources": {
			[]string{"--agent-requests=cpu=1m", "--agent-limits="},
			func(c *config) {
				c.agent.Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}}
			},
		},
		"a configuration file": {
			[]string{"--config=/etc/taskflow/config.yaml"},
			func(c *config) { c.file = "/etc/taskflow/config.yaml" },
		},
		"the webhook": {
			[]string{"--webhook-service=service", "--webhook-configuration=configuration", "--cert-secret=secret", "--webhook-port=443"},
			func(c *config) {
				c.certs.Secret.Name, c.certs.WebhookConfiguration = "secret", "configuration"
				c.certs.Services = []string{"service.taskflow-system.svc"}
				c.webhookPort = 443
			},
		},
		"a certificate of cert-manager": {
			[]string{"--cert-source=secret"},
			func(c *config) { c.certs.Source = certs.SourceSecret },
		},
		"short lifetimes": {
			[]string{"--cert-lifetime=30s", "--authority-lifetime=1m"},
			func(c *config) {
				c.certs.Lifetimes = certs.Lifetimes{Authority: time.Minute, Serving: 30 * time.Second}
			},
		},
		"times": {
			[]string{"--start-grace-period=0", "--shutdown-delay=0"},
			func(c *config) { c.startGrace, c.shutdownDelay = 0, 0 },
		},
		"some namespaces": {
			[]string{"--watch-namespace=a,b", "--watch-namespace=c"},
			func(c *config) { c.watched = []string{"a", "b", "c"} },
		},
		"health and logs": {
			[]string{"--health-address=:1", "--metrics-address=0", "--profile-address=:2", "--log-level=debug", "--log-format=console"},
			func(c *config) {
				c.healthAddress, c.metricsAddress, c.profileAddress, c.logLevel, c.logFormat = ":1", "0", ":2", zapcore.DebugLevel, "console"
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAMESPACE", "taskflow-system")
			want := defaults()
			c.edit(&want)
			got, err := parse(c.args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{}, clientCA{})); diff != "" {
				t.Errorf("parse(%q) (-want +got):\n%s", c.args, diff)
			}
		})
	}
}

// TestParseRefuses proves the error for each mistyped flag.
func TestParseRefuses(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"an argument":            {[]string{"--log-level=info", "debug"}, `unexpected argument "debug": only flags are allowed`},
		"no Service":             {[]string{"--webhook-service="}, "--webhook-service is empty: set it to the Services of the webhook"},
		"no namespace":           {[]string{"--namespace="}, "--namespace is missing: set it, or $POD_NAMESPACE, to the namespace of the operator"},
		"an unknown pull policy": {[]string{"--agent-pull-policy=always"}, `invalid argument "always" for "--agent-pull-policy" flag: must be one of ["" "Always" "IfNotPresent" "Never"]`},
		"an unknown delivery":    {[]string{"--agent-delivery=Image"}, `invalid argument "Image" for "--agent-delivery" flag: must be one of ["init" "image" "auto"]`},
		"an unknown medium":      {[]string{"--agent-medium=disk"}, `invalid argument "disk" for "--agent-medium" flag: must be one of ["" "Memory"]`},
		"an unknown source":      {[]string{"--cert-source=vault"}, `invalid argument "vault" for "--cert-source" flag: must be one of ["own" "secret"]`},
		"a negative grace":       {[]string{"--start-grace-period=-1s"}, "--start-grace-period -1s is below 0: set it to 0 or more"},
		"a negative delay":       {[]string{"--shutdown-delay=-1s"}, "--shutdown-delay -1s is below 0: set it to 0 or more"},
		"a short lifetime":       {[]string{"--cert-lifetime=29s"}, "--cert-lifetime 29s is too short: set it to 30s or more"},
		"an authority that expires too early": {
			[]string{"--authority-lifetime=240h", "--cert-lifetime=241h"},
			"--authority-lifetime 240h0m0s is too short: set it to 482h0m0s (twice --cert-lifetime) or more",
		},
		"no quantity":         {[]string{"--agent-limits=memory=much"}, "--agent-limits memory=much is not a quantity: use the form cpu=10m,memory=16Mi"},
		"a negative quantity": {[]string{"--agent-requests=cpu=-1"}, "--agent-requests cpu=-1 is not a quantity: use the form cpu=10m,memory=16Mi"},
		"more than the limit": {[]string{"--agent-requests=memory=65Mi"}, "--agent-requests memory=65Mi is above --agent-limits memory=64Mi: raise the limit"},
		"an unknown level":    {[]string{"--log-level=loud"}, `invalid argument "loud" for "--log-level" flag: unrecognized level: "loud"`},
		"an unknown format":   {[]string{"--log-format=xml"}, `invalid argument "xml" for "--log-format" flag: must be one of ["json" "console"]`},
		"an unknown flag":     {[]string{"--verbose"}, "unknown flag: --verbose"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POD_NAMESPACE", "taskflow-system")
			got, err := parse(c.args)
			if err == nil {
				t.Fatalf("parse(%q) = %+v, want a refusal", c.args, got)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("parse(%q) (-want +got):\n%s", c.args, diff)
			}
		})
	}
}

// TestParseHelp proves that --help is no error.
func TestParseHelp(t *testing.T) {
	if _, err := parse([]string{"--help"}); !errors.Is(err, pflag.ErrHelp) {
		t.Errorf("parse(--help) = %v, want %v", err, pflag.ErrHelp)
	}
}

// TestCacheOptions proves that the operator caches only its own Secret and webhook configuration, so that it needs no permission for
// others. With --watch-namespace it caches only those namespaces.
func TestCacheOptions(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "taskflow-system")
	c, err := parse([]string{"--watch-namespace=a,b"})
	if err != nil {
		t.Fatal(err)
	}
	options := c.cacheOptions()
	if diff := cmp.Diff([]string{"a", "b"}, slices.Sorted(maps.Keys(options.DefaultNamespaces))); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	names := map[string]string{"*v1.Secret": "taskflow-webhook-cert", "*v1.MutatingWebhookConfiguration": "taskflow", "*v1.ValidatingWebhookConfiguration": "taskflow"}
	for object, by := range options.ByObject {
		name, ok := names[fmt.Sprintf("%T", object)]
		if !ok {
			continue
		}
		delete(names, fmt.Sprintf("%T", object))
		for candidate, want := range map[string]bool{name: true, "other": false} {
			if got := by.Field.Matches(fields.Set{"metadata.name": candidate}); got != want {
				t.Errorf("%T %q: held is %t, want %t", object, candidate, got, want)
			}
		}
	}
	if len(names) > 0 {
		t.Errorf("all of these are held: %v", names)
	}
}
