package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestComponentFiles proves that `up` writes each file that a component's command line names: the certificates and the configuration. The
// components or prepare create the folders.
func TestComponentFiles(t *testing.T) {
	c := newCluster(t.TempDir(), "self")
	if err := makePKI(filepath.Join(c.state, "pki")); err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(filepath.Join(c.state, "config"), settings{State: c.state, Run: runDir}); err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, component := range c.components("kubernetes", "etcd", "containerd") {
		for _, argument := range component.command {
			_, file, found := strings.Cut(argument, c.state)
			if !found || !strings.HasPrefix(file, "/pki/") && !strings.HasPrefix(file, "/config/") {
				continue
			}
			named++
			if _, err := os.Stat(filepath.Join(c.state, file)); err != nil {
				t.Errorf("%s: %v", component.name, err)
			}
		}
	}
	if named < 15 {
		t.Errorf("got %d files, want all certificates and configuration files", named)
	}
}

// TestComponentOrder proves the order of the start: the API server after etcd, the components that need its roles after it, and the kubelet
// after containerd.
func TestComponentOrder(t *testing.T) {
	var names []string
	ready := map[string]bool{}
	for _, component := range newCluster("/c", "self").components("", "", "") {
		names = append(names, component.name)
		ready[component.name] = component.ready != nil
	}
	for _, pair := range [][2]string{
		{"etcd", "kube-apiserver"},
		{"kube-apiserver", "kube-controller-manager"},
		{"kube-apiserver", "kube-scheduler"},
		{"kube-apiserver", "kube-proxy"},
		{"kube-apiserver", "kubelet"},
		{"containerd", "kubelet"},
	} {
		if first, then := slices.Index(names, pair[0]), slices.Index(names, pair[1]); first < 0 || first > then {
			t.Errorf("%s isn't before %s in %q", pair[0], pair[1], names)
		}
		if !ready[pair[0]] {
			t.Errorf("%s is started without waiting for %s", pair[1], pair[0])
		}
	}
}

// TestSetPath proves that the programs in the folders are found, and those in PATH as well.
func TestSetPath(t *testing.T) {
	t.Setenv("PATH", "/usr/local/bin:/usr/bin")
	if err := newCluster("/c", "self").setPath("/cache/kubernetes", "/cache/containerd"); err != nil {
		t.Fatal(err)
	}
	got := filepath.SplitList(os.Getenv("PATH"))
	slices.Sort(got)
	want := []string{"/cache/containerd", "/cache/kubernetes", "/sbin", "/usr/bin", "/usr/local/bin", "/usr/sbin"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("folders of PATH (-want +got):\n%s", diff)
	}
}
