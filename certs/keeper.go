package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// For SourceOwn, in config/own-certificates. What every source needs is in cmd/operator: also to update the webhook configuration, which has the
// webhook's path whoever keeps the certificate.
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,verbs=create
// +kubebuilder:rbac:groups="",namespace=taskflow-system,resources=secrets,resourceNames=taskflow-webhook-cert,verbs=update

// Source says who keeps the Secret with the certificate.
type Source string

// The sources.
const (
	// SourceOwn is the operator: it makes the certificates, renews them and tells the API server which authorities to trust.
	SourceOwn Source = "own"
	// SourceSecret is somebody else, such as cert-manager: the operator reads.
	SourceSecret Source = "secret"
)

// Options say what the certificate is for and where it is kept.
type Options struct {
	Source Source
	// Secret that holds the certificate.
	Secret types.NamespacedName
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration that has the authorities.
	WebhookConfiguration string
	// Services are the DNS names that the API server calls: a replica may be called by each of them.
	Services []string
	// Lifetimes of what SourceOwn makes.
	Lifetimes Lifetimes
}

// AddToCache makes the manager's cache hold the one Secret and the one webhook configuration, and no other.
func (o Options) AddToCache(byObject map[client.Object]cache.ByObject) {
	byObject[&corev1.Secret{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{o.Secret.Namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", o.Secret.Name),
	}
	byObject[&admissionv1.MutatingWebhookConfiguration{}] = cache.ByObject{
		Field: fields.OneTermEqualSelector("metadata.name", o.WebhookConfiguration),
	}
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
}

// New makes a Keeper, whose GetCertificate may be used at once.
func New(o Options) *Keeper {
	return &Keeper{
		options: o,
		server:  &server{names: o.Services, settle: o.Lifetimes.settle()},
		paths:   paths{settle: o.Lifetimes.settle()},
		ready:   make(chan struct{}),
	}
}

// TLS returns the settings of a server that serves the certificate. A connection has one request at a time: HTTP/1.1 is what the API server asks
// a webhook for.
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{GetCertificate: k.server.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// Listen makes a transport to the API server tell the Keeper what time it is there. It is for the configuration that the manager is made with.
func (k *Keeper) Listen(transport http.RoundTripper) http.RoundTripper {
	return listening{transport, &k.clock}
}

// Ready is closed as soon as there is a certificate that the API server trusts, and the API server has a path to call.
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
	// Both lead to the same work: there is one Secret and one webhook configuration.
	work := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: k.options.Secret}}
	})
	return ctrl.NewControllerManagedBy(m).
		Named("certificate").
		Watches(&corev1.Secret{}, work).
		Watches(&admissionv1.MutatingWebhookConfiguration{}, work).
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Complete(k)
}

// Reconcile renews what is to be renewed, and serves what is to be served.
func (k *Keeper) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var config admissionv1.MutatingWebhookConfiguration
	if err := k.client.Get(ctx, client.ObjectKey{Name: k.options.WebhookConfiguration}, &config); err != nil {
		// Nobody calls before it is there again, and then there is an event.
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var secret corev1.Secret
	if err := k.client.Get(ctx, k.options.Secret, &secret); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, err
	}
	var again time.Duration
	bundles := config.DeepCopy()
	if k.options.Source == SourceOwn {
		renewed, err := k.renew(ctx, &secret, bundles)
		if isOthers(err) {
			return reconcile.Result{RequeueAfter: conflictRetry}, nil
		}
		if err != nil {
			return reconcile.Result{}, err
		}
		again = min(max(renewed.Sub(k.clock.now()), time.Second), longestPause)
	}

	served, err := parseServed(secret.Data)
	if err != nil && len(secret.Data) > 0 {
		logf.FromContext(ctx).Error(err, "The Secret has no certificate that can be served")
	}
	configured, waitPath, err := k.configure(ctx, served, &secret, &config, bundles)
	if isOthers(err) {
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	changed, wait := k.server.offer(served, trustedBy(configured), k.clock.now())
	if changed {
		logf.FromContext(ctx).Info("Serving a certificate", "until", served.Leaf.NotAfter)
	}
	if k.Check(nil) == nil {
		k.closeReady()
	}
	for _, wait := range []time.Duration{wait, waitPath} {
		if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// isOthers reports whether a write failed because another replica was first. Its event may have come already.
func isOthers(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// configure writes the webhook configuration if its authorities or its paths aren't what they should be, and returns what it holds then. The
// next configuration has the authorities already. It is written last, and by every replica: the one that wrote the Secret may be gone.
func (k *Keeper) configure(ctx context.Context, served certificate, secret *corev1.Secret, config, next *admissionv1.MutatingWebhookConfiguration) (*admissionv1.MutatingWebhookConfiguration, time.Duration, error) {
	path, err := pathOf(served)
	if err != nil {
		return nil, 0, err
	}
	webhooks := secretWebhooks(next)
	write, wait := k.paths.offer(path, pathsOf(webhooks), k.clock.now())
	if write {
		// Two replicas must not overwrite each other's path because one of them has an old Secret in its cache.
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
		return nil, 0, fmt.Errorf("writing the authorities and the path into the MutatingWebhookConfiguration %s: %w", next.Name, err)
	}
	if write {
		logf.FromContext(ctx).Info("The API server calls the webhook by another path")
	}
	_, wait = k.paths.offer(path, pathsOf(secretWebhooks(next)), k.clock.now())
	return next, wait, nil
}

const (
	conflictRetry = 100 * time.Millisecond
	// longestPause is how long a Keeper rests at most: a clock may be set meanwhile.
	longestPause = time.Hour
)

func (k *Keeper) closeReady() {
	select {
	case <-k.ready:
	default:
		close(k.ready) // there is one worker
	}
}

// renew writes the Secret if it isn't what it should be, and puts its authorities into the webhook configuration, which it doesn't write. It
// returns when there is something to do again.
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

// writeSecret creates the Secret, where somebody has deleted it, or updates the one that was read.
func (k *Keeper) writeSecret(ctx context.Context, secret *corev1.Secret, data map[string][]byte) error {
	if secret.ResourceVersion == "" {
		*secret = corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: k.options.Secret.Namespace, Name: k.options.Secret.Name},
			Data:       data,
		}
		return k.client.Create(ctx, secret)
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	return k.client.Update(ctx, secret)
}

// trustedBy are the authorities that the API server trusts: those that all webhooks of the configuration have.
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
