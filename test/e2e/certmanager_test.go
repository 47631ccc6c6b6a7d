//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// needCertManager skips a test unless hack/test.sh has built cert-manager.
func needCertManager(t *testing.T) {
	t.Helper()
	if os.Getenv("CERT_MANAGER") == "" {
		t.Skip(`CERT_MANAGER is not set: eval "$(go run -C test/cluster . cert-manager)"`)
	}
}

// startCertManager runs cert-manager's controllers and the cainjector until the test ends.
func startCertManager(t *testing.T) {
	t.Helper()
	crds := os.Getenv("CERT_MANAGER_CRDS")
	kubectl(t, nil, "apply", "--server-side", "-f", crds)
	t.Cleanup(func() { kubectl(t, nil, "delete", "-f", crds) })
	kubectl(t, nil, "wait", "--for=condition=Established", "--timeout=60s", "-f", crds)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	program := exec.CommandContext(ctx, os.Getenv("CERT_MANAGER"), os.Getenv("KUBECONFIG"))
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.WaitDelay = 20 * time.Second
	var log bytes.Buffer
	program.Stdout, program.Stderr = &log, &log
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = program.Wait()
		if t.Failed() {
			t.Logf("cert-manager's log:\n%s", log.Bytes()[max(0, log.Len()-8000):])
		}
	})
}

var certificateKind = schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"}

// renew makes cert-manager issue another certificate, as `cmctl renew` does, and waits for it.
func renew(t *testing.T, name string) {
	t.Helper()
	certificate := &unstructured.Unstructured{}
	certificate.SetGroupVersionKind(certificateKind)
	key := client.ObjectKey{Namespace: harness.OperatorNamespace, Name: name}
	if err := cluster.Get(t.Context(), key, certificate); err != nil {
		t.Fatal(err)
	}
	before, _, _ := unstructured.NestedInt64(certificate.Object, "status", "revision")
	conditions, _, _ := unstructured.NestedSlice(certificate.Object, "status", "conditions")
	conditions = append(conditions, map[string]any{
		"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test wants another one",
		"lastTransitionTime": metav1.Now().UTC().Format(time.RFC3339),
	})
	content, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Status().Patch(t.Context(), certificate, client.RawPatch(types.MergePatchType, content)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "a renewal of "+name, func(ctx context.Context) error {
		if err := cluster.Get(ctx, key, certificate); err != nil {
			return err
		}
		if now, _, _ := unstructured.NestedInt64(certificate.Object, "status", "revision"); now <= before {
			return fmt.Errorf("the revision is %d", now)
		}
		return nil
	})
}

// certificateSecret has the webhook's certificate, in every variant.
var certificateSecret = client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-webhook-cert"}

// awaitServed waits until both replicas serve the certificate of the Secret.
func awaitServed(t *testing.T) {
	t.Helper()
	wait.For(t, "both replicas to serve the certificate", func(ctx context.Context) error {
		var secret corev1.Secret
		if err := cluster.Get(ctx, certificateSecret, &secret); err != nil {
			return err
		}
		return servedByAll(ctx, secret.Data["tls.crt"])
	})
}

// servedByAll returns an error unless every replica serves this certificate.
func servedByAll(ctx context.Context, certificate []byte) error {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return errors.New("there is no certificate")
	}
	var pods corev1.PodList
	if err := cluster.List(ctx, &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.PodIP == "" || pod.DeletionTimestamp != nil {
			continue
		}
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // the code below compares the certificate
		connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, "9443"))
		if err != nil {
			return err
		}
		served := connection.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
		_ = connection.Close()
		if !bytes.Equal(served, block.Bytes) {
			return fmt.Errorf("the Pod %s serves another certificate", pod.Name)
		}
	}
	return nil
}
