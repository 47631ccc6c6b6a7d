// Package entrypoint answers which command a container runs when its Pod gives none: that of the image's
// configuration, as the kubelet and the container runtime would have found it.
package entrypoint

import (
	"slices"
	"strings"
)

// Command is what an image says of the process that it is to run, both parts as the image has them.
type Command struct {
	// Entrypoint is nil where the image has [""], a way to take back that of a base image: containerd reads it so.
	Entrypoint []string
	Cmd        []string
	// Image is what the container's image must become, pinned by digest, so that what Fill returns is the command of what runs.
	// Empty: it may stay as it is.
	Image string
}

func (c Command) equal(other Command) bool {
	return slices.Equal(c.Entrypoint, other.Entrypoint) && slices.Equal(c.Cmd, other.Cmd)
}

// Fill returns the command and args of a container that has args, and no command, so that it runs what it would have run
// without them: with args of its own the image's ENTRYPOINT and these, without any the image's ENTRYPOINT and CMD
// (containerd's WithProcessArgs, internal/cri/opts/spec_opts.go). Where the image has no ENTRYPOINT, the words are the command,
// so that there is one whenever there is something to run.
//
// The kubelet expands $(VAR) in a container's command and args, and never in what comes from an image. So what comes from
// the image is escaped; args that are the user's own stay as they are.
func (c Command) Fill(args []string) (command, filledArgs []string) {
	if len(args) == 0 {
		args = escape(c.Cmd)
	}
	if len(c.Entrypoint) == 0 {
		return args, nil
	}
	return escape(c.Entrypoint), args
}

// escape writes every $ as $$, which the kubelet's expansion reads as one $ wherever it stands
// (k8s.io/kubernetes/third_party/forked/golang/expansion).
func escape(words []string) []string {
	var escaped []string
	for _, word := range words {
		escaped = append(escaped, strings.ReplaceAll(word, "$", "$$"))
	}
	return escaped
}
