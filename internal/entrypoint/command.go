// Package entrypoint answers which command a container runs when its Pod gives none: that of the image's
// configuration, as the kubelet and the container runtime would have found it.
//
// Resolver asks (resolver.go): with the Pod's credentials (credentials.go), over a transport that goes only where it may
// (transport.go), reading what registries have of an image (image.go). What the container's command and args become is
// Command's to say, here. A failure is one sentence for the user (failure.go).
package entrypoint

import (
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Command is what an image says of the process that it is to run, both parts as the image has them.
type Command struct {
	// Entrypoint is nil where the image has [""], a way to take back that of a base image: containerd reads it so.
	Entrypoint []string
	Cmd        []string
	// Platforms are the commands of an image that runs different ones on different platforms, without those args that the container
	// has. The agent picks. Entrypoint and Cmd are empty then.
	Platforms contract.PlatformCommands
	// Image is what the container's image must become, pinned by digest, so that what Fill returns is the command of what runs.
	// Empty: it may stay as it is.
	Image string
}

func (c Command) equal(other Command) bool {
	return slices.Equal(c.Entrypoint, other.Entrypoint) && slices.Equal(c.Cmd, other.Cmd)
}

func (c Command) isEmpty() bool { return len(c.Entrypoint)+len(c.Cmd) == 0 }

// Fill returns the command and args of a container that has args, and no command, so that it runs what it would have run
// without them: with args of its own the image's ENTRYPOINT and these, without any the image's ENTRYPOINT and CMD
// (containerd's WithProcessArgs, internal/cri/opts/spec_opts.go). Where the image has no ENTRYPOINT, the words are the command,
// so that there is one whenever there is something to run.
//
// The kubelet expands $(VAR) in a container's command and args, and never in what comes from an image. So what comes from
// the image is escaped; args that are the user's own stay as they are.
func (c Command) Fill(args []string) (command, filledArgs []string) {
	if len(c.Platforms) > 0 {
		return escape([]string{contract.AgentPath, contract.PlatformCommand, c.Platforms.Marshal()}), args
	}
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

// maxPlatformsArgument is how long the argument with the commands of all platforms may be. Linux takes none of 128 KiB
// (MAX_ARG_STRLEN, execve(2)).
const maxPlatformsArgument = 100 << 10

// choose finds the one command of all the platforms on which the container may land. Where they have several, it is all of them, and
// the image pinned. Only one of an index has several. Where some of them are missing, nobody can say that these have the same: what is known
// goes to the agent, which refuses on the others.
func choose(found image, request Request, pin func() string) (Command, error) {
	fit := landing(found, request.Architecture)
	if len(fit) == 0 {
		return Command{}, lacks(request)
	}
	if request.HasArgs {
		for i := range fit {
			fit[i].command.Cmd = nil // args take its place
		}
	}
	known := slices.DeleteFunc(slices.Clone(fit), platformCommand.isMissing)
	if len(known) == 0 {
		return Command{}, &missingError{request.platform()}
	}
	first := known[0].command
	if len(known) == len(fit) && !slices.ContainsFunc(known, func(p platformCommand) bool { return !p.command.equal(first) }) {
		if first.isEmpty() && !request.HasArgs {
			return Command{}, unfit(request, "has neither ENTRYPOINT nor CMD", setCommand)
		}
		return first, nil
	}
	command := Command{Image: pin()}
	for _, p := range fit {
		command.Platforms = append(command.Platforms, contract.PlatformArgv{
			Platform: p.Platform, Argv: slices.Concat(p.command.Entrypoint, p.command.Cmd), Missing: p.missing,
		})
	}
	if len(command.Platforms.Marshal()) > maxPlatformsArgument {
		return Command{}, unfit(request, "has different commands for different platforms, too long ones to pass them all on",
			"set command, or a nodeSelector on kubernetes.io/arch")
	}
	return command, nil
}

// landing are the platforms of an image that may be run on nodes of an architecture. Outside an index, container runtimes take what
// there is.
func landing(found image, architecture string) []platformCommand {
	switch {
	case !found.index || architecture == "":
		return slices.Clone(found.platforms)
	case architecture == "arm": // nodes of several variants
		return slices.DeleteFunc(slices.Clone(found.platforms), func(p platformCommand) bool {
			return !strings.HasPrefix(p.Architecture, "arm") || p.Architecture == "arm64"
		})
	}
	var all []contract.Platform
	for _, p := range found.platforms {
		all = append(all, p.Platform)
	}
	i := contract.Platform{Architecture: architecture}.Best(all)
	if i < 0 {
		return nil
	}
	return []platformCommand{found.platforms[i]}
}

func unfit(request Request, cause, remedy string) *Error {
	return &Error{Image: request.Image, Reason: ReasonUnfit, Cause: cause, Remedy: remedy, Permanent: true}
}

func lacks(request Request) *Error {
	remedy := "set one that is"
	if request.Architecture != "" {
		remedy += ", or another nodeSelector on kubernetes.io/arch"
	}
	return unfit(request, "isn't made for "+request.platform(), remedy)
}

// alwaysPulls says whether the kubelet asks the registry each time. Where the container leaves it open, the tag decides
// (k8s.io/kubernetes/pkg/apis/core/v1, SetDefaults_Container).
func alwaysPulls(request Request, ref name.Reference) bool {
	if request.PullPolicy != "" {
		return request.PullPolicy == corev1.PullAlways
	}
	tag, ok := ref.(name.Tag)
	return ok && tag.TagStr() == name.DefaultTag
}
