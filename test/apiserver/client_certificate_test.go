//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestClientCertificateOfTheAPIServer proves that an API server with a client certificate, set up as docs/webhook.md describes, can call an
// operator that requires one, and that it can't if the operator requires another name. The operator is the program itself. It serves its
// metrics only to a token with the right to read them.
func TestClientCertificateOfTheAPIServer(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority, certificate, key := clientOf(t, "apiserver")
	ca := write("client-ca.crt", authority)
	port := freePort(t)
	kubeconfig := write("webhooks.yaml", fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","users":[{"name":"*.taskflow-system.svc:%d","user":{"client-certificate-data":%q,"client-key-data":%q}}]}`,
		port, base64.StdEncoding.EncodeToString([]byte(certificate)), base64.StdEncoding.EncodeToString([]byte(key))))
	admission := write("admission.yaml", fmt.Sprintf(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AdmissionConfiguration","plugins":[{"name":"MutatingAdmissionWebhook",
		"configuration":{"apiVersion":"apiserver.config.k8s.io/v1","kind":"WebhookAdmissionConfiguration","kubeConfigFile":%q}}]}`, kubeconfig))
	program := filepath.Join(dir, "operator")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/operator").CombinedOutput(); err != nil {
		t.Fatalf("building the operator: %v\n%s", err, output)
	}

	other := &envtest.Environment{CRDDirectoryPaths: []string{"../../config/crd/tasks.yaml"}, ControlPlaneStartTimeout: 2 * time.Minute}
	other.ControlPlane.GetAPIServer().Configure().Append("admission-control-config-file", admission)
	config, err := other.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
	})
	there, err := client.New(config, client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	user, err := other.AddUser(envtest.User{Name: "operator", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	operatorsFile := write("operator.yaml", string(operators))

	hook, err := webhookConfiguration()
	if err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{namespaceNamed("taskflow-system"), hook}
	for _, replica := range []string{"a", "b"} {
		objects = append(objects, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "taskflow-system", Name: "taskflow-webhook-" + replica},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
		})
	}
	for i := range hook.Webhooks {
		hook.Webhooks[i].ClientConfig.Service.Port = new(int32(port))
	}
	for _, object := range objects {
		if err := there.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "prometheus"}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "prometheus"}},
	}
	for _, object := range []client.Object{account, binding} {
		if err := there.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	request := &authenticationv1.TokenRequest{}
	if err := there.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	token := request.Status.Token
	for _, c := range []struct {
		name string
		ok   bool
	}{{"apiserver", true}, {"another", false}} {
		t.Run(c.name, func(t *testing.T) {
			health := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			ctx, cancel := context.WithCancel(t.Context())
			operator := exec.CommandContext(ctx, program, "--namespace=taskflow-system", fmt.Sprintf("--webhook-port=%d", port), "--health-address="+health,
				"--metrics-address="+metrics, "--shutdown-delay=0s", "--webhook-client-ca="+ca, "--webhook-client-name="+c.name)
			operator.Env = append(os.Environ(), "KUBECONFIG="+operatorsFile)
			var log bytes.Buffer
			operator.Stderr = &log
			if err := operator.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = operator.Wait() // the error reports the kill
				if t.Failed() {
					t.Log(log.String())
				}
			}()
			wait.For(t, "the operator to be ready", func(ctx context.Context) error { return isReady(ctx, "http://"+health+"/readyz") })
			for authorization, want := range map[string]int{"": http.StatusUnauthorized, "Bearer nonsense": http.StatusUnauthorized, "Bearer " + token: http.StatusOK} {
				if got := metricsCode(t, "https://"+metrics+"/metrics", authorization); got != want {
					t.Errorf("the metrics answer %d to %.10q, want %d", got, authorization, want)
				}
			}
			pod := podWithLabels("default", "pod", sequentialLabel(), echo("a"))
			if !c.ok {
				err := there.Create(t.Context(), pod, client.DryRunAll)
				if err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
					t.Errorf("creating a Pod: %v, want the call to fail", err)
				}
				return
			}
			wait.For(t, "a Pod", func(ctx context.Context) error {
				pod := pod.DeepCopy()
				if err := there.Create(ctx, pod, client.DryRunAll); err != nil {
					return err
				}
				if pod.Annotations[contract.OrderAnnotation] != "1" {
					return errors.New("the webhook wasn't called")
				}
				return nil
			})
		})
	}
}

// metricsCode requests the metrics over TLS and returns the status code.
func metricsCode(t *testing.T, url, authorization string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}

func isReady(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// clientOf returns a client's certificate and key, and the authority that signed it, in PEM.
func clientOf(t *testing.T, name string) (authority, certificate, key string) {
	t.Helper()
	encode := func(kind string, content []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	root, leaf := template("authority"), template(name)
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	content, err := x509.CreateCertificate(rand.Reader, root, root, signer.Public(), signer)
	authority = encode("CERTIFICATE", content, err)
	content, err = x509.CreateCertificate(rand.Reader, leaf, root, own.Public(), signer)
	certificate = encode("CERTIFICATE", content, err)
	content, err = x509.MarshalPKCS8PrivateKey(own)
	return authority, certificate, encode("PRIVATE KEY", content, err)
}
