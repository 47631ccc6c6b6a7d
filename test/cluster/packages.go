package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are the Debian packages that the cluster needs. Each has a program that proves its presence, regardless of how it was installed:
// a name on PATH, or a path.
var packages = []struct{ name, program string }{
	{"runc", "runc"},
	{"containernetworking-plugins", "/usr/lib/cni/ptp"}, // containerd.toml
	{"nftables", "nft"},        // kube-proxy
	{"iptables", "iptables"},   // the kubelet's canary chains
	{"conntrack", "conntrack"}, // kube-proxy
	{"iproute2", "ip"},
}

// missingPackages lists the packages whose program isn't found.
func missingPackages(found func(program string) bool) []string {
	var missing []string
	for _, p := range packages {
		if !found(p.program) {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// installPackages removes no package: it fails if a missing package conflicts with an installed one.
func installPackages(ctx context.Context) error {
	missing := missingPackages(func(program string) bool {
		_, err := exec.LookPath(program)
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "installing Debian packages: %s\n", strings.Join(missing, " "))
	err := aptGet(ctx, "", append([]string{"install", "-y", "--no-install-recommends", "--no-remove"}, missing...)...)
	if err != nil {
		return fmt.Errorf("installing %s: %w: install these packages by hand", strings.Join(missing, " "), err)
	}
	return nil
}

// aptGet runs apt-get in a folder, after updating the package lists.
func aptGet(ctx context.Context, dir string, args ...string) error {
	for _, args := range [][]string{{"update"}, args} {
		// It waits for another apt-get, such as the unattended upgrade of a machine that has just started.
		command := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		command.Dir = dir
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("running apt-get %s: %w: %s", args[0], err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}

// staticBusybox returns the path of a busybox that needs no shared libraries: the machine's, or one in the user's cache. Debian's package
// busybox, whose program needs them, conflicts with busybox-static, which is therefore unpacked there instead of being installed.
func staticBusybox(ctx context.Context) (string, error) {
	dir, err := busyboxDir()
	if err != nil {
		return "", err
	}
	if busybox, err := firstStatic(busyboxes(dir)); busybox != "" || err != nil {
		return busybox, err
	}
	fmt.Fprintf(os.Stderr, "unpacking the Debian package busybox-static into %s\n", dir)
	if err := unpackPackage(ctx, "busybox-static", dir); err != nil {
		return "", fmt.Errorf("unpacking busybox-static: %w: put a static busybox at %s by hand", err, filepath.Join(dir, "bin/busybox"))
	}
	busybox, err := firstStatic(busyboxes(dir))
	if err == nil && busybox == "" {
		err = fmt.Errorf("the package busybox-static has no static busybox: put one at %s by hand", filepath.Join(dir, "bin/busybox"))
	}
	return busybox, err
}

func busyboxDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the user's cache directory: %w", err)
	}
	return filepath.Join(cache, "taskflow-cluster", "busybox-static"), nil
}

// busyboxes returns the possible paths of a busybox. They are the same in the package as on the machine.
func busyboxes(packageDir string) []string {
	places := []string{"/usr/bin/busybox", "/bin/busybox"}
	for _, place := range places {
		places = append(places, filepath.Join(packageDir, place))
	}
	return places
}

// firstStatic returns the first of the programs that exists and is static, or "".
func firstStatic(programs []string) (string, error) {
	for _, program := range programs {
		content, err := os.ReadFile(program)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		static, err := isStatic(content)
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", program, err)
		}
		if static {
			return program, nil
		}
	}
	return "", nil
}

// unpackPackage unpacks a Debian package into a folder, completely or not at all.
func unpackPackage(ctx context.Context, name, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), name+"-*.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := aptGet(ctx, temp, "download", name); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(temp, "*.deb"))
	if err != nil {
		return err
	}
	files := filepath.Join(temp, "files")
	if err := script(ctx, [][]string{append([]string{"dpkg-deb", "--extract"}, append(packages, files)...)}); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(files, dir)
}
