package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/webhook"
)

// config is the command line.
type config struct {
	namespace      string // of the operator itself
	webhookPort    int
	webhookClients clientCA
	healthAddress  string
	metricsAddress string
	profileAddress string
	watched        []string // namespaces; empty means all
	logLevel       zapcore.Level
	logFormat      string
	startGrace     time.Duration
	shutdownDelay  time.Duration
	agent          podspec.Agent
	file           string // the configuration file; empty means all defaults
	certs          certs.Options
}

// parse reads the command line. Its errors are one sentence each, which names the flag.
func parse(args []string) (config, error) {
	var c config
	var requests, limits, services []string
	flags := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	flags.SortFlags = false
	c.addAgentFlags(flags, &requests, &limits)
	c.addControllerFlags(flags)
	c.addWebhookFlags(flags, &services)
	c.addAddressAndLogFlags(flags)
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if flags.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q: only flags are allowed", flags.Arg(0))
	}
	c.certs.Secret.Namespace = c.namespace
	for _, service := range services {
		c.certs.Services = append(c.certs.Services, fmt.Sprintf("%s.%s.svc", service, c.namespace))
	}
	if err := c.check(); err != nil {
		return config{}, err
	}
	return c, c.setResources(requests, limits)
}

func (c *config) addAgentFlags(flags *pflag.FlagSet, requests, limits *[]string) {
	flags.StringVar(&c.agent.Image, "agent-image", "taskflow/agent:latest", "image of the agent")
	flags.Var(oneOf(&c.agent.PullPolicy, "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever), "agent-pull-policy", "imagePullPolicy of the agent's image: Always, IfNotPresent or Never (default: Kubernetes' own)")
	flags.Var(oneOf(&c.agent.Delivery, contract.DeliveryInit, contract.DeliveryImage, podspec.DeliveryAuto), "agent-delivery", "how the agent gets into Pods without an annotation for it: init (an init container copies it), image (an image volume; Kubernetes 1.36) or auto (image if all nodes support it, else init)")
	flags.Var(oneOf(&c.agent.Medium, corev1.StorageMediumDefault, corev1.StorageMediumMemory), "agent-medium", "medium of the volume with the agent: Memory, for nodes that mount their disk noexec (default: the node's disk)")
	// The requests of an init container do not add to those of the steps. The limits are far above what copying a few MB needs.
	flags.StringSliceVar(requests, "agent-requests", []string{"cpu=10m", "memory=16Mi"}, "resource requests of the init container that copies the agent; empty for none")
	flags.StringSliceVar(limits, "agent-limits", []string{"cpu=500m", "memory=64Mi"}, "resource limits of the init container that copies the agent; empty for none")
}

func (c *config) addControllerFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.file, "config", "", "configuration file with the registry settings, read again when it changes (default: none)")
	flags.DurationVar(&c.startGrace, "start-grace-period", 5*time.Minute, "how long a container may fail to start, such as for an image that cannot be pulled, before its Task fails")
	flags.DurationVar(&c.shutdownDelay, "shutdown-delay", 5*time.Second, "how long the operator keeps serving after SIGTERM, so that no call of the webhook fails")
	flags.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the operator (default: $POD_NAMESPACE)")
	flags.StringSliceVar(&c.watched, "watch-namespace", nil, "namespaces to watch for Tasks and Pods, separated by commas; may be repeated (default: all)")
}

func (c *config) addWebhookFlags(flags *pflag.FlagSet, services *[]string) {
	flags.StringSliceVar(services, "webhook-service", []string{"taskflow-webhook-a", "taskflow-webhook-b"}, "Services of the webhook, separated by commas; may be repeated")
	flags.StringVar(&c.certs.WebhookConfiguration, "webhook-configuration", "taskflow", "name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration")
	flags.Var(oneOf(&c.certs.Source, certs.SourceOwn, certs.SourceSecret), "cert-source", "what maintains the webhook's certificate: own (the operator) or secret (another program, such as cert-manager, which also sets the CA bundle)")
	flags.StringVar(&c.certs.Secret.Name, "cert-secret", "taskflow-webhook-cert", "Secret with the webhook's certificate")
	flags.DurationVar(&c.certs.Lifetimes.Serving, "cert-lifetime", certs.DefaultLifetimes.Serving, "lifetime of the certificates that the operator issues; it renews them when a third is left")
	flags.DurationVar(&c.certs.Lifetimes.Authority, "authority-lifetime", certs.DefaultLifetimes.Authority, "lifetime of the certificate authority that the operator creates")
	flags.IntVar(&c.webhookPort, "webhook-port", 9443, "port of the webhook")
	flags.StringVar(&c.webhookClients.file, "webhook-client-ca", "", "file with the CA of the API server's client certificate, which the webhook then requires (default: none required)")
	flags.StringVar(&c.webhookClients.name, "webhook-client-name", "", "required common name of the API server's client certificate (default: any)")
}

