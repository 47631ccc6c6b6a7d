//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The agent creates and enters the working directory when the step is released, and looks it up again for each run. Relative commands and relative
// entries of PATH start there, as in a container without agent.
func TestWorkDir(t *testing.T) {
	const sentence = `entering the working directory "DIR": `
	const remedy = `; check workingDir, and as which user an earlier step creates the directory`
	tests := map[string]struct {
		prepare func(t *testing.T, dir string)
		command []string
		retries int
		env     []string
		want    result // DIR stands for the directory
	}{
		"that exists": {
			prepare: func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o755)); writeFile(t, dir+"/f", "x") },
			command: shell("pwd; cat f"), want: result{Stdout: "DIR\nx"},
		},
		"that is missing": {
			command: shell("pwd; stat -c %a ."), want: result{Stdout: "DIR\n755\n"},
		},
		"that is a link": {
			prepare: func(t *testing.T, dir string) {
				must(t, os.MkdirAll(dir+"-7", 0o755))
				must(t, os.Symlink(filepath.Base(dir)+"-7", dir))
			},
			command: shell("pwd -P"), want: result{Stdout: "DIR-7\n"},
		},
		"that is a link to nowhere": {
			prepare: func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", dir)) },
			command: shell("pwd"),
			want:    result{Code: 127, Stderr: "agent: " + sentence + "no such file or directory" + remedy + "\n"},
		},
		"that is a file": {
			prepare: func(t *testing.T, dir string) { writeFile(t, dir, "") },
			command: shell("pwd"),
			want:    result{Code: 127, Stderr: "agent: " + sentence + "not a directory" + remedy + "\n"},
		},
		"that is below a file": {
			prepare: func(t *testing.T, dir string) {
				must(t, os.RemoveAll(filepath.Dir(dir)))
				writeFile(t, filepath.Dir(dir), "")
			},
			command: shell("pwd"),
			want:    result{Code: 127, Stderr: "agent: " + sentence + "not a directory" + remedy + "\n"},
		},
		"that a run removes": {
			command: shell("pwd; [ -e ../second ] && exit; touch ../second; rmdir ../dir; exit 3"), retries: 1,
			want: result{Stdout: "DIR\nDIR\n", Stderr: announced(1, 1, 3, "1s")},
		},
		"with a relative command": {
			prepare: func(t *testing.T, dir string) { makeProgram(t, dir+"/run", "pwd") },
			command: []string{"./run"}, want: result{Stdout: "DIR\n"},
		},
		"with a command in a relative entry of PATH": {
			prepare: func(t *testing.T, dir string) { makeProgram(t, dir+"/bin/run-here", "pwd") },
			command: []string{"run-here"}, env: []string{"PATH=bin:" + os.Getenv("PATH")}, want: result{Stdout: "DIR\n"},
		},
		"if the runtime sets PWD": {
			command: []string{lookUp(t, "printenv"), "PWD"}, env: []string{"PWD=/"}, want: result{Stdout: "DIR\n"},
		},
		"without PWD": {
			command: []string{"env"}, env: []string{"PATH=" + os.Getenv("PATH")}, want: result{Stdout: "PATH=" + os.Getenv("PATH") + "\n"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "below", "dir")
			must(t, os.Mkdir(filepath.Dir(dir), 0o755))
			if tc.prepare != nil {
				tc.prepare(t, dir)
			}
			flags := released(t, tc.command...)
			flags.WorkDir, flags.Retries = dir, tc.retries
			got := container{args: flags.Args(), edit: inRoot(tc.env)}.run(t)
			if diff := cmp.Diff(tc.want, withDir(got, dir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.Code != 0 {
				record, _ := contract.ParseRecord(readFile(t, flags.TerminationLog))
				want := contract.Record{FinishedAt: record.FinishedAt, ExitCode: got.Code, Reason: contract.ReasonStartError, Message: record.Message}
				if diff := cmp.Diff(want, record); diff != "" || "agent: "+record.Message+"\n" != got.Stderr {
					t.Errorf("the record (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// A waiting step does not create its working directory: an earlier step may expect that it is missing.
func TestWorkDirWhileTheStepWaits(t *testing.T) {
	t.Parallel()
	info, dir := newPodinfo(t), filepath.Join(t.TempDir(), "dir")
	info.write(order("1"))
	flags := info.step(2)
	flags.WorkDir, flags.Command = dir, shell("pwd")
	process := container{args: flags.Args(), edit: inRoot(nil)}.start(t)
	info.awaitRejection()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory exists while the step waits: %v", err)
	}
	info.write(order("2"))
	if diff := cmp.Diff(result{Stdout: dir + "\n"}, process.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The directory that the agent creates belongs to the step's user. If this user may not create it, the step fails with a sentence.
func TestWorkDirOfTheStepsUser(t *testing.T) {
	uid := os.Geteuid()
	binary, err := os.Open(filepath.Join(programs, agentName))
	must(t, err)
	t.Cleanup(func() { _ = binary.Close() })
	edit := func(cmd *exec.Cmd) {
		// Another user can't reach the binary by its path.
		cmd.Dir, cmd.Args[0], cmd.ExtraFiles = "/", agentName, []*os.File{binary}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: true}
	}
	if uid == 0 {
		uid = 1234
	} else {
		edit = inRoot(nil)
	}
	tests := map[string]struct {
		mode os.FileMode
		want result
	}{
		"in a directory that everyone may write": {0o777, result{Stdout: strconv.Itoa(uid) + "\n"}},
		"in a directory that no one may write": {0o555, result{
			Code:   contract.ExitNotExecutable,
			Stderr: "agent: entering the working directory \"DIR\": permission denied; check workingDir, and as which user an earlier step creates the directory\n",
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			openParents(t, parent+"/dir")
			must(t, os.Chmod(parent, tc.mode))
			flags := released(t, shell("stat -c %u .")...)
			openParents(t, flags.Wait)
			must(t, os.Chmod(flags.TerminationLog, 0o666))
			flags.WorkDir = filepath.Join(parent, "dir")
			c := container{args: flags.Args(), edit: edit}
			if os.Geteuid() == 0 {
				c.program = "/proc/self/fd/3"
			}
			if diff := cmp.Diff(tc.want, withDir(c.run(t), flags.WorkDir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// The workspace is the working directory of a step whose image has none.
func TestDefaultWorkDir(t *testing.T) {
	dir, image, own := t.TempDir(), t.TempDir(), t.TempDir()
	tests := map[string]struct {
		starts, workDir, want string
	}{
		"no working directory":     {"/", "", dir},
		"the image's":              {image, "", image},
		"the step's":               {"/", own, own},
		"the step's is the root":   {"/", "/", "/"},
		"the image's and a step's": {image, own, own},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := retrying(t, 1, `pwd; [ $n = 2 ]`)
			flags.DefaultWorkDir, flags.WorkDir = dir, tc.workDir
			got := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Dir = tc.starts }}.run(t)
			if diff := cmp.Diff(result{Stdout: tc.want + "\n" + tc.want + "\n", Stderr: announced(1, 1, 1, "1s")}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A probe or a hook of a step with a working directory runs in it, and does not create it.
func TestEnter(t *testing.T) {
	tests := map[string]struct {
		dir  string // below the test's directory
		args []string
		want result
	}{
		"a command":                  {"", shell("pwd; exit 3"), result{Code: 3, Stdout: "DIR\n"}},
		"a missing directory":        {"/nope", shell("pwd"), result{Code: 127, Stderr: "agent: entering the working directory \"DIR/nope\": no such file or directory; check workingDir, and as which user an earlier step creates the directory\n"}},
		"a missing command":          {"", []string{"nope"}, result{Code: 127, Stderr: "agent: starting \"nope\": not found in PATH\n"}},
		"no command":                 {"", nil, result{Code: 125, Stderr: "agent: enter takes a directory and a command\n"}},
		"words like the agent's own": {"", append(shell(`echo "$@"`), "sh", "--command", "enter"), result{Stdout: "--command enter\n"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			got := container{args: contract.EnterArgs(dir+tc.dir, tc.args), edit: inRoot(nil)}.run(t)
			if diff := cmp.Diff(tc.want, withDir(got, dir)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	t.Run("a startupProbe", func(t *testing.T) {
		t.Parallel()
		dir, flags := t.TempDir(), released(t)
		flags.WorkDir = dir
		got := container{args: flags.StartedArgs(shell("pwd")), edit: inRoot(nil)}.run(t)
		if diff := cmp.Diff(result{Stdout: dir + "\n"}, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}

// inRoot starts the agent in /, as in a Pod, with an environment. Default: the environment of the test.
func inRoot(env []string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		if env != nil {
			cmd.Env = env // os/exec then adds no PWD
		}
	}
}

// withDir replaces the directory by DIR in the output.
func withDir(r result, dir string) result {
	r.Stdout, r.Stderr = strings.ReplaceAll(r.Stdout, dir, "DIR"), strings.ReplaceAll(r.Stderr, dir, "DIR")
	return r
}

func makeProgram(t *testing.T, path, script string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
}

// openParents lets every user reach a path in the directory for temporary files.
func openParents(t *testing.T, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
}
