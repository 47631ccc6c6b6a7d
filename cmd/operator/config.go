package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/webhook"
)

// config is what the command line says.
type config struct {
	namespace      string // the operator's own
	webhookPort    int
	webhookClients clientCA
	healthAddress  string
	metricsAddress string
	profileAddress string
	watched        []string // namespaces; all where there are none
	logLevel       string
	logFormat      string
	startGrace     time.Duration
	shutdownDelay  time.Duration
	agent          podspec.Agent
	file           string // the configuration file; empty: all defaults
	certs          certs.Options
}

// parse reads the command line. It fails with one sentence on a value that makes no sense.
func parse(args []string) (config, error) {
	var c config
	var requests, limits, services []string
	var pullPolicy, medium, source, secret string
	flags := pflag.NewFlagSet("operator", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringVar(&c.agent.Image, "agent-image", "taskflow/agent:latest", "image of the agent that is put into Pods")
	flags.StringVar(&pullPolicy, "agent-pull-policy", "", "imagePullPolicy of the agent's image: Always, IfNotPresent or Never (default: Kubernetes' own)")
	flags.StringVar(&c.agent.Delivery, "agent-delivery", contract.DeliveryInit, "how the agent gets into Pods that don't say it themselves: init (by an init container), image (its image is mounted as a volume: Kubernetes 1.36) or auto (image where every node can do it, else init)")
	flags.StringVar(&medium, "agent-medium", "", "where the agent's binary is in a Pod: empty for the node's disk, or Memory, for nodes that mount their disk noexec")
	flags.StringSliceVar(&requests, "agent-requests", agentRequests(), "resources that the init container asks for which brings the agent into a Pod; empty for none")
	flags.StringSliceVar(&limits, "agent-limits", agentLimits(), "the most that it gets; empty for no limits")
	flags.StringVar(&c.file, "config", "", "configuration file, read anew when it changes: how the commands of images are found out (default: none)")
	flags.DurationVar(&c.startGrace, "start-grace-period", 5*time.Minute, "how long a container may fail to be started (image can't be pulled, ConfigMap is missing) before its Task has failed")
	flags.DurationVar(&c.shutdownDelay, "shutdown-delay", 5*time.Second, "how long the operator goes on when it is told to end, so that no call of the webhook meets a closed door")
	flags.StringVar(&c.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace that the operator runs in (default: $POD_NAMESPACE)")
	flags.StringSliceVar(&services, "webhook-service", []string{"taskflow-webhook-a", "taskflow-webhook-b"}, "Service that the API server calls the webhook by, or several, separated by commas; may be repeated")
	flags.StringVar(&c.certs.WebhookConfiguration, "webhook-configuration", "taskflow", "MutatingWebhookConfiguration of the webhook")
	flags.StringSliceVar(&c.watched, "watch-namespace", nil, "namespace whose Tasks and Pods are looked after, or several, separated by commas; may be repeated (default: all namespaces)")
	flags.StringVar(&source, "cert-source", string(certs.SourceOwn), "who keeps the webhook's certificate: own (the operator) or secret (somebody else, such as cert-manager, who also tells the API server what to trust)")
	flags.StringVar(&secret, "cert-secret", "taskflow-webhook-cert", "Secret that the webhook's certificate is kept in")
	flags.DurationVar(&c.certs.Lifetimes.Serving, "cert-lifetime", certs.DefaultLifetimes.Serving, "how long a certificate is valid that the operator makes; a new one comes when a third of that is left")
	flags.DurationVar(&c.certs.Lifetimes.Authority, "authority-lifetime", certs.DefaultLifetimes.Authority, "how long the authority is valid that the operator makes")
	flags.IntVar(&c.webhookPort, "webhook-port", 9443, "port of the webhook")
	flags.StringVar(&c.webhookClients.file, "webhook-client-ca", "", "file with the authorities that sign the API server's client certificate; the webhook then answers nobody without one (default: no certificate is asked for)")
	flags.StringVar(&c.webhookClients.name, "webhook-client-name", "", "common name that the API server's client certificate must have (default: any)")
	flags.StringVar(&c.healthAddress, "health-address", ":8081", "address of /healthz and /readyz")
	flags.StringVar(&c.metricsAddress, "metrics-address", ":8443", "address of /metrics, with TLS, for those who may get it; 0 for none")
	flags.StringVar(&c.profileAddress, "profile-address", "", "address of /debug/pprof, open to whoever reaches it, such as 127.0.0.1:6060 (default: none)")
	flags.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&c.logFormat, "log-format", "json", "json or console")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}

	if flags.NArg() > 0 {
		return config{}, fmt.Errorf("unexpected argument %q: there are flags only", flags.Arg(0))
	}
	if c.namespace == "" {
		return config{}, errors.New("--namespace is missing: set it, or $POD_NAMESPACE, to the namespace that the operator runs in")
	}
	c.agent.PullPolicy = corev1.PullPolicy(pullPolicy)
	switch c.agent.PullPolicy {
	case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		return config{}, fmt.Errorf("--agent-pull-policy %q is unknown: set it to Always, IfNotPresent or Never", pullPolicy)
	}
	switch c.agent.Delivery {
	case contract.DeliveryInit, contract.DeliveryImage, podspec.DeliveryAuto:
	default:
		return config{}, fmt.Errorf("--agent-delivery %q is unknown: set it to init, image or auto", c.agent.Delivery)
	}
	c.agent.Medium = corev1.StorageMedium(medium)
	if c.agent.Medium != corev1.StorageMediumDefault && c.agent.Medium != corev1.StorageMediumMemory {
		return config{}, fmt.Errorf("--agent-medium %q is unknown: set it to Memory, or leave it out", medium)
	}
	if c.startGrace < 0 {
		return config{}, fmt.Errorf("--start-grace-period %s is below 0: set it to 0 or more", c.startGrace)
	}
	if c.shutdownDelay < 0 {
		return config{}, fmt.Errorf("--shutdown-delay %s is below 0: set it to 0 or more", c.shutdownDelay)
	}
	var err error
	if c.agent.Resources, err = parseResources(requests, limits); err != nil {
		return config{}, err
	}
	if c.certs.Source, err = parseSource(source); err != nil {
		return config{}, err
	}
	if err := checkLifetimes(c.certs.Lifetimes); err != nil {
		return config{}, err
	}
	c.certs.Secret = types.NamespacedName{Namespace: c.namespace, Name: secret}
	if len(services) == 0 {
		return config{}, errors.New("--webhook-service is empty: set it to the Services that the API server calls the webhook by")
	}
	for _, service := range services {
		c.certs.Services = append(c.certs.Services, fmt.Sprintf("%s.%s.svc", service, c.namespace))
	}
	return c, nil
}

