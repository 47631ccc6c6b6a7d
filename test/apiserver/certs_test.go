//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// replicas is how many operators share the one Secret.
const replicas = 3

// shortLives make the certificate change every 16 seconds, 8 before it ends, and the authority every 32, each 0.8 seconds after it is trusted:
// longer than a busy machine keeps the API server or a replica from hearing of it.
var shortLives = certs.Lifetimes{Authority: 48 * time.Second, Serving: 24 * time.Second}

// TestCertificatesOfReplicas proves that several replicas keep one certificate, and that the API server can call each of them at
// every moment: while certificates and authorities are renewed, and after somebody has deleted or damaged the Secret or the
// webhook configuration. PEERS row 22.
func TestCertificatesOfReplicas(t *testing.T) {
	c := newCertificates(t, certs.SourceOwn, shortLives)
	caller := c.call(t)

	authorities := map[string]bool{}
	wait.For(t, "renewals of the authority", func(ctx context.Context) error {
		var secret corev1.Secret
		if err := cluster.Get(ctx, c.key, &secret); err != nil {
			return err
		}
		authorities[string(secret.Data["ca.key"])] = true
		if len(authorities) < 3 {
			return fmt.Errorf("there were %d authorities", len(authorities))
		}
		return nil
	})

	secret := c.secret(t)
	damages := map[string]func() error{
		"the Secret is deleted": func() error { return cluster.Delete(t.Context(), secret) },
		"the Secret is emptied": func() error {
			return cluster.Patch(t.Context(), secret, client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/data"}]`)))
		},
		"the authority's key is damaged": func() error {
			return cluster.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType, []byte(`{"data":{"ca.key":"bm9uc2Vuc2U="}}`)))
		},
		"the authorities are damaged": func() error {
			return cluster.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType, []byte(`{"data":{"ca.crt":"bm9uc2Vuc2U="}}`)))
		},
		"the certificate's key is another": func() error {
			return cluster.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType,
				fmt.Appendf(nil, `{"data":{"tls.key":%q}}`, base64.StdEncoding.EncodeToString(secret.Data["ca.key"]))))
		},
		"the certificate is damaged": func() error {
			return cluster.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType, []byte(`{"data":{"tls.crt":"bm9uc2Vuc2U="}}`)))
		},
	}
	for name, damage := range damages {
		before := c.secret(t)
		if err := damage(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wait.For(t, name+", and is repaired", func(ctx context.Context) error {
			var after corev1.Secret
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(secret), &after); err != nil {
				return err
			}
			if _, err := tls.X509KeyPair(after.Data["tls.crt"], after.Data["tls.key"]); err != nil {
				return err
			}
			if maps.EqualFunc(before.Data, after.Data, func(a, b []byte) bool { return string(a) == string(b) }) {
				return errors.New("nothing has changed")
			}
			return c.serve(ctx, after.Data["tls.crt"])
		})
	}
	caller.stop(t)
	if caller.calls < 50 {
		t.Errorf("there were %d calls only", caller.calls)
	}
}

// TestWebhookConfigurationIsRepaired proves that the authorities come back into a webhook configuration that has lost them.
func TestWebhookConfigurationIsRepaired(t *testing.T) {
	c := newCertificates(t, certs.SourceOwn, certs.DefaultLifetimes)
	for name, damage := range map[string]func() error{
		"another authority": func() error { return c.setBundle(t.Context(), []byte(otherAuthority(t))) },
		"no authority":      func() error { return c.setBundle(t.Context(), nil) },
		"made anew": func() error {
			if err := cluster.Delete(t.Context(), c.webhook()); err != nil {
				return err
			}
			return cluster.Create(t.Context(), c.webhook())
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			wait.For(t, "all replicas can be called", c.callable)
		})
	}
}

