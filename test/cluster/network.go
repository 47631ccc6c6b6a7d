package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// All of the cluster lives in one network namespace, joined to the host by a pair of interfaces. So no
// port, route or firewall rule of the host's is touched, but for the one route to the cluster, and all of
// it goes when the namespace goes. The addresses are from 198.18.0.0/15, which is set aside for tests
// (RFC 2544), so that they clash with no network that the machine is in.
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
	// hostRegistryAddress is for tests that bring a registry of their own, on the host.
	hostRegistryAddress = hostAddress + ":" + registryPort
)

// checkNetwork says where an interface or a route of somebody else's has some of the cluster's addresses. VPNs and proxies do that: the
// made-up addresses of Clash are from 198.18.0.0/16.
func checkNetwork(ctx context.Context) error {
	// All routes inside of the range. An address has its route too, in the table "local".
	routes, err := exec.CommandContext(ctx, "ip", "-4", "route", "show", "table", "all", "root", clusterRange).Output()
	if err != nil {
		return fmt.Errorf("listing the routes of this machine: %w", err)
	}
	if route := foreignRoute(string(routes)); route != "" {
		return fmt.Errorf("the cluster's addresses, %s, are in use on this machine (%s): end the VPN or proxy that made this route, or remove it", clusterRange, route)
	}
	return nil
}

// foreignRoute returns the first of the routes, as ip-route(8) prints them, that isn't the cluster's, or "".
func foreignRoute(routes string) string {
	for line := range strings.Lines(routes) {
		if !strings.Contains(strings.TrimSpace(line)+" ", " dev "+hostInterface+" ") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// makeNetwork makes the namespace, its interfaces and routes.
func makeNetwork(ctx context.Context) error {
	return script(ctx, [][]string{
		{"ip", "netns", "add", namespace},
		{"ip", "link", "add", hostInterface, "type", "veth", "peer", "name", "eth0", "netns", namespace},
		{"ip", "address", "add", hostAddress + "/30", "dev", hostInterface},
		{"ip", "link", "set", hostInterface, "up"},
		{"ip", "-n", namespace, "link", "set", "lo", "up"},
		{"ip", "-n", namespace, "address", "add", nodeAddress + "/30", "dev", "eth0"},
		{"ip", "-n", namespace, "link", "set", "eth0", "up"},
		// kube-proxy catches what goes to a Service; but without a route the kernel would not send it in the first place.
		{"ip", "-n", namespace, "route", "add", serviceRange, "dev", "eth0"},
		{"ip", "route", "add", clusterRange, "via", nodeAddress, "dev", hostInterface},
		inNamespace("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
	})
}

// removeNetwork removes what makeNetwork made. The interfaces of the Pods go with the namespace.
func removeNetwork(ctx context.Context) error {
	// The interface goes first: the kernel ends a namespace some time after its name is gone, and would
	// delete the pair just when we do.
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

// inNamespace is the command line that runs a command in the cluster's network namespace. It enters that one
// namespace only: `ip netns exec` would mount a new /sys, without the cgroups.
func inNamespace(command ...string) []string {
	return append([]string{"nsenter", "--net=" + namespacePath()}, command...)
}

// script runs commands in turn, up to the first that fails.
func script(ctx context.Context, commands [][]string) error {
	for _, args := range commands {
		output, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("running %q: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}
