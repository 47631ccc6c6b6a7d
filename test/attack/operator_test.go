//go:build e2e

package attack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/node"
)

// replica is one of the operator's processes.
type replica struct {
	pod      string
	pid      int
	computed time.Duration
	// limit is the memory limit of its container, in bytes.
	limit int64
}

// replicas finds the operator's processes, and starts to measure them.
func replicas(t *testing.T) []replica {
	t.Helper()
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		t.Fatal(err)
	}
	var found []replica
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil {
			continue
		}
		pid, err := node.FindProcess(pod.UID, "--agent-image=")
		if err != nil {
			t.Fatalf("%s: %v", pod.Name, err)
		}
		if err := node.ForgetPeak(pid); err != nil {
			t.Fatal(err)
		}
		computed, err := node.CPUTime(pid)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, replica{pod.Name, pid, computed, pod.Spec.Containers[0].Resources.Limits.Memory().Value()})
	}
	if len(found) == 0 {
		t.Fatal("there is no operator")
	}
	return found
}

// wantUnharmed checks that every replica is still alive and never used more than half of its memory limit. It returns the CPU time that
// they used.
func wantUnharmed(t *testing.T, replicas []replica) (computed time.Duration) {
	t.Helper()
	for _, r := range replicas {
		peak, err := node.PeakMemory(r.pid)
		if err != nil {
			t.Errorf("the operator %s has died: %v", r.pod, err)
			continue
		}
		now, err := node.CPUTime(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		computed += now - r.computed
		t.Logf("%s: at most %d MiB of %d, and %s of processor time", r.pod, peak>>20, r.limit>>20, now-r.computed)
		if peak > r.limit/2 {
			t.Errorf("the operator %s used %d MiB of memory, more than half of its %d", r.pod, peak>>20, r.limit>>20)
		}
	}
	return computed
}

// serviceAddresses returns host and port of each Service of the operator whose name has the prefix.
func serviceAddresses(t *testing.T, prefix string) []string {
	t.Helper()
	var services corev1.ServiceList
	if err := cluster.List(t.Context(), &services, client.InNamespace(harness.OperatorNamespace)); err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, service := range services.Items {
		if strings.HasPrefix(service.Name, prefix) {
			addresses = append(addresses, net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(service.Spec.Ports[0].Port))))
		}
	}
	if len(addresses) == 0 {
		t.Fatalf("the operator has no Service %s", prefix)
	}
	return addresses
}

// podAddresses returns host and port of the operator's Pods.
func podAddresses(t *testing.T, port string) []string {
	t.Helper()
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, pod := range pods.Items {
		for _, p := range pod.Spec.Containers[0].Ports {
			if p.Name == port {
				addresses = append(addresses, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(p.ContainerPort))))
			}
		}
	}
	return addresses
}

// scraper returns a function that reads the metrics of one replica, as an authorized Prometheus does, and measures how long that takes.
func scraper(t *testing.T) func() (metrics string, took time.Duration, err error) {
	t.Helper()
	namespace := cluster.NewNamespace(t, "baseline")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "prometheus"}}
	cluster.Make(t, account)
	token := &authenticationv1.TokenRequest{}
	if err := cluster.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "attack-metrics-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "taskflow-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account.Name}},
	}
	cluster.Make(t, binding)
	t.Cleanup(func() { _ = cluster.Delete(context.WithoutCancel(t.Context()), binding) })
	address := "https://" + podAddresses(t, "metrics")[0] + "/metrics"
	return func() (string, time.Duration, error) {
		began := time.Now()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			return "", 0, err
		}
		request.Header.Set("Authorization", "Bearer "+token.Status.Token)
		// It uses a new connection each time, and doesn't verify the certificate, which other tests do.
		impatient := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
		}}
		response, err := impatient.Do(request)
		if err != nil {
			return "", time.Since(began), err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %.200s", response.Status, body)
		}
		return string(body), time.Since(began), err
	}
}

