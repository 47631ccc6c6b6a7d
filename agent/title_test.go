//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// "pkill -f WORD" in a step must not find agents, neither its own nor those of later steps. So their command lines and names have none of the
// command's words. The command gets its arguments and environment unchanged.
func TestAgentIsNotFoundByTheCommandsWords(t *testing.T) {
	tests := map[string][]string{
		"a few words":   {"server.py", "--port", "80"},
		"many words":    strings.Fields(strings.Repeat("server.py ", 5000)),
		"long words":    {strings.Repeat("server.py ", 10000), "server.py"},
		"empty words":   {"", "", "server.py", "", ""},
		"no words":      {},
		"other bytes":   {"\xff\xfe server.py"},
		"agent's flags": {"--waitcontent", "7", "--step", "8", "--command", "server.py"},
	}
	for place, clone := range placements {
		for name, words := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				info := newPodinfo(t)
				info.write(order("1"))
				flags := info.step(2)
				flags.Command = child(append([]string{childReport}, words...)...)
				env := []string{"GORACE=" + os.Getenv("GORACE"), "WORD=server.py"}
				p := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) { cmd.Dir, cmd.Env = "/", env }}.start(t)
				info.awaitRejection()
				checkTitle(t, p.cmd.Process.Pid, "taskflow 2")
				environ := readFile(t, fmt.Sprintf("/proc/%d/environ", p.cmd.Process.Pid))
				if diff := cmp.Diff(strings.Join(env, "\x00")+"\x00", environ); diff != "" {
					t.Errorf("the agent's environment: -want +got:\n%s", diff)
				}
				info.write(order("2"))
				if diff := cmp.Diff(result{Stdout: reported(flags.Command, env, "/")}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// The same is true while the command runs.
func TestAgentOfARunningCommandIsNotFound(t *testing.T) {
	t.Parallel()
	flags := released(t, child(childCatch, "1")...)
	p := container{args: flags.Args()}.start(t)
	p.awaitOutput("ready")
	checkTitle(t, p.cmd.Process.Pid, "taskflow 1")
	children := childrenOf(t, p.cmd.Process.Pid)
	if len(children) != 1 {
		t.Fatalf("the agent has children %v, want one", children)
	}
	want := strings.Join(flags.Command, "\x00") + "\x00"
	if diff := cmp.Diff(want, readFile(t, fmt.Sprintf("/proc/%d/cmdline", children[0]))); diff != "" {
		t.Errorf("the command's command line: -want +got:\n%s", diff)
	}
	p.signal(unix.SIGUSR1)
	p.wait()
}

// A step beside others is shown with its number, and not with its stage.
func TestTitleOfAStepBesideOthers(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 3)
	info.write(order("1"))
	p := container{args: info.side(runDir, graph("a b=a c=a"), 3).Args()}.start(t)
	info.awaitRejection()
	checkTitle(t, p.cmd.Process.Pid, "taskflow 3")
	info.write(order("2"))
	p.wait()
}

func checkTitle(t *testing.T, pid int, want string) {
	t.Helper()
	title := strings.TrimRight(readFile(t, fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00")
	if diff := cmp.Diff(want, title); diff != "" {
		t.Errorf("command line: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(contract.AgentTitle+"\n", readFile(t, fmt.Sprintf("/proc/%d/comm", pid))); diff != "" {
		t.Errorf("name: -want +got:\n%s", diff)
	}
}
