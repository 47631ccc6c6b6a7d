package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The whole cluster is in one network namespace, connected to the host by a pair of interfaces. So it changes no port, route or firewall
// rule of the host, except for the one route to the cluster, and everything disappears with the namespace. The addresses are from
// 198.18.0.0/15, which is reserved for tests (RFC 2544), so that they conflict with no network of the machine.
const (
	namespace     = "taskflow-test"
	hostInterface = "taskflow0"
	hostAddress   = "198.18.0.2"
	nodeAddress   = "198.18.0.1" // the API server, the kubelet and the registry, as host and Pods reach them
	clusterRange  = "198.18.0.0/15"
	podRange      = "198.18.128.0/17"
	serviceRange  = "198.19.0.0/16"
	apiServerIP   = "198.19.0.1" // the Service "kubernetes": the first address of serviceRange
	apiServerPort = "6443"
	registryPort  = "5000"

	registryAddress = nodeAddress + ":" + registryPort
	// hostRegistryAddress is for tests that run a registry of their own on the host.
	hostRegistryAddress = hostAddress + ":" + registryPort
)

// checkNetwork returns an error if an interface or a route of another program uses the cluster's addresses. VPNs and proxies do that: the
// fake addresses of Clash are from 198.18.0.0/16.
func checkNetwork(ctx context.Context) error {
	// This lists all routes inside the range. An address has its route as well, in the table "local".
	routes, err := exec.CommandContext(ctx, "ip", "-4", "route", "show", "table", "all", "root", clusterRange).Output()
	if err != nil {
		return fmt.Errorf("listing the routes of this machine: %w", err)
	}
	if route := foreignRoute(string(routes)); route != "" {
		return fmt.Errorf("the cluster's addresses, %s, are in use on this machine (%s): end the VPN or proxy that made this route, or remove it", clusterRange, route)
	}
	return nil
}

// foreignRoute returns the first of the routes, as ip-route(8) prints them, that doesn't belong to the cluster, or "".
func foreignRoute(routes string) string {
	for line := range strings.Lines(routes) {
		if !strings.Contains(strings.TrimSpace(line)+" ", " dev "+hostInterface+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// makeNetwork creates the namespace, its interfaces and routes.
func makeNetwork(ctx context.Context) error {
	return script(ctx, [][]string{
		{"ip", "netns", "add", namespace},
		{"ip", "link", "add", hostInterface, "type", "veth", "peer", "name", "eth0", "netns", namespace},
		{"ip", "address", "add", hostAddress + "/30", "dev", hostInterface},
		{"ip", "link", "set", hostInterface, "up"},
		{"ip", "-n", namespace, "link", "set", "lo", "up"},
		{"ip", "-n", namespace, "address", "add", nodeAddress + "/30", "dev", "eth0"},
		{"ip", "-n", namespace, "link", "set", "eth0", "up"},
		// kube-proxy handles packets to a Service, but without a route the kernel would not send them.
		{"ip", "-n", namespace, "route", "add", serviceRange, "dev", "eth0"},
		{"ip", "route", "add", clusterRange, "via", nodeAddress, "dev", hostInterface},
		inNamespace("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
	})
}

// removeNetwork removes what makeNetwork created. The Pods' interfaces disappear with the namespace.
func removeNetwork(ctx context.Context) error {
	// The interface is removed first: the kernel ends a namespace some time after its name is gone, and might delete the pair at the same
	// moment.
	if _, err := os.Stat("/sys/class/net/" + hostInterface); err == nil {
		if err := script(ctx, [][]string{{"ip", "link", "delete", hostInterface}}); err != nil {
			return err
		}
	}
	if _, err := os.Stat(namespacePath()); err == nil {
		return script(ctx, [][]string{{"ip", "netns", "delete", namespace}})
	}
	return nil
}

func namespacePath() string { return "/run/netns/" + namespace }

// inNamespace returns a command line that runs a command in the cluster's network namespace. It enters only that namespace: `ip netns exec`
// would mount a new /sys, without the cgroups.
func inNamespace(command ...string) []string {
	return append([]string{"nsenter", "--net=" + namespacePath()}, command...)
}

// script runs commands in order, up to the first that fails.
func script(ctx context.Context, commands [][]string) error {
	for _, args := range commands {
		output, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("running %q: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}
