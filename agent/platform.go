//go:build linux

package agent

import (
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// runPlatform becomes the command of the image that the node's container runtime has taken from the index. It is a step's command, and
// so a child of the agent that waited; it returns only if it can't become it.
func runPlatform(args []string, signals Signals, stderr io.Writer) int {
	argv, err := platformArgv(args, contract.Platform{Architecture: runtime.GOARCH, Variant: armVariant()})
	if err != nil {
		say(stderr, err.Error())
		return contract.ExitAgentFailure
	}
	path, err := lookPath(argv[0], os.Getenv("PATH"))
	if err == nil {
		select {
		case got := <-signals.forward: // it came for the command, which would never hear of it
			if sig := got.(syscall.Signal); endsWait(sig, unix.SIGTERM) {
				return contract.ExitSignal + int(sig)
			}
		default:
		}
		err = syscall.Exec(path, argv, os.Environ())
	}
	say(stderr, "starting "+strconv.Quote(argv[0])+": "+err.Error())
	return startFailure(err)
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
		return nil, errors.New("the image's command on linux/" + node.Architecture + " isn't known, since its registry lists that platform and didn't have it when the Pod was created: " +
			"set command, or a nodeSelector on kubernetes.io/arch")
	}
	argv := slices.Concat(picked.Argv, args[1:])
	if len(argv) == 0 {
		return nil, errors.New("the image has neither ENTRYPOINT nor CMD on this platform: set command")
	}
	return argv, nil
}

// armVariant is the version of a 32-bit ARM system's instruction set, such as "v7"; empty elsewhere. containerd asks /proc/cpuinfo
// first; the kernel's own name for the machine says the same.
func armVariant() string {
	var name unix.Utsname
	if runtime.GOARCH != "arm" || unix.Uname(&name) != nil {
		return ""
	}
	return variantOf(unix.ByteSliceToString(name.Machine[:]))
}

// variantOf reads a machine's name: armv7l, armv6l, and aarch64 for 32-bit programs on a 64-bit kernel.
func variantOf(machine string) string {
	switch version, found := strings.CutPrefix(machine, "armv"); {
	case machine == "aarch64":
		return "v8"
	case found && version != "":
		return "v" + version[:1]
	}
	return ""
}
