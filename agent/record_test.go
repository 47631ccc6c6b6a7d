//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

var ignoreTimes = cmpopts.IgnoreFields(contract.Record{}, "StartedAt", "FinishedAt")

func readRecord(t *testing.T, flags contract.AgentFlags) contract.Record {
	t.Helper()
	message := readFile(t, flags.TerminationLog)
	record, ok := contract.ParseRecord(message)
	if !ok {
		t.Fatalf("the termination message is not a record: %q", message)
	}
	return record
}

// The record has the times of the command, not of the container, which may have waited for hours.
func TestRecordTimes(t *testing.T) {
	t.Parallel()
	info := newPodinfo(t)
	info.write(order("0"))
	flags := info.step(1)
	flags.Command = shell("echo started; read line; exit 42")
	input, finishStep := pipe(t)
	p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Stdin = input }}.start(t)
	info.awaitRejection()

	beforeStart := time.Now()
	info.write(order("1"))
	p.awaitOutput("started")
	afterStart := time.Now()
	_, err := fmt.Fprintln(finishStep)
	must(t, err)
	if got := p.wait().Code; got != 42 {
		t.Errorf("exit code %d, want 42", got)
	}
	afterEnd := time.Now()

	record := readRecord(t, flags)
	if diff := cmp.Diff(contract.Record{ExitCode: 42}, record, ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
	if record.StartedAt == nil || !within(*record.StartedAt, beforeStart, afterStart) {
		t.Errorf("startedAt is %v, want a time from %v to %v", record.StartedAt, beforeStart, afterStart)
	}
	if !within(record.FinishedAt, afterStart, afterEnd) {
		t.Errorf("finishedAt is %v, want a time from %v to %v", record.FinishedAt, afterStart, afterEnd)
	}
}

// within reports whether a time is in an interval, with the record's precision of a millisecond.
func within(got, from, to time.Time) bool {
	return !got.Before(from.UTC().Truncate(time.Millisecond)) && !got.After(to)
}

// If the command did not run, the record has an end and no start.
func TestRecordWithoutStart(t *testing.T) {
	t.Parallel()
	flags := released(t, "/no/such/program")
	before := time.Now()
	container{args: flags.Args()}.run(t)
	record := readRecord(t, flags)
	if record.StartedAt != nil {
		t.Errorf("startedAt is %v, want nil", record.StartedAt)
	}
	if after := time.Now(); !within(record.FinishedAt, before, after) {
		t.Errorf("finishedAt is %v, want a time from %v to %v", record.FinishedAt, before, after)
	}
}

// The agent writes the record as the termination message only if the command left none, and if the kubelet does not take the end of the log
// instead.
func TestTerminationMessage(t *testing.T) {
	const anyRecord = "a record"
	tests := map[string]struct {
		script   string
		fallback bool
		want     string // "": no message
	}{
		"the command's":                      {script: `printf mine >"$LOG"`, want: "mine"},
		"a failed command's":                 {script: `printf mine >"$LOG"; exit 1`, want: "mine"},
		"only white space":                   {script: `printf ' ' >"$LOG"`, want: " "},
		"an empty one":                       {script: `: >"$LOG"`, want: anyRecord},
		"none":                               {script: "exit 1", want: anyRecord},
		"the log, after a failure":           {script: "exit 1", fallback: true, want: ""},
		"the log, after a signal":            {script: "kill -9 $$", fallback: true, want: ""},
		"no log after a success":             {script: "exit 0", fallback: true, want: anyRecord},
		"the command's, rather than the log": {script: `printf mine >"$LOG"; exit 1`, fallback: true, want: "mine"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := released(t)
			flags.FallbackToLogs = tc.fallback
			flags.Command = append(shell("LOG=$1; "+tc.script), "sh", flags.TerminationLog)
			container{args: flags.Args()}.run(t)
			got := readFile(t, flags.TerminationLog)
			if _, ok := contract.ParseRecord(got); ok {
				got = anyRecord
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("termination message: -want +got:\n%s", diff)
			}
		})
	}
}

