package entrypoint

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

// Request asks for the command of one container.
type Request struct {
	// Namespace of the Pod and of its PullSecrets.
	Namespace string
	// Image as the container names it.
	Image string
	// PullPolicy of the container. If empty, Kubernetes' default for the image's tag. With Always, the registry is asked each time.
	PullPolicy corev1.PullPolicy
	// PullSecrets are the names of the Pod's imagePullSecrets.
	PullSecrets []string
	// Architecture in Go's spelling, such as "arm64". If empty, the Pod may land on any.
	Architecture string
	// HasArgs is true if the container has args, which an image with neither ENTRYPOINT nor CMD runs as the command.
	HasArgs bool
}

// platform names where the Pod may land.
func (r Request) platform() string {
	return strings.TrimSuffix("linux/"+r.Architecture, "/")
}

// RequestFor returns the request for a container of a Pod.
func RequestFor(namespace string, pod *corev1.PodSpec, container *corev1.Container) Request {
	request := Request{
		Namespace:    namespace,
		Image:        container.Image,
		PullPolicy:   container.ImagePullPolicy,
		Architecture: pod.NodeSelector[corev1.LabelArchStable],
		HasArgs:      len(container.Args) > 0,
	}
	for _, secret := range pod.ImagePullSecrets {
		request.PullSecrets = append(request.PullSecrets, secret.Name)
	}
	return request
}

const (
	// maxParallel bounds the concurrent look-ups of one Pod.
	maxParallel = 8
	// maxDistinct bounds the look-ups of one Pod. A Task cannot have more steps.
	maxDistinct = 100
	// maxTotal bounds the commands of one Pod, in bytes. The API server accepts no Pod that is much larger.
	maxTotal = 1 << 20
)

// ResolveAll resolves the commands of one Pod's containers concurrently, equal requests once. It returns for each request, in their order,
// either a command or an error.
func ResolveAll(ctx context.Context, resolve func(context.Context, Request) (Command, error), requests []Request) ([]Command, []error) {
	ctx = context.WithValue(ctx, secretsOfPodKey{}, &sync.Map{})
	commands, errs := make([]Command, len(requests)), make([]error, len(requests))
	first := map[string]int{}
	same := make([]int, len(requests)) // index of the first equal request
	var group errgroup.Group
	group.SetLimit(maxParallel)
	for i, request := range requests {
		key := fmt.Sprintf("%#v", request)
		known, ok := first[key]
		if !ok {
			known, first[key] = i, i
		}
		if same[i] = known; ok {
			continue
		}
		if len(first) > maxDistinct {
			errs[i] = unfit(request, fmt.Sprintf("is one of more than %d images to resolve in the Pod", maxDistinct), "set command in more steps")
			continue
		}
		group.Go(func() error {
			commands[i], errs[i] = resolve(ctx, request)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
	total := 0
	for i, request := range requests {
		commands[i], errs[i] = commands[same[i]], errs[same[i]]
		if total += commands[i].size(); total > maxTotal && errs[i] == nil {
			const tooLong = "has a command that exceeds %d KiB together with those of the other steps"
			commands[i], errs[i] = Command{}, unfit(request, fmt.Sprintf(tooLong, maxTotal>>10), setCommand)
		}
	}
	return commands, errs
}

// size returns about how many bytes the command takes in the Pod.
func (c Command) size() int {
	size := len(c.Image) + sizeOfWords(c.Entrypoint, c.Cmd)
	for _, platform := range c.Platforms {
		size += sizeOfWords(platform.Argv)
	}
	return size
}
