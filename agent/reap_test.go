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

// Steps must not overlap: the agent kills the processes that the command left behind, however they were detached, and the result is still the
// command's. actAsAgent checks that none is left when the agent returns. run checks that none is left after that, because it waits until no
// process holds the output.
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
	// The script continues when the process that it started is ready and has written to the FIFO.
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

// Killing leftovers takes less than the default grace period of a Pod, which is 30 s. The limit is for slow machines.
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

// The agent reaps orphans while the command runs. Otherwise each would use one of the Pod's process IDs, which a node limits.
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

// Probes and "kubectl exec" may leave orphans while a step waits. In this test, a process that becomes the agent's child before the agent starts
// represents them.
func TestOrphansAreReapedWhileTheStepWaits(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			input, finish := pipe(t)
			info := newPodinfo(t)
			info.write(order("1"))
			// The shell executes the agent, so its background process is the agent's child.
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
		status, _ := os.ReadFile("/proc/" + entry.Name() + "/status") // fails if it has ended
		if slices.Contains(strings.Split(string(status), "\n"), fmt.Sprintf("PPid:\t%d", pid)) {
			children = append(children, child)
		}
	}
	return children
}
