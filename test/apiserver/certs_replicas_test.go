//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// service is the DNS name that the API server calls all replicas by.
const service = "webhook.taskflow-system.svc"

// certificates is a set of replicas that share one Secret and one webhook configuration.
type certificates struct {
	key       client.ObjectKey
	addresses []string
	ready     []<-chan struct{}
}

// newCertificates puts the transports, if any, between the replicas and the API server.
func newCertificates(t *testing.T, source certs.Source, lifetimes certs.Lifetimes, between ...transport.WrapperFunc) *certificates {
	t.Helper()
	namespace := cluster.NewNamespace(t, "privileged")
	c := &certificates{key: client.ObjectKey{Namespace: namespace, Name: "certificate"}}
	cluster.Make(t, c.webhook())
	cluster.Make(t, c.tasksWebhook())
	t.Cleanup(func() {
		for _, object := range []client.Object{c.webhook(), c.tasksWebhook()} {
			_ = cluster.Delete(context.WithoutCancel(t.Context()), object)
		}
	})
	for range replicas {
		c.start(t, certs.New(certs.Options{
			Source: source, Secret: c.key, WebhookConfiguration: namespace, Services: []string{service}, Lifetimes: lifetimes,
		}), between...)
	}
	if source == certs.SourceOwn {
		wait.For(t, "all replicas can be called", c.callable)
	}
	return c
}

// webhook returns a configuration that matches no Pod.
func (c *certificates) webhook() *admissionv1.MutatingWebhookConfiguration {
	hook := func(name string) admissionv1.MutatingWebhook {
		return admissionv1.MutatingWebhook{
			Name:                    name + ".taskflow.practice.com",
			AdmissionReviewVersions: []string{"v1"},
			SideEffects:             ptr.To(admissionv1.SideEffectClassNone),
			ClientConfig: admissionv1.WebhookClientConfig{
				Service: &admissionv1.ServiceReference{Namespace: c.key.Namespace, Name: "webhook"},
			},
		}
	}
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: c.key.Namespace},
		Webhooks:   []admissionv1.MutatingWebhook{hook("one"), hook("two")},
	}
}

// tasksWebhook returns a configuration for Tasks that matches none.
func (c *certificates) tasksWebhook() *admissionv1.ValidatingWebhookConfiguration {
	hook := c.webhook().Webhooks[0]
	return &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: c.key.Namespace},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: hook.Name, AdmissionReviewVersions: hook.AdmissionReviewVersions, SideEffects: hook.SideEffects, ClientConfig: hook.ClientConfig,
		}},
	}
}

// start adds a replica that serves with its certificate.
func (c *certificates) start(t *testing.T, keeper *certs.Keeper, between ...transport.WrapperFunc) {
	t.Helper()
	byObject := map[client.Object]cache.ByObject{}
	certs.Options{Secret: c.key, WebhookConfiguration: c.key.Namespace}.AddToCache(byObject)
	connection := rest.CopyConfig(environment.Config)
	connection.Wrap(transport.Wrappers(append(between, keeper.Listen)...))
	m, err := ctrl.NewManager(connection, ctrl.Options{
		Scheme:     cluster.Scheme(),
		Cache:      cache.Options{ByObject: byObject},
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.SetupWithManager(m); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error, 1)
	go func() { stopped <- m.Start(ctx) }()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", keeper.TLS())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, pattern := range []string{certs.Pattern, certs.TasksPattern} {
		mux.Handle(pattern, keeper.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		stop()
		_ = server.Close()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	c.addresses = append(c.addresses, listener.Addr().String())
	c.ready = append(c.ready, keeper.Ready())
}

// callable returns an error unless each replica can be called as the API server does it: with the authorities that each webhook has now.
func (c *certificates) callable(ctx context.Context) error {
	for i, address := range c.addresses {
		hook := c.webhook()
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(hook), hook); err != nil {
			return err
		}
		for _, webhook := range hook.Webhooks {
			if err := call(ctx, address, webhook.ClientConfig); err != nil {
				return fmt.Errorf("%s can't be called at replica %d: %w", webhook.Name, i, err)
			}
		}
	}
	return nil
}

// tasksCallable returns an error unless each replica can be called about Tasks as the API server does it.
func (c *certificates) tasksCallable(ctx context.Context) error {
	for i, address := range c.addresses {
		hook := c.tasksWebhook()
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(hook), hook); err != nil {
			return err
		}
		if err := call(ctx, address, hook.Webhooks[0].ClientConfig); err != nil {
			return fmt.Errorf("replica %d can't be called about Tasks: %w", i, err)
		}
	}
	return nil
}

// call sends an empty request to a replica at the address of a webhook.
func call(ctx context.Context, address string, config admissionv1.WebhookClientConfig) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CABundle)
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: service, MinVersion: tls.VersionTLS12},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+ptr.Deref(config.Service.Path, "/"), http.NoBody)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	return nil
}

// serve returns an error unless each replica serves this certificate.
func (c *certificates) serve(ctx context.Context, certificate []byte) error {
	block, _ := pem.Decode(certificate)
	for i, address := range c.addresses {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // the code below compares the certificate
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		served := connection.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
		_ = connection.Close()
		if !bytes.Equal(served, block.Bytes) {
			return fmt.Errorf("replica %d serves another certificate", i)
		}
	}
	return nil
}

func (c *certificates) setBundle(ctx context.Context, bundle []byte) error {
	hook := c.webhook()
	if err := cluster.Get(ctx, client.ObjectKeyFromObject(hook), hook); err != nil {
		return err
	}
	before := hook.DeepCopy()
	for i := range hook.Webhooks {
		hook.Webhooks[i].ClientConfig.CABundle = bundle
	}
	return cluster.Patch(ctx, hook, client.MergeFrom(before))
}

func (c *certificates) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	var secret corev1.Secret
	if err := cluster.Get(t.Context(), c.key, &secret); err != nil {
		t.Fatal(err)
	}
	return &secret
}

// caller calls all replicas repeatedly until stop.
type caller struct {
	cancel   context.CancelFunc
	done     sync.WaitGroup
	calls    int
	failures []error
}

func (c *certificates) call(t *testing.T) *caller {
	ctx, cancel := context.WithCancel(t.Context())
	called := &caller{cancel: cancel}
	called.done.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			if err := c.callable(ctx); err != nil && ctx.Err() == nil {
				called.failures = append(called.failures, err)
			}
			called.calls++
			<-ticker.C
		}
	})
	return called
}

func (c *caller) stop(t *testing.T) {
	t.Helper()
	c.cancel()
	c.done.Wait()
	for _, err := range c.failures {
		t.Errorf("a call has failed: %v", err)
	}
}

func otherAuthority(t *testing.T) string {
	t.Helper()
	return string(newCertificates(t, certs.SourceOwn, certs.DefaultLifetimes).secret(t).Data["ca.crt"])
}
