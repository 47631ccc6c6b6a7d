// Command image builds taskflow's images without Docker, and pushes them. Each image contains one static binary and nothing else. The same source
// gives the same digest.
//
//	image --name docker.io/taskflow --push-to localhost:5000/taskflow --plain-http [--platform linux/amd64,linux/arm64] [PACKAGE...]
//	image --programs DIR [--platform linux/amd64,linux/arm64] [PACKAGE...]
//
// The packages are main packages. They default to the operator and the agent. It prints the full name of each image on a line:
// docker.io/taskflow/operator@sha256:... With --programs, it writes the programs to DIR, pushes nothing, and prints the names of the files:
// DIR/operator-linux-amd64.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/pflag"

	"github.com/taskflow/taskflow-operator/internal/oci"
)

// user is not root. It is a number, because the kubelet can't check runAsNonRoot for a user name.
const user = "65532:65532"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var imageName, pushTo, tag, programs string
	var platforms []string
	var plainHTTP bool
	flags := pflag.NewFlagSet("image", pflag.ContinueOnError)
	flags.StringVar(&imageName, "name", "", "prefix of the images' names, such as ghcr.io/me")
	flags.StringVar(&pushTo, "push-to", "", "prefix that the images are pushed to (default: --name)")
	flags.StringVar(&tag, "tag", "latest", "tag of the images")
	flags.StringSliceVar(&platforms, "platform", []string{oci.HostPlatform().String()}, "platforms to build for, such as linux/amd64,linux/arm64")
	flags.BoolVar(&plainHTTP, "plain-http", false, "use HTTP instead of HTTPS for the registry")
	flags.StringVar(&programs, "programs", "", "directory to write the programs to, instead of pushing images")
	if err := flags.Parse(args); err != nil {
		return err
	}
	packages := flags.Args()
	if len(packages) == 0 {
		packages = []string{"./cmd/operator", "./cmd/agent"}
	}
	if programs != "" {
		return write(ctx, packages, platforms, programs)
	}
	if imageName == "" {
		return errors.New("--name is missing: set it to the prefix of the images' names, such as ghcr.io/me")
	}
	if pushTo == "" {
		pushTo = imageName
	}
	var options []name.Option
	if plainHTTP {
		options = append(options, oci.PlainHTTP)
	}
	for _, pkg := range packages {
		program := filepath.Base(pkg)
		digest, err := buildAndPush(ctx, pkg, platforms, pushTo+"/"+program+":"+tag, options)
		if err != nil {
			return fmt.Errorf("building the image %s: %w", program, err)
		}
		fmt.Printf("%s/%s@%s\n", imageName, program, digest)
	}
	return nil
}

// write writes the programs of the images to a directory.
func write(ctx context.Context, packages, platforms []string, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, pkg := range packages {
		for _, value := range platforms {
			platform, err := parsePlatform(value)
			if err != nil {
				return err
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%s-%s", filepath.Base(pkg), platform.OS, platform.Architecture))
			if err := compile(ctx, pkg, platform, file); err != nil {
				return fmt.Errorf("building %s: %w", pkg, err)
			}
			fmt.Println(file)
		}
	}
	return nil
}

func parsePlatform(value string) (v1.Platform, error) {
	platform, err := v1.ParsePlatform(value)
	if err != nil || platform.OS != "linux" || platform.Architecture == "" {
		return v1.Platform{}, fmt.Errorf("--platform %q is unknown: write it as linux/amd64", value)
	}
	return *platform, nil
}

// buildAndPush pushes one image, or an index with an image for each platform.
func buildAndPush(ctx context.Context, pkg string, platforms []string, ref string, options []name.Option) (v1.Hash, error) {
	var images []v1.Image
	for _, value := range platforms {
		platform, err := parsePlatform(value)
		if err != nil {
			return v1.Hash{}, err
		}
		image, err := build(ctx, pkg, platform)
		if err != nil {
			return v1.Hash{}, err
		}
		images = append(images, image)
	}
	if len(images) == 1 {
		if err := oci.Push(ctx, ref, images[0], options...); err != nil {
			return v1.Hash{}, err
		}
		return images[0].Digest()
	}
	index, err := oci.Index(images...)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := oci.Push(ctx, ref, index, options...); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// largest is the maximum size of a program in bytes. The first Pod with steps on a node waits until the agent is pulled.
var largest = map[string]int{"agent": 4_000_000, "operator": 60_000_000}

// build returns the image of a main package for one platform.
func build(ctx context.Context, pkg string, platform v1.Platform) (v1.Image, error) {
	program := filepath.Base(pkg)
	dir, err := os.MkdirTemp("", "taskflow-image-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, program)
	if err := compile(ctx, pkg, platform, binary); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	if limit, ok := largest[program]; ok && len(content) > limit {
		return nil, fmt.Errorf("the program has %d bytes, more than the maximum of %d: check what made it grow", len(content), limit)
	}
	return oci.Image(platform,
		[]oci.File{{Path: program, Mode: 0o555, Content: content}},
		v1.Config{Entrypoint: []string{"/" + program}, User: user})
}

// compile builds a program reproducibly: it does not depend on the directory, the time or the user.
func compile(ctx context.Context, pkg string, platform v1.Platform, file string) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, pkg)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform.OS, "GOARCH="+platform.Architecture)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}
