// Command cluster runs a real one-node Kubernetes on this machine, for tests and demos: etcd, the
// API server, the controller manager, the scheduler, kube-proxy, containerd, the kubelet and a
// registry, all built from Go modules, in a network namespace of their own. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const usage = `usage: cluster COMMAND

  up              start the cluster; builds and installs what it needs, repairs what has died
  down            end it and remove all that it made
  status          a line per component; exit code 1 when something is wrong
  running         print true where a process of a cluster lives on this machine, healthy or not, else false
  kubeconfig      print the path of the administrator's kubeconfig
  env             print a shell command that sets KUBECONFIG, PATH and NO_PROXY: eval "$(... env)"
  registry        print the address of the registry, as the host and the Pods reach it
  logs COMPONENT  print a component's log
  assets          build etcd, kube-apiserver and kubectl, and print their folder (KUBEBUILDER_ASSETS)
  cert-manager    build cert-manager's controllers, and print a shell command that sets CERT_MANAGER, the program, and
                  CERT_MANAGER_CRDS, the folder of its CRDs: eval "$(... cert-manager)"
  kwok            build kwok, which simulates nodes, and print its path
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("there is no such command")
	}
	if args[0] == registryCommand && len(args) == 3 {
		return serveRegistry(args[1], args[2]) // a daemon: its working directory is no clone
	}
	root, err := repositoryRoot()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := bypassProxy(); err != nil {
		return err
	}
	c := newCluster(root, self)

	switch command := args[0]; {
	case command == "up":
		return c.up(ctx)
	case command == "down":
		return c.down(ctx)
	case command == "status":
		return c.status(ctx)
	case command == "running":
		pids, err := clusterProcesses()
		if err != nil {
			return err
		}
		fmt.Println(len(pids) > 0)
	case command == "kubeconfig":
		fmt.Println(c.kubeconfig())
	case command == "env":
		kubernetes, err := c.binaries(ctx, kubernetesBuild)
		if err != nil {
			return err
		}
		fmt.Printf("export KUBECONFIG=%q PATH=%q:\"$PATH\" NO_PROXY=%q\n", c.kubeconfig(), kubernetes, os.Getenv("NO_PROXY"))
	case command == "registry":
		fmt.Println(registryAddress)
	case command == "logs" && len(args) == 2:
		return c.printLog(args[1])
	case command == "assets":
		return c.assets(ctx)
	case command == "cert-manager":
		return c.certManager(ctx)
	case command == "kwok":
		return c.kwok(ctx)
	default:
		fmt.Fprint(os.Stderr, usage)
		return errors.New("there is no such command")
	}
	return nil
}

// bypassProxy excludes the cluster from an HTTP proxy, which can't reach it, for this program and for the components, which inherit its
// environment. The API server calls webhooks by names that end in ".svc".
func bypassProxy() error {
	hosts := []string{clusterRange, ".svc"}
	for _, variable := range []string{"NO_PROXY", "no_proxy"} {
		for host := range strings.SplitSeq(os.Getenv(variable), ",") {
			if host != "" && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return os.Setenv("NO_PROXY", strings.Join(hosts, ","))
}

// repositoryRoot returns the nearest folder, from the working directory upwards, whose go.mod is the product's. Its path has no symbolic
// links, like the paths in the kernel's list of mounts.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if isRepository(dir) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this isn't a clone of taskflow-operator: run it from inside one")
		}
	}
}

func isRepository(dir string) bool {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	return err == nil && strings.HasPrefix(string(mod), "module github.com/taskflow/taskflow-operator\n")
}
