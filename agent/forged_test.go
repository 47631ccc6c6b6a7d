//go:build linux

package agent_test

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A command can write a record as its termination message, which the controllers would believe. What the kubelet reads in the end is the agent's
// record, or nothing if the kubelet is to take the log.
func TestForgedTerminationMessage(t *testing.T) {
	t.Parallel()
	succeeded, failed := &contract.Record{}, &contract.Record{ExitCode: 1}
	tests := map[string]struct {
		script   string // with the path in LOG and a record in RECORD
		fallback bool
		want     *contract.Record // nil: an empty file
	}{
		"success":                    {script: `printf %s "$RECORD" >"$LOG"`, want: succeeded},
		"failure":                    {script: `printf %s "$RECORD" >"$LOG"; exit 1`, want: failed},
		"cut":                        {script: `printf %.30s "$RECORD" >"$LOG"`, want: succeeded},
		"behind white space":         {script: `printf ' \n\t%s' "$RECORD" >"$LOG"`, want: succeeded},
		"the last 4096 bytes":        {script: `printf %9999s%-4096s "" "$RECORD" >"$LOG"`, want: succeeded},
		"in a huge file":             {script: `truncate -s 4T "$LOG"; printf %-4096s "$RECORD" >>"$LOG"`, want: succeeded},
		"by a link":                  {script: `ln -s "$LOG" link; printf %s "$RECORD" >link`, want: succeeded},
		"the path leads elsewhere":   {script: `printf %s "$RECORD" >"$LOG"; mv "$LOG" moved; ln -s nowhere "$LOG"`, want: succeeded},
		"a FIFO at the path":         {script: `printf %s "$RECORD" >"$LOG"; mv "$LOG" moved; mkfifo "$LOG"`, want: succeeded},
		"then read-only":             {script: `printf %s "$RECORD" >"$LOG"; chmod 400 "$LOG"`, want: succeeded},
		"by a process left behind":   {script: `(trap "" TERM HUP; while :; do printf %s "$RECORD" >"$LOG"; done) & until [ -s "$LOG" ]; do :; done`, want: succeeded},
		"after a signal":             {script: `printf %s "$RECORD" >"$LOG"; kill -9 $$`, want: &contract.Record{ExitCode: 137}},
		"log, success":               {script: `printf %s "$RECORD" >"$LOG"`, fallback: true, want: succeeded},
		"log, failure":               {script: `printf %s "$RECORD" >"$LOG"; exit 1`, fallback: true},
		"log, failure, huge":         {script: `truncate -s 4T "$LOG"; printf %-4096s "$RECORD" >>"$LOG"; exit 1`, fallback: true},
		"log, failure, elsewhere":    {script: `printf %s "$RECORD" >"$LOG"; mv "$LOG" moved; exit 1`, fallback: true},
		"log, failure, left process": {script: `(while :; do printf %s "$RECORD" >"$LOG"; done) & until [ -s "$LOG" ]; do :; done; exit 1`, fallback: true},
	}
	for name, tc := range tests {
		for placement, clone := range placements {
			t.Run(name+", "+placement, func(t *testing.T) {
				t.Parallel()
				flags := released(t)
				flags.FallbackToLogs, flags.WorkDir = tc.fallback, t.TempDir()
				flags.Command = append(shell("LOG=$1; RECORD=$2; "+tc.script), "sh", flags.TerminationLog, forgedRecord())
				message := openMessage(t, flags)
				container{clone: clone, args: flags.Args()}.run(t)
				checkMessage(t, message, tc.want)
			})
		}
	}
}

// A probe, for example, can write to the file while the step waits.
func TestForgedTerminationMessageOfAWaitingStep(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit func(*podinfo, *contract.AgentFlags)
		want *contract.Record
	}{
		"skipped": {
			func(info *podinfo, _ *contract.AgentFlags) { info.write(halted("0", "step 1 failed")) },
			&contract.Record{Reason: contract.ReasonSkipped, Message: "step 1 failed"},
		},
		"can't start": {
			func(_ *podinfo, flags *contract.AgentFlags) { flags.Command = []string{"/no/such/program"} },
			&contract.Record{
				ExitCode: contract.ExitNotFound, Reason: contract.ReasonStartError, Message: `starting "/no/such/program": no such file or directory`,
			},
		},
		"can't start, and has the log": {
			func(_ *podinfo, flags *contract.AgentFlags) {
				flags.Command, flags.FallbackToLogs = []string{"/no/such/program"}, true
			},
			nil,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(order("1"))
			flags := info.step(1)
			tc.edit(info, &flags)
			writeFile(t, flags.TerminationLog, forgedRecord())
			message := openMessage(t, flags)
			container{args: flags.Args()}.run(t)
			checkMessage(t, message, tc.want)
		})
	}
}

// forgedRecord returns a record that no step of the tests has.
func forgedRecord() string {
	return contract.Record{FinishedAt: time.Now(), Reason: contract.ReasonWhenFalse, Message: "forged"}.Marshal()
}

// openMessage opens the termination message as the kubelet sees it: by a path that the command can't change.
func openMessage(t *testing.T, flags contract.AgentFlags) *os.File {
	t.Helper()
	file, err := os.Open(flags.TerminationLog)
	must(t, err)
	t.Cleanup(func() { must(t, file.Close()) })
	return file
}

// checkMessage compares a termination message with a record; nil stands for an empty message.
func checkMessage(t *testing.T, message *os.File, want *contract.Record) {
	t.Helper()
	content, err := io.ReadAll(io.LimitReader(message, 1<<20))
	must(t, err)
	var got *contract.Record
	if record, ok := contract.ParseRecord(string(content)); ok {
		got = &record
	} else if len(content) > 0 {
		t.Errorf("the termination message is %.100q, want %v", content, want)
	}
	if diff := cmp.Diff(want, got, ignoreTimes); diff != "" {
		t.Errorf("termination message: -want +got:\n%s", diff)
	}
}