func (c *config) addAddressAndLogFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&c.metricsAddress, "metrics-address", ":8443", "address of /metrics, with TLS and authorization; 0 for none")
	flags.StringVar(&c.profileAddress, "profile-address", "", "address of /debug/pprof, without authorization, such as 127.0.0.1:6060 (default: none)")
	flags.TextVar(&c.logLevel, "log-level", zapcore.InfoLevel, "debug, info, warn or error")
	flags.Var(oneOf(&c.logFormat, "json", "console"), "log-format", "json or console")
}

// choice is the value of a flag that allows only some values. The first one is the default.
type choice[T ~string] struct {
	value   *T
	allowed []T
}

func oneOf[T ~string](value *T, allowed ...T) choice[T] {
	*value = allowed[0]
	return choice[T]{value, allowed}
}

// Set implements pflag.Value.
func (c choice[T]) Set(value string) error {
	if !slices.Contains(c.allowed, T(value)) {
		return fmt.Errorf("must be one of %q", c.allowed)
	}
	*c.value = T(value)
	return nil
}

func (c choice[T]) String() string { return string(*c.value) }

// Type implements pflag.Value.
func (choice[T]) Type() string { return "string" }

// shortestLife of a certificate leaves the API server time to learn of the next one.
const shortestLife = 30 * time.Second

func (c *config) check() error {
	lives := c.certs.Lifetimes
	switch {
	case c.namespace == "":
		return errors.New("--namespace is missing: set it, or $POD_NAMESPACE, to the namespace of the operator")
	case len(c.certs.Services) == 0:
		return errors.New("--webhook-service is empty: set it to the Services of the webhook")
	case c.startGrace < 0:
		return fmt.Errorf("--start-grace-period %s is below 0: set it to 0 or more", c.startGrace)
	case c.shutdownDelay < 0:
		return fmt.Errorf("--shutdown-delay %s is below 0: set it to 0 or more", c.shutdownDelay)
	case lives.Serving < shortestLife:
		return fmt.Errorf("--cert-lifetime %s is too short: set it to %s or more", lives.Serving, shortestLife)
	case lives.Authority < 2*lives.Serving:
		return fmt.Errorf("--authority-lifetime %s is too short: set it to %s (twice --cert-lifetime) or more", lives.Authority, 2*lives.Serving)
	}
	return nil
}

func (c *config) setResources(requests, limits []string) (err error) {
	resources := &c.agent.Resources
	if resources.Requests, err = parseQuantities("--agent-requests", requests); err != nil {
		return err
	}
	if resources.Limits, err = parseQuantities("--agent-limits", limits); err != nil {
		return err
	}
	for name, limit := range resources.Limits {
		if request, ok := resources.Requests[name]; ok && request.Cmp(limit) > 0 {
			return fmt.Errorf("--agent-requests %s=%s is above --agent-limits %s=%s: raise the limit", name, &request, name, &limit)
		}
	}
	return nil
}

func parseQuantities(flag string, values []string) (corev1.ResourceList, error) {
	if len(values) == 0 {
		return nil, nil
	}
	list := corev1.ResourceList{}
	for _, value := range values {
		name, amount, ok := strings.Cut(value, "=")
		quantity, err := resource.ParseQuantity(amount)
		if !ok || err != nil || quantity.Sign() < 0 {
			return nil, fmt.Errorf("%s %s is not a quantity: use the form cpu=10m,memory=16Mi", flag, value)
		}
		list[corev1.ResourceName(name)] = quantity
	}
	return list, nil
}

// cacheOptions are what the operator keeps in memory.
func (c config) cacheOptions() cache.Options {
	options := controller.CacheOptions()
	c.certs.AddToCache(options.ByObject)
	webhook.CacheNodes(options.ByObject)
	if len(c.watched) > 0 {
		options.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range c.watched {
			options.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	return options
}