// TestOperatorIsTakenOver has an attacker use the operator's own ServiceAccount. They try to change the webhook's configuration to other
// objects, namespaces or addresses, or to admit Pods unmutated. They can change only the authority of the certificate and the path.
func TestOperatorIsTakenOver(t *testing.T) {
	t.Parallel()
	operator := cluster.AsOperator(t)
	type configuration = admissionregistrationv1.MutatingWebhookConfiguration
	for name, c := range map[string]struct {
		change  func(*configuration)
		allowed bool
	}{
		"nothing":      {func(*configuration) {}, true},
		"the caBundle": {func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = c.Webhooks[1].ClientConfig.CABundle }, true},
		"the path":     {func(c *configuration) { c.Webhooks[0].ClientConfig.Service.Path = new("/mutate-pods/another") }, true},
		"other objects": {func(c *configuration) {
			c.Webhooks[0].Rules[0].Resources = []string{"*/*"}
			c.Webhooks[0].Rules[0].APIGroups = []string{"*"}
		}, false},
		"one more rule": {func(c *configuration) {
			rule := *c.Webhooks[0].Rules[0].DeepCopy()
			rule.Resources = []string{"secrets"}
			c.Webhooks[0].Rules = append(c.Webhooks[0].Rules, rule)
		}, false},
		"updates, too": {func(c *configuration) {
			c.Webhooks[0].Rules[0].Operations = []admissionregistrationv1.OperationType{admissionregistrationv1.OperationAll}
		}, false},
		"Pods without a label": {func(c *configuration) { c.Webhooks[0].ObjectSelector = nil }, false},
		"kube-system":          {func(c *configuration) { c.Webhooks[0].NamespaceSelector = nil }, false},
		"no conditions":        {func(c *configuration) { c.Webhooks[0].MatchConditions = nil }, false},
		"another Service":      {func(c *configuration) { c.Webhooks[0].ClientConfig.Service.Name = "mine" }, false},
		"another namespace":    {func(c *configuration) { c.Webhooks[0].ClientConfig.Service.Namespace = "default" }, false},
		"another port":         {func(c *configuration) { c.Webhooks[0].ClientConfig.Service.Port = new(int32(8443)) }, false},
		"an address outside": {func(c *configuration) {
			c.Webhooks[0].ClientConfig.Service, c.Webhooks[0].ClientConfig.URL = nil, new("https://198.18.0.2/mine")
		}, false},
		"failures let pass": {func(c *configuration) {
			for i := range c.Webhooks {
				c.Webhooks[i].FailurePolicy = new(admissionregistrationv1.Ignore)
			}
		}, false},
		"one webhook fewer": {func(c *configuration) { c.Webhooks = c.Webhooks[:len(c.Webhooks)-1] }, false},
		"one webhook more": {func(c *configuration) {
			more := *c.Webhooks[0].DeepCopy()
			more.Name = "more.practice.com"
			c.Webhooks = append(c.Webhooks, more)
		}, false},
		"another time limit": {func(c *configuration) { c.Webhooks[0].TimeoutSeconds = new(int32(30)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var present configuration
			if err := operator.Get(t.Context(), client.ObjectKey{Name: "taskflow"}, &present); err != nil {
				t.Fatal(err)
			}
			c.change(&present)
			err := operator.Update(t.Context(), &present, client.DryRunAll)
			if c.allowed && err != nil {
				t.Errorf("the operator can't do its work: %v", err)
			}
			if !c.allowed && err == nil {
				t.Error("the change was accepted")
			}
		})
	}
	for name, change := range map[string]func(*admissionregistrationv1.ValidatingWebhook){
		"Secrets, too, of Tasks": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].APIGroups, w.Rules[0].Resources = []string{"*"}, []string{"*/*"}
		},
		"all Tasks":                 func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchConditions = nil },
		"another Service for Tasks": func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.Service.Name = "mine" },
		"failures of Tasks are fatal": func(w *admissionregistrationv1.ValidatingWebhook) {
			w.FailurePolicy = new(admissionregistrationv1.Fail)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var present admissionregistrationv1.ValidatingWebhookConfiguration
			if err := operator.Get(t.Context(), client.ObjectKey{Name: "taskflow"}, &present); err != nil {
				t.Fatal(err)
			}
			change(&present.Webhooks[0])
			if err := operator.Update(t.Context(), &present, client.DryRunAll); err == nil {
				t.Error("the change was accepted")
			}
		})
	}
	t.Run("other configurations", func(t *testing.T) {
		t.Parallel()
		mine := &configuration{ObjectMeta: metav1.ObjectMeta{Name: "attack-mine"}}
		if err := operator.Create(t.Context(), mine, client.DryRunAll); err == nil {
			t.Error("another configuration was accepted")
		}
		gone := &configuration{ObjectMeta: metav1.ObjectMeta{Name: "taskflow"}}
		if err := operator.Delete(t.Context(), gone, client.DryRunAll); err == nil {
			t.Error("the deletion was accepted")
		}
	})
}
