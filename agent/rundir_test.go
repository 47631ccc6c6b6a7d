//go:build linux

package agent_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// newRunDir returns a run directory with the directories of n steps, as the kubelet creates them.
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

// sharing returns the flags of step n of a Pod with the run directory.
func (p *podinfo) sharing(runDir string, n int) contract.AgentFlags {
	p.t.Helper()
	flags := p.step(n)
	flags.Run = runDir
	return flags
}

// writeRecord writes a record like an agent.
func writeRecord(t *testing.T, runDir string, step int, record contract.Record) {
	t.Helper()
	record.FinishedAt = time.Now()
	temp := writeFile(t, filepath.Join(contract.StepDir(runDir, step), ".record"), record.Marshal())
	must(t, os.Rename(temp, recordPath(runDir, step)))
}

func recordPath(runDir string, step int) string {
	return filepath.Join(contract.StepDir(runDir, step), contract.RecordFile)
}

// recordOf returns the record of step n in the run directory.
func recordOf(t *testing.T, runDir string, step int) contract.Record {
	t.Helper()
	content := readFile(t, recordPath(runDir, step))
	record, ok := contract.ParseRecord(content)
	if !ok {
		t.Fatalf("step %d has written %q, want a record", step, content)
	}
	return record
}

// checkRecords compares the record of a step with those in its termination message and in the run directory.
func checkRecords(t *testing.T, want contract.Record, flags contract.AgentFlags) {
	t.Helper()
	if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
		t.Errorf("record in the termination message: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(want, recordOf(t, flags.Run, flags.WaitContent), ignoreTimes); diff != "" {
		t.Errorf("record in the run directory: -want +got:\n%s", diff)
	}
}

// The agent writes the record to the run directory even if the command has left a termination message. Other users can read it. Besides it there is
// only the mark of the start.
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

// If the record can't be written to the run directory, the result of the step is still the command's. The order releases the next step.
func TestUnwritableRunDirectory(t *testing.T) {
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

// A kubelet that loses a container starts another one. A step that has ended does not run again: its container ends immediately, with the same
// result. With restartPolicy OnFailure, a step that failed runs again.
func TestEndedStepIsNotRunAgain(t *testing.T) {
	tests := map[string]struct {
		before    contract.Record
		onFailure bool
		runs      bool
	}{
		"succeeded":               {before: contract.Record{}},
		"succeeded, OnFailure":    {before: contract.Record{}, onFailure: true},
		"failed":                  {before: contract.Record{ExitCode: 42}},
		"failed, OnFailure":       {before: contract.Record{ExitCode: 42}, onFailure: true, runs: true},
		"timed out":               {before: contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut, Message: "took longer"}},
		"skipped":                 {before: contract.Record{Reason: contract.ReasonSkipped, Message: "why"}},
		"skipped, OnFailure":      {before: contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, onFailure: true},
		"terminated":              {before: contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}},
		"terminated, OnFailure":   {before: contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, onFailure: true, runs: true},
		"a condition, forged":     {before: contract.Record{Reason: contract.ReasonWhenFalse}, runs: true},
		"succeeded after retries": {before: contract.Record{Retries: 2}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("2"))
			writeRecord(t, runDir, 2, tc.before)
			flags := info.sharing(runDir, 2)
			flags.RestartsOnFailure = tc.onFailure
			if !tc.runs {
				info.write(files{}) // the order does not matter
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
			checkRecords(t, tc.before, flags)
		})
	}
}

// A step whose agent was killed has no record. It runs again, because its result is unknown.
func TestKilledStepIsRunAgain(t *testing.T) {
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
	// This is the state if the agent is killed while it writes the record.
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
		t.Errorf("the temporary file still exists (%v)", err)
	}
}
