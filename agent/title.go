//go:build linux

package agent

import (
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TakeArgs returns os.Args, and hides them from other processes. The agent's arguments include the words of its command: "pkill -f server.py" in
// a step would find the agent and, in a Pod with shareProcessNamespace, the agents of later steps. The environment is not changed.
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
	own := args
	if command := slices.Index(args, "--command"); command >= 0 {
		own = args[:command]
	}
	for _, flag := range []string{"--step", "--waitcontent"} {
		if i := slices.Index(own, flag); i >= 0 && i+1 < len(own) {
			return contract.AgentTitle + " " + own[i+1]
		}
	}
	return contract.AgentTitle
}

// overwrite replaces the arguments by the title, followed by zeros. The kernel shows the memory in which it placed them (get_mm_cmdline in
// fs/proc/base.c), one after another, each with a zero at its end. Go's strings point to that memory (goargs in runtime/runtime1.go). If the
// arguments are elsewhere, because a later Go copies them, overwrite does nothing.
//
//nolint:gosec // unsafe: it writes only to the memory of the arguments, which are adjacent
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
	memory := unsafe.Slice(start, length-1) // without the last zero
	n := copy(memory, title)
	clear(memory[n:])
}

// setName replaces the name of the process, which is the program's: "pkill agent" and killall would find it. It writes to a file because
// prctl(2) sets the name of the calling thread, which may not be the first one.
func setName(name string) {
	fd, err := unix.Open("/proc/self/comm", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(name)) // best effort
	_ = unix.Close(fd)
}