// TestSomebodyElsesCertificate proves that with --cert-source=secret the replicas serve what the Secret holds, follow it when it
// changes, and write nothing.
func TestSomebodyElsesCertificate(t *testing.T) {
	c := newCertificates(t, certs.SourceSecret, certs.DefaultLifetimes)
	own := newCertificates(t, certs.SourceOwn, certs.DefaultLifetimes)
	for _, ready := range c.ready {
		select {
		case <-ready:
			t.Error("a replica is ready without a certificate")
		default:
		}
	}
	var written string
	for range 2 {
		given := own.secret(t)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.key.Namespace, Name: c.key.Name}, Data: given.Data}
		if err := cluster.Create(t.Context(), secret); apierrors.IsAlreadyExists(err) {
			err = cluster.Update(t.Context(), secret)
			if err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		written = secret.ResourceVersion
		if err := c.setBundle(t.Context(), given.Data["ca.crt"]); err != nil {
			t.Fatal(err)
		}
		wait.For(t, "all replicas can be called", c.callable)
		// Next time another one.
		if err := cluster.Delete(t.Context(), given); err != nil {
			t.Fatal(err)
		}
		wait.For(t, "another certificate", func(ctx context.Context) error {
			return cluster.Get(ctx, own.key, &corev1.Secret{})
		})
	}
	if got := c.secret(t).ResourceVersion; got != written {
		t.Error("a replica has written the Secret")
	}
}

// TestReplicasAskForTheTime proves that the certificate is valid by the clock of the API server, which is here days behind the replicas', or
// so its answers say, and that they agree on it. PEERS row 22.
func TestReplicasAskForTheTime(t *testing.T) {
	const behind = 3 * 24 * time.Hour
	c := newCertificates(t, certs.SourceOwn, certs.DefaultLifetimes, func(next http.RoundTripper) http.RoundTripper {
		return late{next, behind}
	})
	secret := c.secret(t)
	if err := c.serve(t.Context(), secret.Data["tls.crt"]); err != nil {
		t.Error(err)
	}
	block, _ := pem.Decode(secret.Data["tls.crt"])
	made, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if there := time.Now().Add(-behind); there.Before(made.NotBefore) || there.Add(certs.DefaultLifetimes.Serving).Before(made.NotAfter) {
		t.Errorf("at %s a certificate was made that is valid from %s to %s", there, made.NotBefore, made.NotAfter)
	}
}

// late is a transport to an API server whose clock is behind.
type late struct {
	http.RoundTripper
	behind time.Duration
}

func (l late) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return nil, fmt.Errorf("the API server doesn't say what time it is: %w", err)
	}
	answer.Header.Set("Date", date.Add(-l.behind).Format(http.TimeFormat))
	return answer, nil
}

// service is the name that all replicas of these tests are called by.
const service = "webhook.taskflow-system.svc"

// certificates are some replicas with one Secret and one webhook configuration, and what calls them.
type certificates struct {
	key       client.ObjectKey
	addresses []string
	ready     []<-chan struct{}
}

// The transports, if any, are between the replicas and the API server.
func newCertificates(t *testing.T, source certs.Source, lifetimes certs.Lifetimes, between ...transport.WrapperFunc) *certificates {
	t.Helper()
	namespace := cluster.NewNamespace(t, "privileged")
	c := &certificates{key: client.ObjectKey{Namespace: namespace, Name: "certificate"}}
	cluster.Make(t, c.webhook())
	t.Cleanup(func() { _ = cluster.Delete(context.WithoutCancel(t.Context()), c.webhook()) })
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

// webhook is a configuration that no Pod matches.
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

// start makes a replica, and serves with its certificate.
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
	mux.Handle(certs.Pattern, keeper.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
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

// callable says whether each replica can be called as the API server does it: with each webhook's authorities, as they are now.
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

// call posts nothing to a replica, where a webhook is to be called.
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

// serve says whether each replica serves this certificate.
func (c *certificates) serve(ctx context.Context, certificate []byte) error {
	block, _ := pem.Decode(certificate)
	for i, address := range c.addresses {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // which one it is, is asked below
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

// caller calls all replicas again and again, until it is stopped.
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
