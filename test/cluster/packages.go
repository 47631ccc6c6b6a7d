package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// packages are the Debian packages that the cluster needs, each with a file that shows that it is
// there, however it was installed.
var packages = []struct{ name, file string }{
	{"runc", "/usr/sbin/runc"},
	{"containernetworking-plugins", "/usr/lib/cni/ptp"},
	{"nftables", "/usr/sbin/nft"},        // kube-proxy
	{"iptables", "/usr/sbin/iptables"},   // the kubelet's canary chains
	{"conntrack", "/usr/sbin/conntrack"}, // kube-proxy
	{"iproute2", "/usr/sbin/ip"},
	{"busybox-static", "/usr/bin/busybox"}, // the test images
}

// missingPackages lists the packages whose file doesn't exist.
func missingPackages(exists func(file string) bool) []string {
	var missing []string
	for _, p := range packages {
		if !exists(p.file) && !exists(strings.TrimPrefix(p.file, "/usr")) {
			missing = append(missing, p.name)
		}
	}
	return missing
}

func installPackages(ctx context.Context) error {
	missing := missingPackages(func(file string) bool {
		_, err := os.Stat(file)
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "installing Debian packages: %s\n", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "-y", "--no-install-recommends"}, missing...),
	} {
		command := exec.CommandContext(ctx, "apt-get", args...)
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("installing %s with apt-get: %w: install these packages by hand\n%s",
				strings.Join(missing, " "), err, output)
		}
	}
	return nil
}
