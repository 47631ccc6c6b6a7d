package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Permissions for SourceOwn, rendered into config/own-certificates. cmd/operator has those of every source, such as updating the webhook
// configuration with the webhook's path.
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,resourceNames=taskflow-webhook-cert,verbs=update

// Source is what maintains the Secret with the certificate.
type Source string

const (
	// SourceOwn is the operator itself: it issues and renews the certificates, and writes the CA bundle.
	SourceOwn Source = "own"
	// SourceSecret is another program, such as cert-manager. The operator only reads the Secret.
	SourceSecret Source = "secret"
)

// Options configure a Keeper.
type Options struct {
	Source Source
	// Secret with the certificate.
	Secret types.NamespacedName
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration and the ValidatingWebhookConfiguration with the CA bundle.
	WebhookConfiguration string
	// Services are the DNS names that the API server may call a replica by.
	Services []string
	// Lifetimes of what SourceOwn issues.
	Lifetimes Lifetimes
}

// AddToCache restricts the manager's cache to the one Secret and the one webhook configuration of each kind.
func (o Options) AddToCache(byObject map[client.Object]cache.ByObject) {
	byObject[&corev1.Secret{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Secret.Namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", o.Secret.Name),
	}
	configuration := cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", o.WebhookConfiguration)}
	byObject[&admissionv1.MutatingWebhookConfiguration{}] = configuration
	byObject[&admissionv1.ValidatingWebhookConfiguration{}] = configuration
}

// Keeper brings the certificate from the Secret to the server. Every replica has one.
type Keeper struct {
	options Options
	client  client.Client
	live    client.Reader
	clock   clock
	server  *server
	paths   paths
	ready   chan struct{}
	once    sync.Once // closes ready
}

// New returns a Keeper. Its TLS settings can be used at once.
func New(o Options) *Keeper {
	return &Keeper{
		options: o,
		server:  &server{names: o.Services, settle: o.Lifetimes.settle()},
		paths:   paths{settle: o.Lifetimes.settle()},
		ready:   make(chan struct{}),
	}
}

// TLS returns the settings of a server with the certificate. It offers only HTTP/1.1, which the API server uses for webhooks behind a
// Service.
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{GetCertificate: k.server.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// Listen wraps a transport to the API server, so that the Keeper learns its time. Use it for the configuration that the manager is created
// with.
func (k *Keeper) Listen(transport http.RoundTripper) http.RoundTripper {
	return listening{transport, &k.clock}
}

// Ready is closed once the API server trusts the served certificate and has a path to call.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Check is a readiness check.
func (k *Keeper) Check(*http.Request) error {
	if err := k.server.check(); err != nil {
		return err
	}
	return k.paths.check()
}

// SetupWithManager registers the Keeper.
func (k *Keeper) SetupWithManager(m manager.Manager) error {
	k.client, k.live = m.GetClient(), m.GetAPIReader()
	// All objects lead to the same request.
	work := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: k.options.Secret}}
	})
	return ctrl.NewControllerManagedBy(m).
		Named("certificate").
		Watches(&corev1.Secret{}, work).
		Watches(&admissionv1.MutatingWebhookConfiguration{}, work).
		Watches(&admissionv1.ValidatingWebhookConfiguration{}, work).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(k)
}

// Reconcile renews what is due, and serves what is trusted.
func (k *Keeper) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	again, err := k.reconcile(ctx)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// Another replica wrote first. The event of its write may have come already.
		again, err = conflictRetry, nil
	}
	return reconcile.Result{RequeueAfter: again}, err
}

