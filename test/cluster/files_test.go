package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"sigs.k8s.io/yaml"
)

// testSettings has a state folder that only a quoted string of YAML, TOML or JSON can hold.
var testSettings = settings{State: "/a clone: #1/.cluster", Run: "/run/test", RestrictOOMScore: true, Identity: "admin"}

// TestRender proves that every file in files/ is a template that renders completely.
func TestRender(t *testing.T) {
	entries, err := templates.ReadDir("files")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Run(entry.Name(), func(t *testing.T) {
			text, err := render(entry.Name(), testSettings)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, "{{") || strings.Contains(text, "<no value>") {
				t.Errorf("it isn't filled in:\n%s", text)
			}
		})
	}
}

// TestWriteFiles proves which files the components find, that each is well-formed, and that other users can't read them, because root's
// processes trust the names in them.
func TestWriteFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	if err := writeFiles(dir, testSettings); err != nil {
		t.Fatal(err)
	}
	files := filesBelow(t, dir)
	want := []string{
		"admin.kubeconfig",
		"cni/10-taskflow.conflist",
		"containerd.toml",
		"controller-manager.kubeconfig",
		"kube-proxy.yaml",
		"kubelet.kubeconfig",
		"kubelet.yaml",
		"proxy.kubeconfig",
		"registries/" + registryAddress + "/hosts.toml",
		"registries/" + hostRegistryAddress + "/hosts.toml",
		"registries/docker.io/hosts.toml",
		"resolv.conf",
		"scheduler.kubeconfig",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, file := range files {
		if file != "resolv.conf" {
			parse(t, filepath.Join(dir, file))
		}
	}
}

// TestWrittenValues proves for one value of each file that the setting arrives unchanged where the component reads it. A running cluster
// proves the rest.
func TestWrittenValues(t *testing.T) {
	dir := t.TempDir()
	if err := writeFiles(dir, testSettings); err != nil {
		t.Fatal(err)
	}
	const state = "/a clone: #1/.cluster"
	for _, test := range []struct {
		file string
		path []any // keys and indexes
		want any
	}{
		{"containerd.toml", []any{"version"}, int64(3)},
		{"containerd.toml", []any{"root"}, state + "/containerd"},
		{"containerd.toml", []any{"grpc", "address"}, "/run/test/containerd.sock"},
		{"containerd.toml", []any{"plugins", "io.containerd.cri.v1.runtime", "restrict_oom_score_adj"}, true},
		{"containerd.toml", []any{"plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes", "runc", "options", "Root"}, "/run/test/runc"},
		{"containerd.toml", []any{"plugins", "io.containerd.cri.v1.images", "pinned_images", "sandbox"}, registryAddress + "/pause:1"},
		{"containerd.toml", []any{"plugins", "io.containerd.cri.v1.images", "registry", "config_path"}, state + "/config/registries"},
		{"registries/docker.io/hosts.toml", []any{"server"}, "http://" + registryAddress},
		{"registries/" + hostRegistryAddress + "/hosts.toml", []any{"server"}, "http://" + hostRegistryAddress},
		{"cni/10-taskflow.conflist", []any{"plugins", 0, "ipam", "dataDir"}, state + "/cni"},
		{"kubelet.yaml", []any{"containerRuntimeEndpoint"}, "unix:///run/test/containerd.sock"},
		{"kubelet.yaml", []any{"podLogsDir"}, state + "/pods"},
		{"kube-proxy.yaml", []any{"clientConnection", "kubeconfig"}, state + "/config/proxy.kubeconfig"},
		{"kube-proxy.yaml", []any{"clusterCIDR"}, podRange},
		{"scheduler.kubeconfig", []any{"users", 0, "user", "client-key"}, state + "/pki/scheduler.key"},
		{"scheduler.kubeconfig", []any{"contexts", 0, "context", "user"}, "scheduler"},
		{"admin.kubeconfig", []any{"clusters", 0, "cluster", "server"}, "https://" + nodeAddress + ":" + apiServerPort},
	} {
		var got any = parse(t, filepath.Join(dir, test.file))
		for _, step := range test.path {
			switch step := step.(type) {
			case string:
				got = got.(map[string]any)[step]
			case int:
				got = got.([]any)[step]
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s, %v (-want +got):\n%s", test.file, test.path, diff)
		}
	}
}

// parse reads a file in the format of its extension. A duplicate key is an error.
func parse(t *testing.T, file string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	switch filepath.Ext(file) {
	case ".toml":
		err = toml.Unmarshal(content, &got)
	case ".conflist":
		err = json.Unmarshal(content, &got)
	default:
		err = yaml.UnmarshalStrict(content, &got)
	}
	if err != nil || len(got) == 0 {
		t.Fatalf("parsing %s: %v:\n%s", file, err, content)
	}
	return got
}

// filesBelow lists the files below dir, by their relative paths.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := filepath.Rel(dir, path)
		files = append(files, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}
