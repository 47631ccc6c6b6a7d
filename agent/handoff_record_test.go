//go:build linux

package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A record releases the next step, or leaves the decision to the controller. It never skips the next step, because the step's command may have
// forged it.
func TestHandOffByTheRecord(t *testing.T) {
	const stop, goOn, wait = contract.AfterFailureStop, contract.AfterFailureContinue, contract.AfterFailureWait
	failed := contract.Record{ExitCode: 3}
	tests := map[string]struct {
		record contract.Record
		after  string
		opens  bool
	}{
		"succeeded":                             {contract.Record{}, stop, true},
		"succeeded, Continue":                   {contract.Record{}, goOn, true},
		"succeeded, restarts":                   {contract.Record{}, wait, true},
		"succeeded after retries":               {contract.Record{Retries: 2}, stop, true},
		"failed":                                {failed, stop, false},
		"failed, Continue":                      {failed, goOn, true},
		"failed, restarts":                      {failed, wait, false},
		"timed out":                             {contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}, stop, false},
		"timed out, Continue":                   {contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}, goOn, true},
		"not started, Continue":                 {contract.Record{ExitCode: 127, Reason: contract.ReasonStartError}, goOn, true},
		"cancelled":                             {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, stop, false},
		"cancelled, Continue":                   {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, goOn, false},
		"terminated":                            {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, stop, false},
		"terminated, Continue":                  {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, goOn, false},
		"terminated, restarts":                  {contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated}, wait, false},
		"stopped, exit code 0":                  {contract.Record{Reason: contract.ReasonStopped}, stop, false},
		"stopped, Continue":                     {contract.Record{ExitCode: 143, Reason: contract.ReasonStopped}, goOn, false},
		"stopped, restarts":                     {contract.Record{ExitCode: 143, Reason: contract.ReasonStopped}, wait, false},
		"signaled, exit code 0":                 {contract.Record{Reason: contract.ReasonSignaled}, stop, false},
		"signaled, Continue":                    {contract.Record{ExitCode: 138, Reason: contract.ReasonSignaled}, goOn, false},
		"skipped":                               {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, stop, false},
		"skipped, Continue":                     {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, goOn, false},
		"skipped, restarts":                     {contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, wait, false},
		"an unknown reason of a later release":  {contract.Record{Reason: "Cached"}, stop, true},
		"an unknown failure of a later release": {contract.Record{ExitCode: 3, Reason: "Preempted"}, stop, false},
	}
	for _, when := range []string{"before the step waits", "while the step waits"} {
		for name, tc := range tests {
			t.Run(when+"/"+name, func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 3)
				info.write(order("1"))
				flags := late(info.sharing(runDir, 3))
				flags.AfterFailure = tc.after
				if when == "before the step waits" {
					writeRecord(t, runDir, 2, tc.record)
				}
				p := container{args: flags.Args()}.start(t)
				if when == "while the step waits" {
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
				checkRecords(t, contract.Record{}, flags)
			})
		}
	}
}

// A command may leave anything in the directory of its step. If it is not a record, it neither releases nor skips the next step, nor blocks its
// agent. Only the record of the predecessor counts.
func TestInvalidRecords(t *testing.T) {
	const good = `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}}`
	tests := map[string]func(t *testing.T, runDir, record string){
		"nothing":       func(*testing.T, string, string) {},
		"empty":         func(t *testing.T, _, record string) { writeFile(t, record, "") },
		"text":          func(t *testing.T, _, record string) { writeFile(t, record, "done") },
		"half a record": func(t *testing.T, _, record string) { writeFile(t, record, good[:len(good)/2]) },
		"a record that is too long": func(t *testing.T, _, record string) {
			writeFile(t, record, good+strings.Repeat(" ", 1<<20))
		},
		"a directory without permissions": func(t *testing.T, _, record string) { must(t, os.Mkdir(record, 0)) },
		"a directory":                     func(t *testing.T, _, record string) { must(t, os.Mkdir(record, 0o755)) },
		"a FIFO":                          func(t *testing.T, _, record string) { must(t, unix.Mkfifo(record, 0o644)) },
		"a link to another record": func(t *testing.T, runDir, record string) {
			writeRecord(t, runDir, 1, contract.Record{})
			must(t, os.Symlink(recordPath(runDir, 1), record))
		},
		"an endless device": func(t *testing.T, _, record string) { must(t, os.Symlink("/dev/zero", record)) },
		"a record with another name": func(t *testing.T, _, record string) {
			writeFile(t, filepath.Join(filepath.Dir(record), "record.json"), good)
		},
		"a record of an earlier step": func(t *testing.T, runDir, _ string) { writeRecord(t, runDir, 1, contract.Record{}) },
		"a record of a later step": func(t *testing.T, runDir, _ string) {
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

// The startupProbe decides by the record like the step.
func TestStartedByTheRecord(t *testing.T) {
	waits := result{Code: 1, Stderr: "agent: the step is not released yet\n"}
	tests := map[string]struct {
		record *contract.Record
		edit   func(*contract.AgentFlags)
		want   result
	}{
		"no record":                    {nil, nil, waits},
		"succeeded":                    {&contract.Record{}, nil, result{}},
		"failed":                       {&contract.Record{ExitCode: 3}, nil, waits},
		"failed, Continue":             {&contract.Record{ExitCode: 3}, func(f *contract.AgentFlags) { f.AfterFailure = contract.AfterFailureContinue }, result{}},
		"skipped":                      {&contract.Record{Reason: contract.ReasonSkipped, Message: "why"}, nil, waits},
		"only the controller releases": {&contract.Record{}, func(f *contract.AgentFlags) { f.ControllerOnly = true }, waits},
		"no run directory":             {&contract.Record{}, func(f *contract.AgentFlags) { f.Run = "" }, waits},
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
