//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Each step releases the next one, without the controller: the order stays at 1. With agents that only recheck periodically, the test would time
// out.
func TestHandOff(t *testing.T) {
	const steps = 20
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, steps)
			info.write(order("1"))
			journal := filepath.Join(t.TempDir(), "journal")
			var waiting []*process
			for n := steps; n >= 1; n-- { // the first step starts last
				flags := info.sharing(runDir, n)
				flags.Command = shell(fmt.Sprintf("echo %d >>%s", n, journal))
				waiting = append(waiting, container{args: flags.Args(), clone: clone}.start(t))
			}
			var want strings.Builder
			for n := 1; n <= steps; n++ {
				fmt.Fprintln(&want, n)
			}
			for _, p := range waiting {
				if diff := cmp.Diff(result{}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
			if diff := cmp.Diff(want.String(), readFile(t, journal)); diff != "" {
				t.Errorf("journal: -want +got:\n%s", diff)
			}
		})
	}
}

// The order and the halt outrank a record. With ControllerOnly, and in Pods of earlier releases, which have no run directory, records do not count.
func TestHandOffAndTheController(t *testing.T) {
	ended, failed := contract.Record{}, contract.Record{ExitCode: 3}
	skipped := func(why string) contract.Record { return contract.Record{Reason: contract.ReasonSkipped, Message: why} }
	tests := map[string]struct {
		contents files
		record   contract.Record
		edit     func(*contract.AgentFlags)
		opens    bool
		want     contract.Record // if the step is skipped
	}{
		"released by both":                         {contents: order("3"), record: ended, opens: true},
		"released by the record, without an order": {contents: files{contract.HaltFile: ""}, record: ended, opens: true},
		"released by the record, with a bad order": {contents: order("x"), record: ended, opens: true},
		"released by the record, and halted":       {contents: halted("1", "stop"), record: ended, want: skipped("stop")},
		"released, whatever the record claims":     {contents: order("3"), record: failed, opens: true},
		"released, though the record says skipped": {contents: order("3"), record: skipped("why"), opens: true},
		"skipped by both":                          {contents: halted("1", "stop"), record: failed, want: skipped("stop")},
		"only the controller releases":             {contents: order("3"), record: failed, edit: func(f *contract.AgentFlags) { f.ControllerOnly = true }, opens: true},
		"no run directory":                         {contents: order("3"), record: failed, edit: func(f *contract.AgentFlags) { f.Run = "" }, opens: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(tc.contents)
			writeRecord(t, runDir, 2, tc.record)
			flags := info.sharing(runDir, 3)
			if tc.edit != nil {
				tc.edit(&flags)
			}
			want := result{}
			if tc.opens {
				want = ran
			}
			if diff := cmp.Diff(want, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}

	for name, edit := range map[string]func(*contract.AgentFlags){
		"only the controller releases, later": func(f *contract.AgentFlags) { f.ControllerOnly = true },
		"no run directory, later":             func(f *contract.AgentFlags) { f.Run = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(order("2"))
			writeRecord(t, runDir, 2, ended)
			flags := late(info.sharing(runDir, 3))
			edit(&flags)
			p := container{args: flags.Args()}.start(t)
			info.awaitRejection()
			info.write(order("3"))
			if diff := cmp.Diff(result{Stdout: "3"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Hand-off and the controller release steps at the same time. This controller follows the records, as the real one follows the containers, so it
// is sometimes before the hand-off and sometimes after it. Each step runs once, in order, and none after a failure.
func TestHandOffRacesTheController(t *testing.T) {
	const steps = 20
	for name, failing := range map[string]int{"all succeed": steps + 1, "step 12 fails": 12, "the first step fails": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, steps)
			info.write(order("0"))
			journal := filepath.Join(t.TempDir(), "journal")
			var waiting []*process
			for n := 1; n <= steps; n++ {
				flags, code := info.sharing(runDir, n), 0
				if n == failing {
					code = 3
				}
				flags.Command = shell(fmt.Sprintf("echo begin %d >>%s; echo end %[1]d >>%[2]s; exit %d", n, journal, code))
				waiting = append(waiting, container{args: flags.Args()}.start(t))
			}

			released := 0
			eventually(t, "all steps end", func() bool {
				records := 0
				for records < steps && exists(recordPath(runDir, records+1)) {
					records++
				}
				switch {
				case records >= failing && released < failing+1:
					released = failing + 1 // written once
					info.write(halted(strconv.Itoa(failing), "the controller has seen it"))
				case records < failing && released < records+1:
					released = records + 1
					info.write(order(strconv.Itoa(released)))
				}
				return records == steps
			})

			var want strings.Builder
			for n := 1; n <= min(failing, steps); n++ {
				fmt.Fprintf(&want, "begin %d\nend %[1]d\n", n)
			}
			if diff := cmp.Diff(want.String(), readFile(t, journal)); diff != "" {
				t.Errorf("journal: -want +got:\n%s", diff)
			}
			for i, p := range waiting {
				want := result{}
				if i+1 == failing {
					want.Code = 3
				}
				if diff := cmp.Diff(want, p.wait()); diff != "" {
					t.Errorf("step %d: -want +got:\n%s", i+1, diff)
				}
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// After a failure, all waiting steps end when the controller halts the sequence, with its reason.
func TestHaltReachesAllSteps(t *testing.T) {
	t.Parallel()
	const steps = 5
	info, runDir := newPodinfo(t), newRunDir(t, steps)
	info.write(order("1"))
	processes := map[int]*process{}
	var flags []contract.AgentFlags
	for n := 2; n <= steps; n++ {
		flags = append(flags, info.sharing(runDir, n))
		processes[n] = container{args: flags[n-2].Args()}.start(t)
	}
	first := info.sharing(runDir, 1)
	first.Command = shell("exit 42")
	if diff := cmp.Diff(result{Code: 42}, container{args: first.Args()}.run(t)); diff != "" {
		t.Errorf("step 1: -want +got:\n%s", diff)
	}
	const why = "step \"a\" failed with exit code 42"
	info.write(halted("1", why))
	want := contract.Record{Reason: contract.ReasonSkipped, Message: why}
	for n, p := range processes {
		if diff := cmp.Diff(result{}, p.wait()); diff != "" {
			t.Errorf("step %d: -want +got:\n%s", n, diff)
		}
		if diff := cmp.Diff(want, readRecord(t, flags[n-2]), ignoreTimes); diff != "" {
			t.Errorf("record of step %d: -want +got:\n%s", n, diff)
		}
	}
}

// While the kubelet restarts a failed step, the next ones wait, whatever its record. They run when it succeeds.
func TestHandOffAfterARestart(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	second := info.sharing(runDir, 2)
	second.RestartsOnFailure, second.AfterFailure = true, contract.AfterFailureWait
	runs := filepath.Join(t.TempDir(), "runs")
	second.Command = []string{"cat", runs}
	p := container{args: second.Args()}.start(t)
	for code := 3; code >= 0; code-- {
		first := info.sharing(runDir, 1)
		first.RestartsOnFailure = true
		first.Command = shell(fmt.Sprintf("printf %d >>%s; exit %d", code, runs, code))
		if diff := cmp.Diff(result{Code: code}, container{args: first.Args()}.run(t)); diff != "" {
			t.Errorf("step 1: -want +got:\n%s", diff)
		}
		if code > 0 {
			info.awaitRejection()
			info.write(order("1"))
		}
	}
	if diff := cmp.Diff(result{Stdout: "3210"}, p.wait()); diff != "" {
		t.Errorf("step 2: -want +got:\n%s", diff)
	}
}

// Steps do not overlap: the processes that a step left behind have ended when the next step starts.
func TestHandOffAfterLeftovers(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			// The process that has the lock is alive. The next step can only get the lock when it has ended.
			lock := writeFile(t, filepath.Join(t.TempDir(), "lock"), "")
			second := info.sharing(runDir, 2)
			second.Command = []string{"flock", "--nonblock", lock, "echo", "ran"}
			p := container{args: second.Args(), clone: clone}.start(t)
			first := info.sharing(runDir, 1)
			first.Command = append(shell(`mkfifo "$2"; exec 3<>"$2"; flock "$1" sh -c 'trap "" TERM; echo >&3; exec sleep 100' & read line <&3`), "sh", lock, lock+".ready")
			if diff := cmp.Diff(result{}, container{args: first.Args(), clone: clone}.run(t)); diff != "" {
				t.Errorf("step 1: -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(ran, p.wait()); diff != "" {
				t.Errorf("step 2: -want +got:\n%s", diff)
			}
		})
	}
}

// The kubelet creates the directory of a step with its container, which may start after the next step's container.
func TestHandOffFromAStepThatStartsLater(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 0)
	info.write(order("1"))
	makeStepDir(t, runDir, 2)
	p := container{args: info.sharing(runDir, 2).Args()}.start(t)
	info.awaitRejection()
	makeStepDir(t, runDir, 1)
	info.awaitRejection()
	writeRecord(t, runDir, 1, contract.Record{})
	if diff := cmp.Diff(ran, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Without inotify, the agent polls for the record.
func TestHandOffWithoutInotify(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	p := container{program: agentNoInotifyName, clone: unix.CLONE_NEWUSER, args: info.sharing(runDir, 2).Args()}.start(t)
	info.awaitRejection()
	if diff := cmp.Diff(ran, container{args: info.sharing(runDir, 1).Args()}.run(t)); diff != "" {
		t.Errorf("step 1: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(ran, p.wait()); diff != "" {
		t.Errorf("step 2: -want +got:\n%s", diff)
	}
}

// The container of a step that releases the next one ends after a delay, so that its cleanup does not slow down the next command's start.
func TestYieldToNext(t *testing.T) {
	t.Parallel()
	const headStart = 20 * time.Millisecond
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	if diff := cmp.Diff(ran, container{args: info.sharing(runDir, 1).Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after := time.Since(recordOf(t, runDir, 1).FinishedAt); after < headStart {
		t.Errorf("the container ended %s after the command, want at least %s", after, headStart)
	}
}
