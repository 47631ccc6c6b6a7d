//go:build e2e

package attack

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/taskflow/taskflow-operator/test/harness"
)

// The attacker is a tenant who uses addresses as names of images. The operator looks the images up, and can reach addresses that the tenant
// can't.

// TestRedirectToTheNode has a registry redirect the operator to addresses of its node and of a cloud's metadata, in every form that a
// registry's answer has. The operator sends no request there.
func TestRedirectToTheNode(t *testing.T) {
	t.Parallel()
	targets := []string{"http://169.254.169.254/latest/meta-data", "https://127.0.0.1:8081/healthz", "http://[::1]:8081/healthz", "http://100.100.100.200/", "file:///etc/passwd"}
	host := serveHTTP(t, plainRegistry(6), func(w http.ResponseWriter, r *http.Request) {
		for i, target := range targets {
			if strings.Contains(r.URL.Path, fmt.Sprintf("/redirect-%d/", i)) {
				http.Redirect(w, r, target, http.StatusTemporaryRedirect)
				return
			}
			if strings.Contains(r.URL.Path, fmt.Sprintf("/token-%d/", i)) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="x"`, target))
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
	})
	namespace := cluster.NewNamespace(t, "baseline")
	for i, target := range targets {
		for _, way := range []string{"redirect", "token"} {
			err := cluster.Create(t.Context(), harness.NewSequentialPod(namespace, "pod", lookedUp("only", fmt.Sprintf("%s/%s-%d/app:1", host, way, i))))
			if err == nil {
				t.Errorf("%s to %s: the Pod was admitted", way, target)
			} else if strings.Contains(err.Error(), "ok") && strings.Contains(err.Error(), "root:") {
				t.Errorf("%s to %s: the refusal has the answer: %v", way, target, err)
			}
		}
	}
}

// TestPortScan has a tenant name images at ports of a machine that are closed, silent, or speak another protocol. All refusals are alike
// except for the port, so none tells which port is open.
func TestPortScan(t *testing.T) {
	t.Parallel()
	banner, err := net.Listen("tcp", hostAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = banner.Close() })
	go func() {
		for {
			connection, err := banner.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, "SSH-2.0-OpenSSH_9.2\r\n")
			_ = connection.Close()
		}
	}()
	closed, err := net.Listen("tcp", hostAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	namespace := cluster.NewNamespace(t, "baseline")
	ports := map[string]string{"closed": closed.Addr().String(), "silent": newTarPit(t).address, "another language": banner.Addr().String()}
	refusals, messages := map[string]string{}, map[string]string{}
	for kind, address := range ports {
		name := strings.ReplaceAll(kind, " ", "-")
		cluster.Make(t, harness.NewTask(namespace, name, lookedUp("only", address+"/app:1")))
		err := cluster.Create(t.Context(), harness.NewSequentialPod(namespace, name, lookedUp("only", address+"/app:1")))
		if err == nil {
			t.Errorf("a Pod with an image at a port that is %s was admitted", kind)
			continue
		}
		refusals[kind] = strings.NewReplacer(address, "ADDRESS", name, "NAME").Replace(err.Error())
	}
	for kind, address := range ports {
		messages[kind] = strings.ReplaceAll(unresolved(t, harness.NewTask(namespace, strings.ReplaceAll(kind, " ", "-"))), address, "ADDRESS")
	}
	for what, texts := range map[string]map[string]string{"refusal": refusals, "message": messages} {
		for kind, text := range texts {
			if text != texts["closed"] {
				t.Errorf("the %s tells a port that is %s from a closed one:\n%s\n%s", what, kind, text, texts["closed"])
			}
		}
	}
}
