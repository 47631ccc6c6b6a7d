package entrypoint

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
)

const (
	// maxParallel bounds the look-ups of one Pod that are in flight at a time.
	maxParallel = 8
	// maxDistinct bounds the look-ups of one Pod. A Task has at most as many steps.
	maxDistinct = 100
	// maxTotal bounds the commands of one Pod in bytes. The API server takes no Pod that is much larger.
	maxTotal = 1 << 20
)

// ResolveAll resolves the commands of one Pod's containers, all at once and each distinct one once. The results, commands and errors, are in
// the order of the requests. Every request has one or the other.
func ResolveAll(ctx context.Context, resolve func(context.Context, Request) (Command, error), requests []Request) ([]Command, []error) {
	ctx = context.WithValue(ctx, secretsOfPodKey{}, &secretsOfPod{reads: map[string]func() (*corev1.Secret, error){}})
	commands, errs := make([]Command, len(requests)), make([]error, len(requests))
	first := map[string]int{}
	same := make([]int, len(requests)) // the index of the first request that asks for the same
	var group errgroup.Group
	group.SetLimit(maxParallel)
	for i, request := range requests {
		key := request.key()
		known, ok := first[key]
		if !ok {
			known, first[key] = i, i
		}
		if same[i] = known; ok {
			continue
		}
		if len(first) > maxDistinct {
			errs[i] = &Error{
				Image: request.Image, Reason: ReasonUnfit, Permanent: true,
				Cause:  fmt.Sprintf("is one of more than %d without a command", maxDistinct),
				Remedy: "set command in more of the steps",
			}
			continue
		}
		group.Go(func() error {
			commands[i], errs[i] = resolve(ctx, request)
			return nil
		})
	}
	_ = group.Wait() // none of them returns an error
	total := 0
	for i, request := range requests {
		commands[i], errs[i] = commands[same[i]], errs[same[i]]
		if total += commands[i].size(); total > maxTotal && errs[i] == nil {
			commands[i], errs[i] = Command{}, &Error{
				Image: request.Image, Reason: ReasonUnfit, Permanent: true,
				Cause: fmt.Sprintf("has a command that, with those of the other steps, takes more than %d KiB", maxTotal>>10), Remedy: setCommand,
			}
		}
	}
	return commands, errs
}

// key is equal for requests that have the same answer.
func (r Request) key() string {
	return fmt.Sprintf("%q %q %q %q %t %q", r.Namespace, r.Image, r.PullPolicy, r.Architecture, r.HasArgs, strings.Join(r.PullSecrets, " "))
}

// size is how many bytes the command takes, roughly.
func (c Command) size() int {
	size := len(c.Image)
	for _, word := range c.Entrypoint {
		size += wordSize + len(word)
	}
	for _, word := range c.Cmd {
		size += wordSize + len(word)
	}
	for _, platform := range c.Platforms {
		for _, word := range platform.Argv {
			size += wordSize + len(word)
		}
	}
	return size
}
