//go:build linux

package agent

import (
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TakeArgs returns the arguments of this process, os.Args, and takes them out of what others see of it. An agent's arguments are those of
// its command, too: "pkill -f server.py" in a step would find the agent, and in a Pod with shareProcessNamespace the agents of later steps,
// which wait with the same words. The environment stays as it is.
func TakeArgs() []string {
	seen := os.Args
	args := make([]string, len(seen))
	for i, arg := range seen {
		args[i] = strings.Clone(arg)
	}
	os.Args = args
	title := titleOf(args)
	overwrite(seen, title)
	setName(contract.AgentTitle)
	return args
}

func titleOf(args []string) string {
	for i, arg := range args {
		if arg == "--command" {
			break
		}
		if arg == "--waitcontent" && i+1 < len(args) {
			return contract.AgentTitle + " " + args[i+1]
		}
	}
	return contract.AgentTitle
}

// overwrite puts the title in the place of the arguments, and zeros behind it. The kernel shows the memory that it has laid them out in
// (get_mm_cmdline in fs/proc/base.c), one after another with a zero behind each, and Go's strings are that memory itself
// (goargs in runtime/runtime1.go). Arguments that lie elsewhere are left alone, as the copies are that Go might make one day.
//
//nolint:gosec // unsafe: nothing is written but the memory of the arguments, which lie one behind another
func overwrite(args []string, title string) {
	if len(args) == 0 || args[0] == "" {
		return
	}
	start := unsafe.StringData(args[0])
	length := 0
	for _, arg := range args {
		if arg != "" && unsafe.StringData(arg) != (*byte)(unsafe.Add(unsafe.Pointer(start), length)) {
			return
		}
		length += len(arg) + 1
	}
	memory := unsafe.Slice(start, length-1) // the last zero is there
	n := copy(memory, title)
	clear(memory[n:])
}

// setName sets the name of the process, by which "pkill agent" and killall would find it: it is that of the program's file. A write to this
// file names the first thread, whichever thread writes, which prctl(2) doesn't.
func setName(name string) {
	fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(name)) // the step runs under any name
	_ = unix.Close(fd)
}
