//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestMetricsAreGuarded proves that the operator serves its metrics only over TLS, to a token with the right to read them. A request as the
// ServiceMonitor configures it succeeds, and the metrics include the memory bound that the operator derived from its limit.
func TestMetricsAreGuarded(t *testing.T) {
	wait.For(t, "the operator to be available", rolledOut)
	namespace := cluster.NewNamespace(t, "baseline")
	token := func(account string) string {
		object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
		cluster.Make(t, object)
		request := &authenticationv1.TokenRequest{}
		if err := cluster.SubResource("token").Create(t.Context(), object, request); err != nil {
			t.Fatal(err)
		}
		return request.Status.Token
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-metrics-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "taskflow-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "prometheus"}},
	}
	cluster.Make(t, binding)
	t.Cleanup(func() { _ = cluster.Delete(context.WithoutCancel(t.Context()), binding) })

	scraper, address := scraperOf(t)
	scrape := func(token string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := scraper.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	reader := token("prometheus")
	for name, c := range map[string]struct {
		token string
		code  int
		body  string
	}{
		"no token":          {"", http.StatusUnauthorized, "send a bearer token"},
		"a wrong token":     {"nonsense", http.StatusUnauthorized, "does not know this token"},
		"without the right": {token("somebody"), http.StatusForbidden, "taskflow-metrics-reader"},
		"with leave":        {reader, http.StatusOK, `taskflow_tasks{phase="Running"}`},
		"Go's own":          {reader, http.StatusOK, "go_gc_gomemlimit_bytes 2.14748364e+08"}, // two fifths of config/manager's limit
	} {
		code, body := scrape(c.token)
		if code != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s: the answer is %d, want %d with %q: %.300s", name, code, c.code, c.body, body)
		}
	}
}

// scraperOf returns what Prometheus derives from the ServiceMonitor: the address of the metrics, and a client that trusts their server.
func scraperOf(t *testing.T) (scraper *http.Client, address string) {
	t.Helper()
	var monitor struct {
		Spec struct {
			Selector  metav1.LabelSelector
			Endpoints []struct {
				Port, Scheme string
				TLSConfig    struct {
					ServerName string
					CA         struct{ Secret corev1.SecretKeySelector }
				}
			}
		}
	}
	content, err := os.ReadFile("../../config/prometheus/service_monitor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &monitor); err != nil {
		t.Fatal(err)
	}
	endpoint := monitor.Spec.Endpoints[0]
	var services corev1.ServiceList
	if err := cluster.List(t.Context(), &services, client.InNamespace(harness.OperatorNamespace), client.MatchingLabels(monitor.Spec.Selector.MatchLabels)); err != nil {
		t.Fatal(err)
	}
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			if port.Name == endpoint.Port {
				address = fmt.Sprintf("%s://%s/metrics", endpoint.Scheme, net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	if address == "" || len(services.Items) != 1 {
		t.Fatalf("the ServiceMonitor finds %d Services, want 1 with the port %q", len(services.Items), endpoint.Port)
	}
	var secret corev1.Secret
	ca := endpoint.TLSConfig.CA.Secret
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: ca.Name}, &secret); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data[ca.Key])
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, ServerName: endpoint.TLSConfig.ServerName, MinVersion: tls.VersionTLS12,
	}}}, address
}
