package main

import (
	"embed"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed files
var templates embed.FS

// settings are the values for the templates in files/.
type settings struct {
	State, Run       string // the cluster's two folders, see cluster.go
	RestrictOOMScore bool
	Identity         string // for a kubeconfig
	Host             string // for a hosts.toml: the registry that containerd uses
}

// The templates call these methods, so that each value has one home.
func (settings) Registry() string      { return registryAddress }
func (settings) PodRange() string      { return podRange }
func (settings) NodeName() string      { return nodeName }
func (settings) NodeAddress() string   { return nodeAddress }
func (settings) APIServerPort() string { return apiServerPort }
func (settings) CgroupRoot() string    { return cgroupRoot }

// writeFiles writes the components' configuration into dir.
func writeFiles(dir string, s settings) error {
	files := map[string]string{ // file to template
		"containerd.toml":          "containerd.toml",
		"cni/10-taskflow.conflist": "cni.conflist",
		"kubelet.yaml":             "kubelet.yaml",
		"kube-proxy.yaml":          "kube-proxy.yaml",
	}
	for file, name := range files {
		if err := writeFile(filepath.Join(dir, file), name, s); err != nil {
			return err
		}
	}
	for registry, host := range map[string]string{
		"docker.io":         registryAddress,
		registryAddress:     registryAddress,
		hostRegistryAddress: hostRegistryAddress,
	} {
		s.Host = host
		if err := writeFile(filepath.Join(dir, "registries", registry, "hosts.toml"), "hosts.toml", s); err != nil {
			return err
		}
	}
	for _, identity := range []string{"admin", "controller-manager", "scheduler", "proxy", "kubelet"} {
		s.Identity = identity
		if err := writeFile(filepath.Join(dir, identity+".kubeconfig"), "kubeconfig", s); err != nil {
			return err
		}
	}
	// The cluster has no DNS: look-ups fail at once instead of leaving the cluster.
	return os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644)
}

func writeFile(file, name string, s settings) error {
	text, err := render(name, s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o600)
}

func render(name string, s settings) (string, error) {
	t, err := template.ParseFS(templates, "files/"+name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, s)
	return text.String(), err
}
