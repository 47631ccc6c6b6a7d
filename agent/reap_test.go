//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Nothing of a step may overlap the next one: what it leaves running is killed before the agent ends,
// in whatever way it has got loose, and the result stays the command's. That none is left when the
// agent is done, actAsAgent looks; that none goes on for longer, the pipe of the output: as long as
// one process has it open, run does not return.
func TestLeftoversAreKilled(t *testing.T) {
	tests := map[string]string{
		"a background process":          `sleep 60 & exit 42`,
		"a daemon":                      `setsid sleep 60 & exit 42`,
		"one that ignores signals":      `sh -c 'trap "" TERM HUP INT; echo >&3; sleep 60' & read line <"$FIFO"; exit 42`,
		"one that is stopped":           `sleep 60 & kill -STOP $!; exit 42`,
		"a process with children":       `sh -c 'sleep 60 & sleep 60 & echo >&3; wait' & read line <"$FIFO"; exit 42`,
		"a chain of processes":          `sh -c 'sh -c "sh -c \"sleep 60 & echo >&3; wait\" & wait" & wait' & read line <"$FIFO"; exit 42`,
		"an orphan's children":          `(setsid sh -c 'sleep 60 & echo >&3; wait' &); read line <"$FIFO"; exit 42`,
		"one that has its own children": `(sh -c 'while :; do sleep 0.01; done' &); exit 42`,
		"many":                          `i=0; while [ $i -lt 50 ]; do sleep 60 & i=$((i+1)); done; exit 42`,
		"after death by a signal":       `sleep 60 & kill -9 $$`,
	}
	// The script goes on once what it has started is in place and has said so.
	const prepare = `FIFO=$1; mkfifo "$FIFO"; exec 3<>"$FIFO"; `

	for place, clone := range placements {
		for name, script := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				flags := released(t)
				flags.Command = append(shell(prepare+script), "sh", t.TempDir()+"/fifo")
				code := 42
				if strings.HasSuffix(script, "kill -9 $$") {
					code = 128 + 9
				}
				if diff := cmp.Diff(result{Code: code}, container{args: flags.Args(), clone: clone}.run(t)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(contract.Record{ExitCode: code}, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// The record's end is that of the command, and the killing does not take long: well within the grace
// period of a Pod, which is 30 s. The bound is wide for slow machines.
func TestLeftoversAreKilledSoon(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			const soon = 20 * time.Second
			flags := released(t, shell("sleep 60 & exit 0")...)
			started := time.Now()
			container{args: flags.Args(), clone: clone}.run(t)
			if took := time.Since(started); took > soon {
				t.Errorf("the step took %v, want less than %v", took, soon)
			}
		})
	}
}

// Orphans that end while the command goes on are collected at once: each would else take up one of
// the Pod's process ids, of which a node grants few.
func TestOrphansAreReaped(t *testing.T) {
	const script = `i=0; while [ $i -lt 20 ]; do (true &); i=$((i+1)); done; echo done; read line; exit 3`
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			flags := released(t, shell(script)...)
			p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			p.awaitOutput("done")
			eventually(t, "the command is the agent's only child", func() bool {
				return len(childrenOf(t, p.cmd.Process.Pid)) == 1
			})
			_, err := fmt.Fprintln(finish)
			must(t, err)
			if diff := cmp.Diff(result{Code: 3, Stdout: "done\n"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// While a step waits, probes and "kubectl exec" may leave orphans too. A process that is made a child
// of the agent's before the agent starts stands in for them.
func TestOrphansAreReapedWhileTheStepWaits(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			info := newPodinfo(t)
			info.write(order("1"))
			// The shell becomes the agent, and its background process the agent's child.
			const script = `exec 3<&0; cat <&3 & exec "$@"`
			args := append([]string{"-c", script, "sh", filepath.Join(programs, agentName)}, info.step(2).Args()...)
			p := container{program: "/bin/sh", args: args, clone: clone, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
			info.awaitRejection()
			if children := childrenOf(t, p.cmd.Process.Pid); len(children) != 1 {
				t.Errorf("the agent has children %v, want one", children)
			}
			must(t, finish.Close())
			eventually(t, "the agent has no children", func() bool { return len(childrenOf(t, p.cmd.Process.Pid)) == 0 })
			info.write(order("2"))
			if diff := cmp.Diff(ran, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	var children []int
	entries, err := os.ReadDir("/proc")
	must(t, err)
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		status, _ := os.ReadFile("/proc/" + entry.Name() + "/status") // fails for one that has gone
		if slices.Contains(strings.Split(string(status), "\n"), fmt.Sprintf("PPid:\t%d", pid)) {
			children = append(children, child)
		}
	}
	return children
}