// reconcile returns after how long it must run again, or 0.
func (k *Keeper) reconcile(ctx context.Context) (again time.Duration, err error) {
	var config admissionv1.MutatingWebhookConfiguration
	if err := k.client.Get(ctx, client.ObjectKey{Name: k.options.WebhookConfiguration}, &config); err != nil {
		// Without the configuration, the API server does not call. Its creation is an event.
		return 0, client.IgnoreNotFound(err)
	}
	var secret corev1.Secret
	if err := k.client.Get(ctx, k.options.Secret, &secret); client.IgnoreNotFound(err) != nil {
		return 0, err
	}
	bundles := config.DeepCopy()
	if k.options.Source == SourceOwn {
		renewed, err := k.renew(ctx, &secret, bundles)
		if err != nil {
			return 0, err
		}
		again = min(max(renewed.Sub(k.clock.now()), time.Second), longestPause)
	}

	served, err := parseServed(secret.Data)
	if err != nil && len(secret.Data) > 0 {
		logf.FromContext(ctx).Error(err, "The Secret has no usable certificate")
	}
	configured, waitPath, err := k.configure(ctx, served, &secret, &config, bundles)
	if err != nil {
		return 0, err
	}
	changed, wait := k.server.offer(served, trustedBy(configured), k.clock.now())
	if changed {
		logf.FromContext(ctx).Info("Serving a certificate", "until", served.Leaf.NotAfter)
	}
	if k.Check(nil) == nil {
		k.once.Do(func() { close(k.ready) })
	}
	if err := k.follow(ctx, configured); err != nil {
		return 0, err
	}
	for _, wait := range []time.Duration{wait, waitPath} {
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	return again, nil
}

// configure updates the CA bundle and the path in the webhook configuration if needed, and returns what it then holds. next already has the
// bundle. Every replica writes it, and last, because the replica that wrote the Secret may be gone.
func (k *Keeper) configure(ctx context.Context, served certificate, secret *corev1.Secret, config, next *admissionv1.MutatingWebhookConfiguration) (*admissionv1.MutatingWebhookConfiguration, time.Duration, error) {
	path, err := pathOf(served)
	if err != nil {
		return nil, 0, err
	}
	webhooks := secretWebhooks(next)
	write, wait := k.paths.offer(path, pathsOf(webhooks), k.clock.now())
	if write {
		// A replica with an old Secret in its cache must not overwrite another one's path.
		var now corev1.Secret
		if err := k.live.Get(ctx, k.options.Secret, &now); err != nil {
			return nil, 0, fmt.Errorf("reading the Secret %s: %w", k.options.Secret, err)
		}
		if now.ResourceVersion != secret.ResourceVersion {
			return config, conflictRetry, nil
		}
		for _, service := range webhooks {
			service.Path = &path
		}
	}
	if equality.Semantic.DeepEqual(config, next) {
		return config, wait, nil
	}
	if err := k.client.Update(ctx, next); err != nil {
		return nil, 0, fmt.Errorf("updating the MutatingWebhookConfiguration %s: %w", next.Name, err)
	}
	if write {
		logf.FromContext(ctx).Info("Changed the path of the webhook")
	}
	_, wait = k.paths.offer(path, pathsOf(secretWebhooks(next)), k.clock.now())
	return next, wait, nil
}

const (
	conflictRetry = 100 * time.Millisecond
	// longestPause bounds the time between two reconciliations, because a clock may be set in between.
	longestPause = time.Hour
)

// renew writes the Secret if needed, and sets the CA bundle in config, which it does not write. It returns when the next renewal is due.
func (k *Keeper) renew(ctx context.Context, secret *corev1.Secret, config *admissionv1.MutatingWebhookConfiguration) (time.Time, error) {
	next, err := renew(secret.Data, trustedBy(config), k.server.names, k.options.Lifetimes, k.clock.now())
	if err != nil {
		return time.Time{}, err
	}
	if next.why != "" {
		logf.FromContext(ctx).Info("Renewing the certificate", "why", next.why)
		if err := k.writeSecret(ctx, secret, next.data); err != nil {
			return time.Time{}, fmt.Errorf("writing the Secret %s: %w", k.options.Secret, err)
		}
	}
	for i := range config.Webhooks {
		config.Webhooks[i].ClientConfig.CABundle = next.data[bundleFile]
	}
	return next.again, nil
}

// writeSecret creates the Secret if it is missing, and otherwise updates the one that was read.
func (k *Keeper) writeSecret(ctx context.Context, secret *corev1.Secret, data map[string][]byte) error {
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	if secret.ResourceVersion == "" {
		secret.Namespace, secret.Name = k.options.Secret.Namespace, k.options.Secret.Name
		return k.client.Create(ctx, secret)
	}
	return k.client.Update(ctx, secret)
}

// trustedBy returns the authorities that the API server trusts: those in the bundles of all webhooks.
func trustedBy(config *admissionv1.MutatingWebhookConfiguration) []*x509.Certificate {
	var common []*x509.Certificate
	for i, webhook := range config.Webhooks {
		certs := parseCerts(webhook.ClientConfig.CABundle)
		if i == 0 {
			common = certs
			continue
		}
		common = slices.DeleteFunc(common, func(cert *x509.Certificate) bool { return !slices.ContainsFunc(certs, cert.Equal) })
	}
	return common
}

var _ reconcile.Reconciler = (*Keeper)(nil)
