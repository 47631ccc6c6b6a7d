package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// kubernetesVersion is the version in build/kubernetes/go.mod. The binaries report it.
const kubernetesVersion = "v1.37.2"

// build is a Go module below build/ and the binaries that it makes.
type build struct {
	name     string   // its folder below build/
	packages []string // main packages
	ldflags  string
	links    []string // more names of the one binary
}

var (
	kubernetesBuild = build{
		name:     "kubernetes",
		packages: []string{"."},
		ldflags: "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
			" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
		links: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"},
	}
	etcdBuild = build{
		name:     "etcd",
		packages: []string{"go.etcd.io/etcd/server/v3"},
		links:    []string{"etcd"}, // the package's own name is "server"
	}
	certManagerBuild = build{
		name:     "cert-manager",
		packages: []string{"."},
	}
	kwokBuild = build{
		name:     "kwok",
		packages: []string{"sigs.k8s.io/kwok/cmd/kwok"},
	}
	containerdBuild = build{
		name: "containerd",
		packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
			"github.com/containerd/containerd/v2/cmd/ctr",
		},
	}
)

// binaries returns the folder with the build's binaries, and builds them if it doesn't exist. The folder is in the user's cache, under a
// key of everything that the binaries are built from, so that clones share it.
func (c *cluster) binaries(ctx context.Context, b build) (string, error) {
	source := filepath.Join(c.root, "test", "cluster", "build", b.name)
	key, err := buildKey(source, b)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the user's cache directory: %w", err)
	}
	dir := filepath.Join(cache, "taskflow-cluster", b.name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}

	begin := time.Now()
	fmt.Fprintf(os.Stderr, "building %s (once; the first time takes minutes) ...\n", b.name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), b.name+"-*.tmp")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w " + b.ldflags, "-o", temp + "/"}, b.packages...)
	goBuild := exec.CommandContext(ctx, "go", args...)
	goBuild.Dir = source
	goBuild.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	goBuild.Stdout, goBuild.Stderr = os.Stderr, os.Stderr
	stopProgress := progress("building "+b.name, begin)
	err = goBuild.Run()
	stopProgress()
	if err != nil {
		return "", fmt.Errorf("building %s: %w", b.name, err)
	}
	if err := link(temp, b.links); err != nil {
		return "", err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, statErr := os.Stat(dir); statErr != nil { // another clone may have been quicker
			return "", err
		}
	}
	fmt.Fprintf(os.Stderr, "built %s in %s\n", b.name, time.Since(begin).Round(time.Second))
	return dir, nil
}

// link adds names for the only binary in dir.
func link(dir string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Symlink(entries[0].Name(), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// buildKey returns the key of a build: the module's files, the flags, the Go version.
func buildKey(source string, b build) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOARCH, b.packages, b.ldflags, b.links)
	files, err := filepath.Glob(filepath.Join(source, "*"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(file), len(content))
		hash.Write(content)
	}
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// progress prints a line every half minute until stop is called.
func progress(what string, begin time.Time) (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(30 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprintf(os.Stderr, "%s: %s so far\n", what, time.Since(begin).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// assets prints the folder that envtest of controller-runtime takes as KUBEBUILDER_ASSETS.
func (c *cluster) assets(ctx context.Context) error {
	kubernetes, err := c.binaries(ctx, kubernetesBuild)
	if err != nil {
		return err
	}
	etcd, err := c.binaries(ctx, etcdBuild)
	if err != nil {
		return err
	}
	// The folder's name has both keys, so its content never changes.
	dir := kubernetes + "-" + strings.TrimPrefix(filepath.Base(etcd), etcdBuild.name+"-") + "-envtest"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, target := range []string{etcd + "/etcd", kubernetes + "/kube-apiserver", kubernetes + "/kubectl"} {
		err := os.Symlink(target, filepath.Join(dir, filepath.Base(target)))
		if err != nil && !os.IsExist(err) {
			return err
		}
	}
	fmt.Println(dir)
	return nil
}

// certManager prints the paths of cert-manager's controllers and CRDs. They aren't part of the cluster: the tests that need them start
// them.
func (c *cluster) certManager(ctx context.Context) error {
	dir, err := c.binaries(ctx, certManagerBuild)
	if err != nil {
		return err
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager")
	list.Dir = filepath.Join(c.root, "test", "cluster", "build", certManagerBuild.name)
	list.Stderr = os.Stderr
	module, err := list.Output()
	if err != nil {
		return fmt.Errorf("finding cert-manager's CRDs: %w", err)
	}
	fmt.Printf("export CERT_MANAGER=%q CERT_MANAGER_CRDS=%q\n",
		filepath.Join(dir, "cert-manager"), filepath.Join(strings.TrimSpace(string(module)), "deploy", "crds"))
	return nil
}

// kwok prints the path of kwok, which simulates nodes for a benchmark.
func (c *cluster) kwok(ctx context.Context) error {
	dir, err := c.binaries(ctx, kwokBuild)
	if err != nil {
		return err
	}
	fmt.Println(filepath.Join(dir, "kwok"))
	return nil
}
