//go:build linux

package agent_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// files are the contents of a downward API volume, by file name.
type files map[string]string

func order(k string) files          { return files{contract.OrderFile: k, contract.HaltFile: ""} }
func halted(k, reason string) files { return files{contract.OrderFile: k, contract.HaltFile: reason} }

// podinfo is a downward API volume that is updated like by the kubelet, and that counts reads.
type podinfo struct {
	t       *testing.T
	dir     string
	writes  int
	inotify int
	watch   int            // of the directory behind ..data
	opens   map[string]int // of the files in it, by name
}

func newPodinfo(t *testing.T) *podinfo {
	t.Helper()
	inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(inotify) })
	return &podinfo{t: t, dir: t.TempDir(), inotify: inotify}
}

// step returns the agent's flags for step n of a Pod with this volume. The command prints "ran".
func (p *podinfo) step(n int) contract.AgentFlags {
	p.t.Helper()
	return contract.AgentFlags{
		Wait:           filepath.Join(p.dir, contract.OrderFile),
		WaitContent:    n,
		Halt:           filepath.Join(p.dir, contract.HaltFile),
		TerminationLog: writeFile(p.t, filepath.Join(p.t.TempDir(), "termination-log"), ""),
		Command:        shell("echo ran"),
	}
}

// late makes the step print the order when it runs, which shows whether it has waited for its release. Reads of the files do not show that,
// because the agent of a running step reads them, too.
func late(flags contract.AgentFlags) contract.AgentFlags {
	flags.Command = []string{"cat", flags.Wait}
	return flags
}

// write replaces all files at once, in the order of AtomicWriter.Write in the kubelet's pkg/volume/util/atomic_writer.go: it creates a new
// directory, renames a link to it onto ..data, creates the links that users see, and removes the old directory.
func (p *podinfo) write(contents files) {
	p.t.Helper()
	p.writes++
	data := fmt.Sprintf("..2025_03_01_12_00_%02d.%d", p.writes%60, p.writes)
	must(p.t, os.Mkdir(filepath.Join(p.dir, data), 0o755))
	for name, text := range contents {
		writeFile(p.t, filepath.Join(p.dir, data, name), text)
	}
	watch, err := unix.InotifyAddWatch(p.inotify, filepath.Join(p.dir, data), unix.IN_OPEN)
	must(p.t, err)
	p.watch, p.opens = watch, map[string]int{}

	link := filepath.Join(p.dir, "..data")
	old, _ := os.Readlink(link) // the first time, there is none
	must(p.t, os.Symlink(data, link+"_tmp"))
	must(p.t, os.Rename(link+"_tmp", link))
	for name := range contents {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(p.dir, name)); !os.IsExist(err) {
			must(p.t, err)
		}
	}
	if old != "" {
		must(p.t, os.RemoveAll(filepath.Join(p.dir, old)))
	}
}

// awaitRejection returns when the agent has read the files and not released the step, because it reads them again. It waits for three reads of
// at most two files each: the first read may have begun before the last write. A running step reads them, too: see late.
func (p *podinfo) awaitRejection() {
	p.t.Helper()
	const enough = 3 * 2
	eventually(p.t, "the agent reads again", func() bool {
		p.nudge()
		return p.countOpens() >= enough
	})
}

// awaitHalt returns when the agent has read the halt. It does not count reads of the order, which may have begun before the last write.
func (p *podinfo) awaitHalt() {
	p.t.Helper()
	eventually(p.t, "the agent reads the halt", func() bool {
		p.countOpens()
		return p.opens[contract.HaltFile] > 0
	})
}

// nudge wakes an agent that watches the directory, without a change to its files.
func (p *podinfo) nudge() {
	p.t.Helper()
	writeFile(p.t, filepath.Join(p.dir, "nudge"), "")
}

// countOpens returns how often the files were opened since the last write, at least: the kernel may merge equal events, inotify(7).
func (p *podinfo) countOpens() int {
	p.t.Helper()
	var buffer [4096]byte
	for {
		n, err := unix.Read(p.inotify, buffer[:])
		if err == unix.EAGAIN {
			total := 0
			for _, opens := range p.opens {
				total += opens
			}
			return total
		}
		must(p.t, err)
		for event := buffer[:n]; len(event) >= unix.SizeofInotifyEvent; {
			watch := int(int32(binary.NativeEndian.Uint32(event)))
			mask := binary.NativeEndian.Uint32(event[4:])
			length := binary.NativeEndian.Uint32(event[12:])
			name := event[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+int(length)]
			if watch == p.watch && mask&unix.IN_OPEN != 0 && length > 0 { // without a name it is the directory
				p.opens[string(bytes.TrimRight(name, "\x00"))]++
			}
			event = event[unix.SizeofInotifyEvent+int(length):]
		}
	}
}

// awaitOpens returns the time since start when the files have been opened n times.
func (p *podinfo) awaitOpens(n int, start time.Time) time.Duration {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("%d reads", n), func() bool { return p.countOpens() >= n })
	return time.Since(start)
}
