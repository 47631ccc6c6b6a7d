package entrypoint

import (
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Command is the process that an image runs. Both parts are as in the image's configuration.
type Command struct {
	// Entrypoint is nil if the image has [""], which removes the ENTRYPOINT of its base image. containerd reads it so.
	Entrypoint []string
	Cmd        []string
	// Platforms are set if the image runs different commands on different platforms. The agent picks one. Entrypoint and Cmd are then
	// empty. Words that the container's args replace are left out.
	Platforms contract.PlatformCommands
	// Image, if not empty, must replace the container's image: it pins the digest, so that the command fits what runs.
	Image string
}

func (c Command) equal(other Command) bool {
	return slices.Equal(c.Entrypoint, other.Entrypoint) && slices.Equal(c.Cmd, other.Cmd)
}

// Fill returns the command and args of a container that has no command, so that it runs what it would have run unchanged: ENTRYPOINT and
// the container's args, or ENTRYPOINT and CMD if it has none (containerd's WithProcessArgs, internal/cri/opts/spec_opts.go). Without an
// ENTRYPOINT, the words become the command, so that command is never empty if there is something to run.
//
// The kubelet expands $(VAR) in command and args, but not in an image's configuration. So words of the image are escaped, and the
// container's own args are not.
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

// escape writes every $ as $$, which the kubelet's expansion turns back into one $ (k8s.io/kubernetes/third_party/forked/golang/expansion).
func escape(words []string) []string {
	var escaped []string
	for _, word := range words {
		escaped = append(escaped, strings.ReplaceAll(word, "$", "$$"))
	}
	return escaped
}

// maxPlatformsArgument bounds the argument with the commands of all platforms, in bytes. Linux accepts less than 128 KiB (MAX_ARG_STRLEN,
// execve(2)).
const maxPlatformsArgument = 100 << 10

// choose returns the command that all platforms share on which the container may land. If their commands differ, it returns all of them and
// pins the image, which is then an index. If some platforms are missing in the registry, it cannot tell whether they differ: the agent gets
// the known commands, and refuses to start on the others.
func choose(found image, request Request, pin func() string) (Command, error) {
	fit := candidates(found, request.Architecture)
	if len(fit) == 0 {
		remedy := "set an image that is"
		if request.Architecture != "" {
			remedy += ", or change the nodeSelector on kubernetes.io/arch"
		}
		return Command{}, unfit(request, "is not built for "+request.platform(), remedy)
	}
	if request.HasArgs {
		for i := range fit {
			fit[i].command.Cmd = nil // args take its place
		}
	}
	known := slices.DeleteFunc(slices.Clone(fit), platformCommand.isMissing)
	if len(known) == 0 {
		return Command{}, &fault{
			reason: ReasonNotFound, why: "HOST lists it for " + request.platform() + " but does not have that platform",
			remedy: "push that platform, or set command", log: "listed for " + request.platform() + ", but missing",
		}
	}
	first := known[0].command
	if len(known) == len(fit) && !slices.ContainsFunc(known, func(p platformCommand) bool { return !p.command.equal(first) }) {
		if len(first.Entrypoint)+len(first.Cmd) == 0 && !request.HasArgs {
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
		return Command{}, unfit(request, "has platform-specific commands that are too long",
			"set command, or a nodeSelector on kubernetes.io/arch")
	}
	return command, nil
}

// candidates returns the platforms of an image that nodes of an architecture may run. For an image outside an index, container runtimes
// ignore the platform.
func candidates(found image, architecture string) []platformCommand {
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

// alwaysPulls reports whether the kubelet asks the registry each time. Without an imagePullPolicy, the tag decides
// (k8s.io/kubernetes/pkg/apis/core/v1, SetDefaults_Container).
func alwaysPulls(request Request, ref name.Reference) bool {
	if request.PullPolicy != "" {
		return request.PullPolicy == corev1.PullAlways
	}
	tag, ok := ref.(name.Tag)
	return ok && tag.TagStr() == name.DefaultTag
}
