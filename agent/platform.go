//go:build linux

package agent

import (
	"errors"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// runPlatform executes the image's command for the platform of this node. It is a step's command, so a child of the agent that waited.
func runPlatform(args []string, signals Signals, log logger) int {
	argv, err := platformArgv(args, contract.Platform{Architecture: runtime.GOARCH, Variant: armVariant()})
	if err != nil {
		log.say(err.Error())
		return contract.ExitAgentFailure
	}
	return become("", argv, signals, log)
}

func platformArgv(args []string, node contract.Platform) ([]string, error) {
	if len(args) == 0 {
		return nil, errors.New(contract.PlatformCommand + " takes the commands of the platforms as its first argument")
	}
	commands, err := contract.ParsePlatformCommands(args[0])
	if err != nil {
		return nil, err
	}
	picked, found := commands.Pick(node)
	switch {
	case !found:
		return nil, errors.New("the image isn't made for linux/" + node.Architecture + ": set an image that is, or a nodeSelector on kubernetes.io/arch")
	case picked.Missing:
		return nil, errors.New("the image's command on linux/" + node.Architecture + " is unknown, because its registry lists the platform but did not have it " +
			"when the Pod was created: set command, or a nodeSelector on kubernetes.io/arch")
	}
	argv := slices.Concat(picked.Argv, args[1:])
	if len(argv) == 0 {
		return nil, errors.New("the image has neither ENTRYPOINT nor CMD on this platform: set command")
	}
	return argv, nil
}

// armVariant returns the instruction set version of a 32-bit ARM system, such as "v7", and "" on other systems. containerd reads it from
// /proc/cpuinfo; the kernel's name of the machine is equivalent.
func armVariant() string {
	var name unix.Utsname
	if runtime.GOARCH != "arm" || unix.Uname(&name) != nil {
		return ""
	}
	return variantOf(unix.ByteSliceToString(name.Machine[:]))
}

// variantOf returns the variant of a machine's name, such as armv7l or armv6l; aarch64 means a 32-bit program on a 64-bit kernel.
func variantOf(machine string) string {
	switch version, found := strings.CutPrefix(machine, "armv"); {
	case machine == "aarch64":
		return "v8"
	case found && version != "":
		return "v" + version[:1]
	}
	return ""
}
