//go:build linux

package agent_test

import (
	"errors"
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
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// newRunDir is a run directory with the directories of n steps, as the kubelet makes them.
func newRunDir(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for step := 1; step <= n; step++ {
		makeStepDir(t, dir, step)
	}
	return dir
}

func makeStepDir(t *testing.T, runDir string, step int) {
	t.Helper()
	must(t, os.Mkdir(contract.StepDir(runDir, step), 0o777))
}

// sharing is step n of a Pod with that run directory.
func (p *podinfo) sharing(runDir string, n int) contract.AgentFlags {
	p.t.Helper()
	flags := p.step(n)
	flags.Run = runDir
	return flags
}

// writeRecord leaves a record as an agent does.
func writeRecord(t *testing.T, runDir string, step int, record contract.Record) {
	t.Helper()
	record.FinishedAt = time.Now()
	temp := writeFile(t, filepath.Join(contract.StepDir(runDir, step), ".record"), record.Marshal())
	must(t, os.Rename(temp, recordPath(runDir, step)))
}

func recordPath(runDir string, step int) string {
	return filepath.Join(contract.StepDir(runDir, step), contract.RecordFile)
}

// recordOf is what step n has left in the run directory.
func recordOf(t *testing.T, runDir string, step int) contract.Record {
	t.Helper()
	content := readFile(t, recordPath(runDir, step))
	record, ok := contract.ParseRecord(content)
	if !ok {
		t.Fatalf("step %d has left no record, but %q", step, content)
	}
	return record
}

// Each step is released by the one before it, without anybody from outside: the order stays at 1. An agent that is not woken, but
// looks now and then, would need more time for all of them than the test has.
func TestHandOff(t *testing.T) {
	const steps = 20
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, steps)
			info.write(order("1"))
			journal := filepath.Join(t.TempDir(), "journal")
			var waiting []*process
			for n := steps; n >= 1; n-- { // the first one comes when all others wait
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
				t.Errorf("the steps ran in this order: -want +got:\n%s", diff)
			}
		})
	}
}

// What the record of the step before says, and whether it releases the next one. One that doesn't leaves it to the controller, whatever it
// claims: it may be the step's own work.
func TestHandOffByTheRecord(t *testing.T) {
	const stop, goOn, wait = contract.AfterFailureStop, contract.AfterFailureContinue, contract.AfterFailureWait
	failed := contract.Record{ExitCode: 3}
	tests := map[string]struct {
		record contract.Record
		after  string
		opens  bool
	}{
		"ended well":                               {contract.Record{}, stop, true},
		"ended well, and might have failed":        {contract.Record{}, goOn, true},
		"ended well, and might be run again":       {contract.Record{}, wait, true},
		"ended well after retries":                 {contract.Record{Retries: 2}, stop, true},
		"failed":                                   {failed, stop, false},
		"failed, and may":                          {failed, goOn, true},
		"failed, and is run again":                 {failed, wait, false},
		"timed out":                                {contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}, stop, false},
		"timed out, and may":                       {contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}, goOn, true},
		"not started, and may fail":                {contract.Record{ExitCode: 127, Reason: contract.ReasonStartError}, goOn, true},
		"cancelled":                                {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, stop, false},
		"cancelled, and may fail":                  {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, goOn, false},
		"told to stop":                             {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, stop, false},
		"told to stop, and may fail":               {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, goOn, false},
		"told to stop, and is run again":           {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, wait, false},
		"was stopped, and ended well":              {contract.Record{Reason: contract.ReasonStopped}, stop, false},
		"was stopped, and failed, and may":         {contract.Record{ExitCode: 143, Reason: contract.ReasonStopped}, goOn, false},
		"was stopped, and is run again":            {contract.Record{ExitCode: 143, Reason: contract.ReasonStopped}, wait, false},
		"got a signal, and ended well":             {contract.Record{Reason: contract.ReasonSignaled}, stop, false},
		"got a signal, and failed, and may":        {contract.Record{ExitCode: 138, Reason: contract.ReasonSignaled}, goOn, false},
		"skipped":                                  {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, stop, false},
		"skipped, and might have failed":           {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, goOn, false},
		"skipped, and would have been run again":   {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, wait, false},
		"of a later release, with another reason":  {contract.Record{Reason: "Cached"}, stop, true},
		"of a later release, with another failure": {contract.Record{ExitCode: 3, Reason: "Preempted"}, stop, false},
	}
	for _, there := range []string{"before", "while the step waits"} {
		for name, tc := range tests {
			t.Run(there+"/"+name, func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 3)
				info.write(order("1"))
				flags := late(info.sharing(runDir, 3))
				flags.AfterFailure = tc.after
				if there == "before" {
					writeRecord(t, runDir, 2, tc.record)
				}
				p := container{args: flags.Args()}.start(t)
				if there != "before" {
					info.awaitRejection()
					writeRecord(t, runDir, 2, tc.record)
				}
				want := result{Stdout: "1"}
				if !tc.opens {
					info.write(order("2"))
					info.awaitRejection()
					info.write(order("3"))
					want.Stdout = "3"
				}
				if diff := cmp.Diff(want, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				for of, got := range map[string]contract.Record{"message": readRecord(t, flags), "run directory": recordOf(t, runDir, 3)} {
					if diff := cmp.Diff(contract.Record{}, got, ignoreTimes); diff != "" {
						t.Errorf("record in the %s: -want +got:\n%s", of, diff)
					}
				}
			})
		}
	}
}

