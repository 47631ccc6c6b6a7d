package kube_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/test/kube"
)

// TestConnectToTestCluster proves that tests which remove all Tasks connect only to the test cluster. It creates the clients without a
// request to the API server.
func TestConnectToTestCluster(t *testing.T) {
	const testCluster = "https://198.18.0.1:6443"
	for name, test := range map[string]struct{ server, want string }{
		"the test cluster": {server: testCluster},
		"another cluster":  {server: "https://production.example", want: refusal("https://production.example")},
		"another port":     {server: "https://198.18.0.1:64430", want: refusal("https://198.18.0.1:64430")},
		"without TLS":      {server: "http://198.18.0.1:6443", want: refusal("http://198.18.0.1:6443")},
	} {
		t.Run(name, func(t *testing.T) {
			kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
			content := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: a, clusters: [{name: a, cluster: {server: %q}}], contexts: [{name: a, context: {cluster: a}}]}`, test.server)
			if err := os.WriteFile(kubeconfig, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("KUBECONFIG", kubeconfig)
			got := ""
			if _, _, err := kube.ConnectToTestCluster(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func refusal(server string) string {
	return "the kubeconfig's server is " + server + ", and these tests, which remove all Tasks, run only on the test cluster (https://198.18.0.1:6443): " +
		"set KUBECONFIG as `go run -C test/cluster . env` says"
}