func parseSource(value string) (certs.Source, error) {
	switch source := certs.Source(value); source {
	case certs.SourceOwn, certs.SourceSecret:
		return source, nil
	}
	return "", fmt.Errorf("--cert-source %q is unknown: set it to own or secret", value)
}

// shortestLife of a certificate: the API server must have time to hear of the next one.
const shortestLife = 30 * time.Second

func checkLifetimes(l certs.Lifetimes) error {
	if l.Serving < shortestLife {
		return fmt.Errorf("--cert-lifetime %s is too short: set it to %s or more", l.Serving, shortestLife)
	}
	if l.Authority < 2*l.Serving {
		return fmt.Errorf("--authority-lifetime %s is too short: set it to %s (twice --cert-lifetime) or more", l.Authority, 2*l.Serving)
	}
	return nil
}

// agentRequests of the init container that copies the agent don't keep a Pod from being scheduled: they don't add to the steps'.
func agentRequests() []string { return []string{"cpu=10m", "memory=16Mi"} }

// agentLimits are such that a copy of a few MB never meets them.
func agentLimits() []string { return []string{"cpu=500m", "memory=64Mi"} }

func parseResources(requests, limits []string) (corev1.ResourceRequirements, error) {
	var resources corev1.ResourceRequirements
	var err error
	if resources.Requests, err = parseQuantities("--agent-requests", requests); err != nil {
		return resources, err
	}
	if resources.Limits, err = parseQuantities("--agent-limits", limits); err != nil {
		return resources, err
	}
	for name, limit := range resources.Limits {
		if request, ok := resources.Requests[name]; ok && request.Cmp(limit) > 0 {
			return resources, fmt.Errorf("--agent-requests %s=%s is above --agent-limits %s=%s: raise the limit", name, &request, name, &limit)
		}
	}
	return resources, nil
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
			return nil, fmt.Errorf("%s %s isn't a quantity: write it as cpu=10m,memory=16Mi", flag, value)
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

// logger is zap behind logr. At level debug, V(1) and deeper are written too.
func (c config) logger() (logr.Logger, error) {
	level, err := zapcore.ParseLevel(c.logLevel)
	if err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %q is unknown: set it to debug, info, warn or error", c.logLevel)
	}
	settings := zap.NewProductionConfig()
	settings.Level = zap.NewAtomicLevelAt(level)
	settings.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	settings.Sampling = nil
	settings.DisableStacktrace = true // the errors of controllers come from the API server and from registries
	switch c.logFormat {
	case "json":
	case "console":
		settings.Encoding = "console"
		settings.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	default:
		return logr.Logger{}, fmt.Errorf("--log-format %q is unknown: set it to json or console", c.logFormat)
	}
	logger, err := settings.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return lazyCore{core} }))
	if err != nil {
		return logr.Logger{}, err
	}
	return zapr.NewLogger(logger), nil
}
