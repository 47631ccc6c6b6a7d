//go:build apiserver

package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// replicas is the number of operators that share the Secret.
const replicas = 3

// shortLives renews the certificate every 16 seconds, 8 seconds before it expires, and the authority every 32 seconds. Each is used 0.8
// seconds after it is trusted: on a busy machine, the API server and the replicas learn of a change within that time.
var shortLives = certs.Lifetimes{Authority: 48 * time.Second, Serving: 24 * time.Second}

// TestCertificatesOfReplicas proves that several replicas keep one certificate, and that the API server can call each of them at every
// moment: while certificates and authorities are renewed, and after a user has deleted or damaged the Secret or the webhook configuration.
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
			return errors.Join(c.serve(ctx, after.Data["tls.crt"]), c.tasksCallable(ctx))
		})
	}
	caller.stop(t)
	if caller.calls < 50 {
		t.Errorf("there were %d calls only", caller.calls)
	}
}

// TestWebhookConfigurationIsRepaired proves that the operator restores the authorities of a webhook configuration that has lost them.
func TestWebhookConfigurationIsRepaired(t *testing.T) {
	c := newCertificates(t, certs.SourceOwn, certs.DefaultLifetimes)
	for name, damage := range map[string]func() error{
		"another authority": func() error { return c.setBundle(t.Context(), []byte(otherAuthority(t))) },
		"no authority":      func() error { return c.setBundle(t.Context(), nil) },
		"recreated": func() error {
			if err := cluster.Delete(t.Context(), c.webhook()); err != nil {
				return err
			}
			return cluster.Create(t.Context(), c.webhook())
		},
		"that of Tasks, recreated": func() error {
			if err := cluster.Delete(t.Context(), c.tasksWebhook()); err != nil {
				return err
			}
			return cluster.Create(t.Context(), c.tasksWebhook())
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			wait.For(t, "all replicas can be called", c.callable)
			wait.For(t, "all replicas can be called about Tasks", c.tasksCallable)
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
		// The next certificate is a different one.
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

// TestReplicasAskForTheTime proves that the certificate is valid by the clock of the API server, and that the replicas agree on it. Here
// that clock is days behind the clock of the replicas.
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
