package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// nodeName resolves on the machine of the API server, which connects to the kubelet by the node's name, for logs and exec.
const nodeName = "localhost"

// component is a daemon of the cluster.
type component struct {
	name    string
	command []string
	// ready reports whether the components that need this one can start. Nil: none needs it.
	ready func(ctx context.Context) bool
}

// components returns the cluster's daemons in the order of their start. They stop in the opposite order: the API server stops before etcd,
// without which it hangs.
func (c *cluster) components(kubernetes, etcd, containerd string) []component {
	pki := func(file string) string { return filepath.Join(c.state, "pki", file) }
	config := func(file string) string { return filepath.Join(c.state, "config", file) }
	return []component{
		{
			name:    "registry",
			command: []string{c.self, registryCommand, registryAddress, filepath.Join(c.state, "registry")},
			ready:   listening(registryAddress),
		},
		{
			name: "etcd",
			command: []string{
				filepath.Join(etcd, "etcd"),
				"--data-dir=" + filepath.Join(c.state, "etcd"),
				"--listen-client-urls=http://" + nodeAddress + ":2379",
				"--advertise-client-urls=http://" + nodeAddress + ":2379",
				"--listen-peer-urls=http://127.0.0.1:2380",
				"--unsafe-no-fsync", // the data has no value after a crash of the machine
			},
			ready: healthy("http://"+nodeAddress+":2379/health", nil),
		},
		{
			name:    "containerd",
			command: []string{filepath.Join(containerd, "containerd"), "--config", config("containerd.toml")},
			ready: func(ctx context.Context) bool {
				var dialer net.Dialer
				connection, err := dialer.DialContext(ctx, "unix", filepath.Join(runDir, "containerd.sock"))
				if err == nil {
					_ = connection.Close()
				}
				return err == nil
			},
		},
		{
			name: "kube-apiserver",
			command: []string{
				filepath.Join(kubernetes, "kube-apiserver"),
				"--etcd-servers=http://" + nodeAddress + ":2379",
				"--advertise-address=" + nodeAddress,
				"--bind-address=" + nodeAddress,
				"--secure-port=" + apiServerPort,
				"--service-cluster-ip-range=" + serviceRange,
				"--authorization-mode=Node,RBAC",
				"--enable-admission-plugins=NodeRestriction",
				"--allow-privileged",
				"--client-ca-file=" + pki("ca.crt"),
				// No client has a certificate of that name. Without an authority for it, the other components log errors.
				"--requestheader-client-ca-file=" + pki("ca.crt"),
				"--requestheader-allowed-names=front-proxy",
				"--requestheader-username-headers=X-Remote-User",
				"--requestheader-group-headers=X-Remote-Group",
				"--requestheader-extra-headers-prefix=X-Remote-Extra-",
				"--tls-cert-file=" + pki("apiserver.crt"),
				"--tls-private-key-file=" + pki("apiserver.key"),
				"--kubelet-client-certificate=" + pki("apiserver-kubelet.crt"),
				"--kubelet-client-key=" + pki("apiserver-kubelet.key"),
				"--kubelet-preferred-address-types=Hostname",
				"--service-account-issuer=https://kubernetes.default.svc",
				"--service-account-key-file=" + pki("serviceaccount.key"),
				"--service-account-signing-key-file=" + pki("serviceaccount.key"),
			},
			// The controller manager and the scheduler exit if the RBAC roles don't exist yet: readyz waits for them.
			ready: healthy("https://"+nodeAddress+":"+apiServerPort+"/readyz", c.apiServerTLS),
		},
		{
			name: "kube-controller-manager",
			command: []string{
				filepath.Join(kubernetes, "kube-controller-manager"),
				"--kubeconfig=" + config("controller-manager.kubeconfig"),
				"--authentication-kubeconfig=" + config("controller-manager.kubeconfig"),
				"--authorization-kubeconfig=" + config("controller-manager.kubeconfig"),
				"--service-account-private-key-file=" + pki("serviceaccount.key"),
				"--root-ca-file=" + pki("ca.crt"),
				"--use-service-account-credentials",
				"--flex-volume-plugin-dir=" + filepath.Join(c.state, "kubelet", "volume-plugins"),
				"--bind-address=127.0.0.1",
				"--leader-elect=false",
			},
		},
		{
			name: "kube-scheduler",
			command: []string{
				filepath.Join(kubernetes, "kube-scheduler"),
				"--kubeconfig=" + config("scheduler.kubeconfig"),
				"--authentication-kubeconfig=" + config("scheduler.kubeconfig"),
				"--authorization-kubeconfig=" + config("scheduler.kubeconfig"),
				"--bind-address=127.0.0.1",
				"--leader-elect=false",
			},
		},
		{
			name:    "kube-proxy",
			command: []string{filepath.Join(kubernetes, "kube-proxy"), "--config=" + config("kube-proxy.yaml")},
		},
		{
			name: "kubelet",
			command: []string{
				filepath.Join(kubernetes, "kubelet"),
				"--config=" + config("kubelet.yaml"),
				"--kubeconfig=" + config("kubelet.kubeconfig"),
				"--root-dir=" + filepath.Join(c.state, "kubelet"),
				"--cert-dir=" + filepath.Join(c.state, "kubelet", "pki"),
				"--hostname-override=" + nodeName,
				"--node-ip=" + nodeAddress,
			},
		},
	}
}

// setPath adds folders to PATH for the components: containerd finds its shim there.
func (c *cluster) setPath(folders ...string) error {
	path := os.Getenv("PATH")
	for _, folder := range append(folders, "/usr/sbin", "/sbin") {
		path = folder + string(os.PathListSeparator) + path
	}
	return os.Setenv("PATH", path)
}

func listening(address string) func(context.Context) bool {
	return func(ctx context.Context) bool {
		connection, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	}
}

// healthy returns a check of a health endpoint. trust returns the TLS settings. It is called late, when the certificates exist.
func healthy(url string, trust func() (*tls.Config, error)) func(context.Context) bool {
	return func(ctx context.Context) bool {
		transport := &http.Transport{DisableKeepAlives: true}
		if trust != nil {
			config, err := trust()
			if err != nil {
				return false
			}
			transport.TLSClientConfig = config
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false
		}
		client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
}

func (c *cluster) apiServerTLS() (*tls.Config, error) {
	ca, err := os.ReadFile(filepath.Join(c.state, "pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool}, nil
}

// nodeReady reports whether a Pod can be created and will run: the node is ready, and the default ServiceAccount exists.
func (c *cluster) nodeReady(ctx context.Context, kubernetes string) bool {
	kubectl := func(args ...string) string {
		command := exec.CommandContext(ctx, filepath.Join(kubernetes, "kubectl"),
			append([]string{"--kubeconfig", c.kubeconfig(), "--request-timeout=5s", "get", "--ignore-not-found"}, args...)...)
		output, err := command.Output()
		if err != nil {
			return ""
		}
		return string(output)
	}
	ready := kubectl("node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	return ready == "True" && kubectl("serviceaccount", "default", "--namespace", "default", "-o", "name") != ""
}
