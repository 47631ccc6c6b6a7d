//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The container's exit code is the command's, as a shell reports it, because podFailurePolicy of a Job depends on it. The record repeats it.
func TestExitCodeIsTheCommands(t *testing.T) {
	tests := map[string]struct {
		script string
		want   int
	}{
		"success":                     {"exit 0", 0},
		"failure":                     {"exit 1", 1},
		"another code":                {"exit 42", 42},
		"the largest code":            {"exit 255", 255},
		"a code like the agent's own": {"exit 125", 125},
		"SIGKILL":                     {"kill -9 $$", 128 + 9},
		"SIGTERM":                     {"kill -15 $$", 128 + 15},
		"SIGABRT":                     {"ulimit -c 0; kill -6 $$", 128 + 6},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				flags := released(t, shell("echo out; echo err >&2; "+tc.script)...)
				got := container{clone: clone, args: flags.Args()}.run(t)
				if diff := cmp.Diff(result{Code: tc.want, Stdout: "out\n", Stderr: "err\n"}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				want := contract.Record{ExitCode: tc.want}
				if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// For a command that can't be started, the exit code is a shell's: 127 if it is not found, and otherwise 126. The log and the record have a
// sentence.
func TestExitCodeOfACommandThatCannotStart(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	plain := file("plain", "#!/bin/sh\n", 0o644)
	orphan := file("orphan", "#!/no/such/interpreter\n", 0o755)
	format := file("format", "neither ELF nor #!", 0o755)
	const (
		noFile        = "no such file or directory"
		noInterpreter = "the file exists, but not the interpreter or loader that it names"
	)

	tests := map[string]struct {
		command string
		code    int
		why     string
	}{
		"missing path":                 {dir + "/nope", contract.ExitNotFound, noFile},
		"missing name":                 {"nope", contract.ExitNotFound, "not found in PATH"},
		"empty name":                   {"", contract.ExitNotFound, "not found in PATH"},
		"path through a file":          {plain + "/nope", contract.ExitNotFound, "not a directory"},
		"missing interpreter":          {orphan, contract.ExitNotFound, noInterpreter},
		"missing interpreter, by name": {"orphan", contract.ExitNotFound, noInterpreter},
		"not executable":               {plain, contract.ExitNotExecutable, "permission denied"},
		"not executable, by name":      {"plain", contract.ExitNotExecutable, "permission denied"},
		"directory":                    {dir, contract.ExitNotExecutable, "permission denied"},
		"directory, by name":           {filepath.Base(dir), contract.ExitNotExecutable, "permission denied"},
		"no program":                   {format, contract.ExitNotExecutable, "exec format error"},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				flags := released(t, tc.command)
				got := container{clone: clone, args: flags.Args(), edit: func(cmd *exec.Cmd) {
					cmd.Env = append(os.Environ(), "PATH="+dir+":"+filepath.Dir(dir))
				}}.run(t)
				message := `starting "` + tc.command + `": ` + tc.why
				if diff := cmp.Diff(result{Code: tc.code, Stderr: "agent: " + message + "\n"}, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				want := contract.Record{ExitCode: tc.code, Reason: contract.ReasonStartError, Message: message}
				if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
					t.Errorf("record: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// A name without a slash is looked up in PATH, as execvp(3) does.
func TestCommandIsLookedUpInPath(t *testing.T) {
	dir := t.TempDir()
	program := func(path, prints string, mode os.FileMode) {
		path = filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte("#!/bin/sh\necho "+prints+"\n"), mode))
	}
	program("first/tool", "first", 0o755)
	program("second/tool", "second", 0o755)
	program("plain/tool", "plain", 0o644)
	program("tool", "here", 0o755)
	must(t, os.MkdirAll(filepath.Join(dir, "folder/tool"), 0o755))

	tests := map[string]struct{ path, want string }{
		"the first match counts":                  {dir + "/first:" + dir + "/second", "first\n"},
		"a missing directory is skipped":          {dir + "/nope:" + dir + "/second", "second\n"},
		"a file without x is skipped":             {dir + "/plain:" + dir + "/second", "second\n"},
		"a directory of the name is skipped":      {dir + "/folder:" + dir + "/second", "second\n"},
		"an entry may be relative":                {"second", "second\n"},
		"an empty entry is the working directory": {dir + "/nope::" + dir + "/second", "here\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := container{args: released(t, "tool").Args(), edit: func(cmd *exec.Cmd) {
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+tc.path)
			}}.run(t)
			if diff := cmp.Diff(result{Stdout: tc.want}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