// The controller's word counts for more than a record. A step whose Pod keeps to the annotation sees no records, and one
// of an earlier release has no run directory.
func TestHandOffAndTheOtherWay(t *testing.T) {
	ended, failed := contract.Record{}, contract.Record{ExitCode: 3}
	skipped := func(why string) contract.Record { return contract.Record{Reason: contract.ReasonSkipped, Message: why} }
	tests := map[string]struct {
		contents files
		record   contract.Record
		edit     func(*contract.AgentFlags)
		opens    bool
		want     contract.Record // where the gate has closed
	}{
		"released by both":                         {contents: order("3"), record: ended, opens: true},
		"released by the record, without an order": {contents: files{contract.HaltFile: ""}, record: ended, opens: true},
		"released by the record, with a bad order": {contents: order("x"), record: ended, opens: true},
		"released by the record, and halted":       {contents: halted("1", "stop"), record: ended, want: skipped("stop")},
		"released, whatever the record claims":     {contents: order("3"), record: failed, opens: true},
		"released, though the record says skipped": {contents: order("3"), record: skipped("why"), opens: true},
		"closed by both":                           {contents: halted("1", "stop"), record: failed, want: skipped("stop")},
		"the controller alone releases":            {contents: order("3"), record: failed, edit: func(f *contract.AgentFlags) { f.ControllerOnly = true }, opens: true},
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
		"the controller alone holds back": func(f *contract.AgentFlags) { f.ControllerOnly = true },
		"no run directory holds back":     func(f *contract.AgentFlags) { f.Run = "" },
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

// PEERS row 13. What a step's command leaves in its directory may be anything. What is no record opens no gate, closes none, and
// doesn't make the next step's agent hang; and only the step right before it releases a step.
func TestWhatIsNoRecord(t *testing.T) {
	const good = `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}}`
	tests := map[string]func(t *testing.T, runDir, record string){
		"nothing":      func(*testing.T, string, string) {},
		"an empty one": func(t *testing.T, _, record string) { writeFile(t, record, "") },
		"text":         func(t *testing.T, _, record string) { writeFile(t, record, "done") },
		"half of one":  func(t *testing.T, _, record string) { writeFile(t, record, good[:len(good)/2]) },
		"one that is too long": func(t *testing.T, _, record string) {
			writeFile(t, record, good+strings.Repeat(" ", 1<<20))
		},
		"one that nobody may read": func(t *testing.T, _, record string) { must(t, os.Mkdir(record, 0)) },
		"a directory":              func(t *testing.T, _, record string) { must(t, os.Mkdir(record, 0o755)) },
		"a FIFO":                   func(t *testing.T, _, record string) { must(t, unix.Mkfifo(record, 0o644)) },
		"a link to the end of another step": func(t *testing.T, runDir, record string) {
			writeRecord(t, runDir, 1, contract.Record{})
			must(t, os.Symlink(recordPath(runDir, 1), record))
		},
		"a device that never ends": func(t *testing.T, _, record string) { must(t, os.Symlink("/dev/zero", record)) },
		"under another name": func(t *testing.T, _, record string) {
			writeFile(t, filepath.Join(filepath.Dir(record), "record.json"), good)
		},
		"of the step before that": func(t *testing.T, runDir, _ string) { writeRecord(t, runDir, 1, contract.Record{}) },
		"of a step that comes later": func(t *testing.T, runDir, _ string) {
			makeStepDir(t, runDir, 4)
			writeRecord(t, runDir, 4, contract.Record{})
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(order("1"))
			prepare(t, runDir, recordPath(runDir, 2))
			p := container{args: late(info.sharing(runDir, 3)).Args()}.start(t)
			info.awaitRejection()
			info.write(order("3"))
			if diff := cmp.Diff(result{Stdout: "3"}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The container of a step that has released another one ends later than its record says, so that its cleaning up isn't in the way.
func TestGiveWay(t *testing.T) {
	t.Parallel()
	const headStart = 20 * time.Millisecond
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	if diff := cmp.Diff(ran, container{args: info.sharing(runDir, 1).Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after := time.Since(recordOf(t, runDir, 1).FinishedAt); after < headStart {
		t.Errorf("the container has ended %s after the command, want %s at least", after, headStart)
	}
}

// The kubelet makes the directory of a step with its container, which may be after that of the next one.
func TestHandOffFromAStepThatComesLater(t *testing.T) {
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

// PEERS row 3. Where inotify is not to be had, records are polled for.
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

// Both ways at once: a controller that follows the records, as the real one follows the containers, is now before the local hand-off and
// now behind it. Each step runs once, in its turn, and none after one that has failed.
func TestHandOffBesideTheOtherWay(t *testing.T) {
	const steps = 20
	for name, failing := range map[string]int{"all end well": steps + 1, "step 12 fails": 12, "the first step fails": 1} {
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
				t.Errorf("what ran: -want +got:\n%s", diff)
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

// A step that fails ends all that wait, once the controller has said so, and all of them give its reason.
func TestFailureReachesAllSteps(t *testing.T) {
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

// A failed step that the kubelet starts again keeps the next ones waiting, with the record of its failure beside it; they run when
// it has ended well.
func TestHandOffAfterARestart(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	second := info.sharing(runDir, 2)
	second.RestartsOnFailure, second.AfterFailure = true, contract.AfterFailureWait
	tries := filepath.Join(t.TempDir(), "tries")
	second.Command = []string{"cat", tries}
	p := container{args: second.Args()}.start(t)
	for code := 3; code >= 0; code-- {
		first := info.sharing(runDir, 1)
		first.RestartsOnFailure = true
		first.Command = shell(fmt.Sprintf("printf %d >>%s; exit %d", code, tries, code))
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

// Nothing of a step overlaps the next one, by this way either: what it leaves running is gone when the next one starts.
func TestHandOffAfterLeftovers(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			// Who has the lock is alive; the next step can't have it before.
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

// The record in the run directory is there whatever becomes of the termination message, for steps that other users run, and beside nothing but the
// mark of the start.
func TestRecordInTheRunDirectory(t *testing.T) {
	t.Parallel()
	runDir := newRunDir(t, 1)
	flags := released(t, "sh", "-c", `umask 077; printf mine >"$0"; exit 42`)
	flags.Command = append(flags.Command, flags.TerminationLog)
	flags.Run, flags.FallbackToLogs = runDir, true
	// The umask is set before the agent starts.
	args := append([]string{"-c", `umask 077; exec "$@"`, "sh", filepath.Join(programs, agentName)}, flags.Args()...)
	if diff := cmp.Diff(result{Code: 42}, container{program: "/bin/sh", args: args}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	record := recordOf(t, runDir, 1)
	if diff := cmp.Diff(contract.Record{ExitCode: 42}, record, ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
	if record.StartedAt == nil || record.FinishedAt.Before(*record.StartedAt) {
		t.Errorf("the step ran from %v to %v", record.StartedAt, record.FinishedAt)
	}
	info, err := os.Stat(recordPath(runDir, 1))
	must(t, err)
	if diff := cmp.Diff(os.FileMode(0o444), info.Mode()); diff != "" {
		t.Errorf("mode: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"record ----------", "started ----------"}, list(t, contract.StepDir(runDir, 1))); diff != "" {
		t.Errorf("files: -want +got:\n%s", diff)
	}
}

// Where the record has no place, the step's result is what it is, and the order will tell the others.
func TestRecordWithoutARunDirectory(t *testing.T) {
	tests := map[string]func(t *testing.T, runDir string){
		"no run directory":         func(t *testing.T, runDir string) { must(t, os.RemoveAll(runDir)) },
		"no directory of the step": func(t *testing.T, runDir string) { must(t, os.Remove(contract.StepDir(runDir, 1))) },
		"a file instead": func(t *testing.T, runDir string) {
			must(t, os.Remove(contract.StepDir(runDir, 1)))
			writeFile(t, contract.StepDir(runDir, 1), "")
		},
		"a directory as the record": func(t *testing.T, runDir string) { must(t, os.MkdirAll(recordPath(runDir, 1)+"/sub", 0o755)) },
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runDir := newRunDir(t, 1)
			prepare(t, runDir)
			flags := released(t, shell("exit 42")...)
			flags.Run = runDir
			if diff := cmp.Diff(result{Code: 42}, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(contract.Record{ExitCode: 42}, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
			if stat, err := os.Stat(contract.StepDir(runDir, 1)); err == nil && stat.IsDir() {
				entries := list(t, filepath.Dir(recordPath(runDir, 1)))
				if slices.ContainsFunc(entries, func(entry string) bool { return strings.HasPrefix(entry, ".") }) {
					t.Errorf("a temporary file is left: %q", entries)
				}
			}
		})
	}
}

// PEERS row 4. A kubelet that has lost sight of a container starts another one. A step that has ended is not run again, and ends as
// it did, at once; but OnFailure means a step that has failed to be run again.
func TestStepThatHasEndedIsNotRunAgain(t *testing.T) {
	tests := map[string]struct {
		before contract.Record
		again  bool
		runs   bool
	}{
		"ended well":                 {before: contract.Record{}},
		"ended well, OnFailure":      {before: contract.Record{}, again: true},
		"failed":                     {before: contract.Record{ExitCode: 42}},
		"failed, OnFailure":          {before: contract.Record{ExitCode: 42}, again: true, runs: true},
		"timed out":                  {before: contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut, Message: "took longer"}},
		"skipped":                    {before: contract.Record{Reason: contract.ReasonSkipped, Message: "why"}},
		"skipped, OnFailure":         {before: contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, again: true},
		"told to stop":               {before: contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}},
		"told to stop, OnFailure":    {before: contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, again: true, runs: true},
		"ended well, with the retry": {before: contract.Record{Retries: 2}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("2"))
			writeRecord(t, runDir, 2, tc.before)
			flags := info.sharing(runDir, 2)
			flags.RestartsOnFailure = tc.again
			if !tc.runs {
				info.write(files{}) // and it doesn't matter what is released
			}
			got := container{args: flags.Args()}.run(t)
			if tc.runs {
				if diff := cmp.Diff(ran, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(contract.Record{}, recordOf(t, runDir, 2), ignoreTimes); diff != "" {
					t.Errorf("record in the run directory: -want +got:\n%s", diff)
				}
				return
			}
			said := fmt.Sprintf("agent: the step ended at %s with exit code %d, and is not run again\n",
				recordOf(t, runDir, 2).FinishedAt.Format(time.RFC3339), tc.before.ExitCode)
			if diff := cmp.Diff(result{Code: tc.before.ExitCode, Stderr: said}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for of, got := range map[string]contract.Record{"message": readRecord(t, flags), "run directory": recordOf(t, runDir, 2)} {
				if diff := cmp.Diff(tc.before, got, ignoreTimes); diff != "" {
					t.Errorf("record in the %s: -want +got:\n%s", of, diff)
				}
			}
		})
	}
}

// A step whose agent was killed in the middle has left no record: it is run again, since nobody knows how far it came.
func TestStepThatWasKilledIsRunAgain(t *testing.T) {
	t.Parallel()
	input, _ := pipe(t)
	info, runDir := newPodinfo(t), newRunDir(t, 1)
	info.write(order("1"))
	flags := info.sharing(runDir, 1)
	flags.Command = shell("echo ready; read line")
	p := container{args: flags.Args(), clone: unix.CLONE_NEWPID, edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	p.awaitOutput("ready")
	p.signal(unix.SIGKILL)
	p.wait()
	// Or right before its record was published.
	unpublished := writeFile(t, filepath.Join(contract.StepDir(runDir, 1), ".record"), "a part")
	must(t, os.Chmod(unpublished, 0o444))
	flags.Command = shell("echo ran")
	if diff := cmp.Diff(ran, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(contract.Record{}, recordOf(t, runDir, 1), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
	if _, err := os.Lstat(unpublished); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was to become the record is still there (%v)", err)
	}
}

// PEERS row 28. The startupProbe sees the same gate as the step.
func TestStartedByTheRecord(t *testing.T) {
	waits := result{Code: 1, Stderr: "agent: the step still waits for its turn\n"}
	tests := map[string]struct {
		record *contract.Record
		edit   func(*contract.AgentFlags)
		want   result
	}{
		"no record":                      {nil, nil, waits},
		"ended well":                     {&contract.Record{}, nil, result{}},
		"failed":                         {&contract.Record{ExitCode: 3}, nil, waits},
		"failed, and may":                {&contract.Record{ExitCode: 3}, func(f *contract.AgentFlags) { f.AfterFailure = contract.AfterFailureContinue }, result{}},
		"skipped":                        {&contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, nil, waits},
		"the controller alone releases":  {&contract.Record{}, func(f *contract.AgentFlags) { f.ControllerOnly = true }, waits},
		"a step of an earlier release's": {&contract.Record{}, func(f *contract.AgentFlags) { f.Run = "" }, waits},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			if tc.record != nil {
				writeRecord(t, runDir, 1, *tc.record)
			}
			flags := info.sharing(runDir, 2)
			if tc.edit != nil {
				tc.edit(&flags)
			}
			if diff := cmp.Diff(tc.want, container{args: flags.StartedArgs(nil)}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