// The log has the reason why a command can't be started, so the kubelet may take the end of the log.
func TestTerminationMessageOfAFailedStart(t *testing.T) {
	t.Parallel()
	flags := released(t, "/no/such/program")
	flags.FallbackToLogs = true
	got := container{args: flags.Args()}.run(t)
	want := result{Code: contract.ExitNotFound, Stderr: "agent: starting \"/no/such/program\": no such file or directory\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff("", readFile(t, flags.TerminationLog)); diff != "" {
		t.Errorf("termination message: -want +got:\n%s", diff)
	}
}

// If the record can't be written, the result is still the command's. The agent does not create the file, which would be in the file system of the
// user.
func TestUnwritableTerminationMessage(t *testing.T) {
	tests := map[string]func(t *testing.T, path string){
		"a missing file":  func(*testing.T, string) {},
		"a directory":     func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o755)) },
		"a FIFO":          func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o644)) },
		"a dangling link": func(t *testing.T, path string) { must(t, os.Symlink("nowhere", path)) },
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flags := released(t, shell("exit 42")...)
			flags.TerminationLog = filepath.Join(dir, "log")
			prepare(t, flags.TerminationLog)
			before := list(t, dir)
			if diff := cmp.Diff(result{Code: 42}, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, list(t, dir)); diff != "" {
				t.Errorf("files before and after: -want +got:\n%s", diff)
			}
		})
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name()+" "+entry.Type().String())
	}
	return names
}

// The kubelet cuts the messages of a Pod with many containers. So a record is short, however long its message is.
func TestRecordSize(t *testing.T) {
	const limit = 512
	tests := map[string]string{
		"plain":            "plain text ",
		"quotes":           `"\`,
		"many bytes":       "日本",
		"control":          "\x01",
		"HTML":             "<&>",
		"not UTF-8":        "x\xff\xfe",
		"line separators":  "\u2028",
		"mixed, off by 1":  "a日\"",
		"mixed, off by 2":  "ab日<",
		"the longest rune": "😀",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := newPodinfo(t)
			info.write(halted("1", "because "+strings.Repeat(text, 1000)+"."))
			flags := info.step(1)
			container{args: flags.Args()}.run(t)
			if message := readFile(t, flags.TerminationLog); len(message) > limit {
				t.Errorf("the record has %d bytes, want at most %d:\n%s", len(message), limit, message)
			}
			got := readRecord(t, flags).Message
			if !strings.HasPrefix(got, "because "+strings.Repeat(strings.ToValidUTF8(text, ""), 20)) || !strings.HasSuffix(got, "…") {
				t.Errorf("message %q, want the start of the reason and an ellipsis", got)
			}
		})
	}
}

// For invalid flags, the exit code is 125, the log has a sentence, and the record is in the default terminationMessagePath.
func TestInvalidFlags(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"none": {
			args: nil,
			want: "--wait is missing: set it to the file that holds the order",
		},
		"unknown": {
			args: []string{"--nope", "--command", "true"},
			want: `unexpected argument "--nope": the step's command goes after --command`,
		},
		"no command": {
			args: []string{"--wait", "/order", "--waitcontent", "1"},
			want: "--command is missing: put the step's command after it",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := container{program: agentOwnDevName, clone: unix.CLONE_NEWNS, args: tc.args}.run(t)
			wantRecord := contract.Record{
				ExitCode: contract.ExitAgentFailure,
				Reason:   contract.ReasonAgentError,
				Message:  tc.want,
			}
			gotRecord, _ := contract.ParseRecord(got.Stdout)
			if diff := cmp.Diff(wantRecord, gotRecord, ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
			want := result{Code: contract.ExitAgentFailure, Stdout: got.Stdout, Stderr: "agent: " + tc.want + "\n"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// actAsAgentWithOwnDev prints the termination message at the default path, in a mount namespace of its own.
func actAsAgentWithOwnDev() int {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", filepath.Dir(contract.DefaultTerminationLog), "tmpfs", 0, "")
	}
	if err == nil {
		err = os.WriteFile(contract.DefaultTerminationLog, nil, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := actAsAgent()
	message, err := os.ReadFile(contract.DefaultTerminationLog)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Stdout.Write(message)
	return code
}
