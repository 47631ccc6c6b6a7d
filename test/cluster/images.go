package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// registryCommand makes the cluster command run as the registry: "serve-registry ADDRESS FOLDER".
const registryCommand = "serve-registry"

// serveRegistry serves a registry that keeps its blobs in a folder, until the process ends.
func serveRegistry(address, dir string) error {
	fmt.Printf("serving the registry at %s from %s\n", address, dir)
	server := http.Server{
		Addr:              address,
		Handler:           registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir))),
		ReadHeaderTimeout: time.Minute,
	}
	return server.ListenAndServe()
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// jobDemo stands in for the script of devopscube/kubernetes-job-demo: it counts up to its argument.
const jobDemo = `#!/bin/sh
count=${1:-10}
i=1
while [ "$i" -le "$count" ]; do
  echo "This is demo job number $i"
  i=$((i + 1))
done
`

// lastImage is the image that pushImages pushes last.
const lastImage = "devopscube/kubernetes-job-demo"

// imagesPushed reports whether pushImages has completed.
func imagesPushed(ctx context.Context) bool {
	return healthy("http://"+registryAddress+"/v2/"+lastImage+"/manifests/latest", nil)(ctx)
}

// pushImages builds the images that the cluster and its tests use, and pushes them to the registry, under their paths on Docker Hub.
func (c *cluster) pushImages(ctx context.Context, staticBusybox string) error {
	pause, err := c.pauseImage(ctx)
	if err != nil {
		return fmt.Errorf("making the pause image: %w", err)
	}
	busybox, err := busyboxFiles(ctx, staticBusybox)
	if err != nil {
		return fmt.Errorf("making the busybox image: %w", err)
	}
	images := []struct {
		names  []string
		files  []oci.File
		config v1.Config
	}{
		{
			names:  []string{"pause:1"},
			files:  pause,
			config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"},
		},
		{
			names:  []string{"library/busybox:1.28", "library/busybox:latest"},
			files:  busybox,
			config: v1.Config{Cmd: []string{"sh"}, Env: []string{searchPath}},
		},
		{
			names:  []string{lastImage + ":latest"},
			files:  append(busybox, oci.File{Path: "script.sh", Mode: 0o755, Content: []byte(jobDemo)}),
			config: v1.Config{Entrypoint: []string{"/script.sh"}, Env: []string{searchPath}},
		},
	}
	for _, image := range images {
		built, err := oci.Image(oci.HostPlatform(), image.files, image.config)
		if err != nil {
			return fmt.Errorf("making the image %s: %w", image.names[0], err)
		}
		for _, name := range image.names {
			if err := oci.Push(ctx, registryAddress+"/"+name, built, oci.PlainHTTP); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cluster) pauseImage(ctx context.Context) ([]oci.File, error) {
	binary := filepath.Join(c.state, "pause")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./pause")
	build.Dir = filepath.Join(c.root, "test", "cluster")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	content, err := os.ReadFile(binary)
	return []oci.File{{Path: "pause", Mode: 0o555, Content: content}}, err
}

// busyboxFiles returns a static busybox, a link for each of its applets, and the other files of a base image.
func busyboxFiles(ctx context.Context, binary string) ([]oci.File, error) {
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	files := []oci.File{
		{Path: "bin/busybox", Mode: 0o755, Content: content},
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnobody:x:65534:\n")},
		{Path: "tmp/", Mode: 0o1777},
	}
	applets, err := exec.CommandContext(ctx, binary, "--list").Output()
	if err != nil {
		return nil, err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			files = append(files, oci.File{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	return files, nil
}

// isStatic reports whether a program runs without a dynamic linker.
func isStatic(program []byte) (bool, error) {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}
