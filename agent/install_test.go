//go:build linux

package agent_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

func install(args ...string) container {
	return container{args: append([]string{contract.InstallCommand}, args...)}
}

// The installed file is the running program, and every user may execute it, whatever the umask is. An existing file is replaced, because an init
// container may run twice.
func TestInstall(t *testing.T) {
	tests := map[string]func(t *testing.T, dest string){
		"into an empty directory": func(*testing.T, string) {},
		"over a file":             func(t *testing.T, dest string) { writeFile(t, dest, "old") },
		"over a link": func(t *testing.T, dest string) {
			must(t, os.Symlink("/no/such/file", dest))
		},
		"over itself": func(t *testing.T, dest string) {
			if diff := cmp.Diff(result{}, install(dest).run(t)); diff != "" {
				t.Fatalf("first install: -want +got:\n%s", diff)
			}
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			dest := filepath.Join(dir, "agent")
			prepare(t, dest)
			c := container{
				program: "/bin/sh",
				args:    []string{"-c", `umask 077; exec "$@"`, "sh", filepath.Join(programs, agentName), contract.InstallCommand, dest},
			}
			if diff := cmp.Diff(result{}, c.run(t)); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			assertInstalled(t, dest)
			if diff := cmp.Diff([]string{"agent ----------"}, list(t, dir)); diff != "" {
				t.Errorf("files in the directory: -want +got:\n%s", diff)
			}
		})
	}
}

// The installed program may be running, so Install can't write to it: it replaces the file.
func TestInstallOverARunningProgram(t *testing.T) {
	t.Parallel()
	dest := filepath.Join(t.TempDir(), agentName)
	if diff := cmp.Diff(result{}, install(dest).run(t)); diff != "" {
		t.Fatalf("first install: -want +got:\n%s", diff)
	}
	info := newPodinfo(t)
	info.write(order("1"))
	p := container{program: dest, args: info.step(2).Args()}.start(t)
	info.awaitRejection()

	if diff := cmp.Diff(result{}, install(dest).run(t)); diff != "" {
		t.Errorf("second install: -want +got:\n%s", diff)
	}
	assertInstalled(t, dest)
	info.write(order("2"))
	if diff := cmp.Diff(ran, p.wait()); diff != "" {
		t.Errorf("the running program: -want +got:\n%s", diff)
	}
}

func assertInstalled(t *testing.T, dest string) {
	t.Helper()
	stat, err := os.Lstat(dest)
	must(t, err)
	if diff := cmp.Diff(fs.FileMode(0o555), stat.Mode()); diff != "" {
		t.Errorf("mode: -want +got:\n%s", diff)
	}
	self, err := os.Executable()
	must(t, err)
	if readFile(t, dest) != readFile(t, self) {
		t.Errorf("%s is not the running program", dest)
	}
}

// An error is one sentence with the destination, and leaves no files behind.
func TestInstallRejectsTheDestination(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "folder"), 0o755))
	writeFile(t, filepath.Join(dir, "file"), "")
	before := list(t, dir)

	const usage = "install takes one argument, the path to install the agent at"
	tests := map[string]struct {
		args []string
		want string
	}{
		"no destination":        {nil, usage},
		"two destinations":      {[]string{dir + "/a", dir + "/b"}, usage},
		"no directory":          {[]string{dir + "/nope/agent"}, "no such file or directory"},
		"a file as directory":   {[]string{dir + "/file/agent"}, "not a directory"},
		"a directory":           {[]string{dir + "/folder"}, "is a directory"},
		"an empty destination":  {[]string{""}, "no such file or directory"},
		"a read-only directory": {[]string{"/proc/agent"}, ""}, // the kernel's words differ
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := install(tc.args...).run(t)
			if got.Code != contract.ExitAgentFailure || got.Stdout != "" {
				t.Errorf("got exit code %d and output %q, want %d and none", got.Code, got.Stdout, contract.ExitAgentFailure)
			}
			sentence, rest, _ := strings.Cut(got.Stderr, "\n")
			if !strings.HasPrefix(sentence, "agent: ") || !strings.HasSuffix(sentence, tc.want) || rest != "" {
				t.Errorf("got %q, want one line from agent: to %q", got.Stderr, tc.want)
			}
			if len(tc.args) == 1 && !strings.Contains(sentence, `installing the agent at "`+tc.args[0]+`"`) {
				t.Errorf("got %q, want it to name %q", got.Stderr, tc.args[0])
			}
			if diff := cmp.Diff(before, list(t, dir)); diff != "" {
				t.Errorf("files before and after: -want +got:\n%s", diff)
			}
		})
	}
}
