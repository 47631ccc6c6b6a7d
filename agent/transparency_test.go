//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The command gets its arguments, environment and working directory unchanged, also if they look like the agent's own, or a shell would expand
// them.
func TestCommandSeesTheSameAsWithoutAgent(t *testing.T) {
	tests := map[string]struct{ args, env []string }{
		"nothing":               {},
		"plain":                 {args: []string{"100"}, env: []string{"A=1"}},
		"empty and white space": {args: []string{"", " ", "a b", "\t\n", ""}, env: []string{"EMPTY=", "SPACE= a  b ", "LINES=a\nb"}},
		"the agent's flags":     {args: []string{"--command", "--wait", "x", "--waitcontent", "0", "--", "install"}},
		"for a shell to expand": {args: []string{"$HOME", "$(VAR)", "*", "~", `"'\`, ";", "&"}, env: []string{"VAR=$(OTHER)", "Q=\"'\\"}},
		"not UTF-8":             {args: []string{"\xff\xfe"}, env: []string{"BIN=\xff\xfe"}},
		"equals signs":          {env: []string{"OPTS=-Da=b -Dc=d", "E=="}},
		"variables of Go":       {env: []string{"GOMAXPROCS=1", "GODEBUG=gctrace=0", "GOTRACEBACK=all", "GOGC=50"}},
		"unusual names":         {env: []string{"a.b-c=1", "lower=2", "ÄÖ=3"}},
	}
	for place, clone := range placements {
		for name, tc := range tests {
			t.Run(place+"/"+name, func(t *testing.T) {
				t.Parallel()
				command := child(append([]string{childReport}, tc.args...)...)
				dir := t.TempDir()
				env := append([]string{"GORACE=" + os.Getenv("GORACE")}, tc.env...)
				edit := func(cmd *exec.Cmd) { cmd.Dir, cmd.Env = dir, env }

				want := container{program: command[0], args: command[1:], clone: clone, edit: edit}.run(t)
				got := container{args: released(t, command...).Args(), clone: clone, edit: edit}.run(t)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("without and with agent: -want +got:\n%s", diff)
				}
				if diff := cmp.Diff(reported(command, env, dir), got.Stdout); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// The attributes of the process are the same: umask, limits, user, groups, capabilities, signal dispositions and mask, priorities and open files.
// The Go runtime changes some of them, which the agent must undo. The test asks with other programs, because a Go program would change them again.
func TestCommandRunsAsWithoutAgent(t *testing.T) {
	const ask = `
		umask
		cat /proc/self/limits
		grep -E '^(Umask|Uid|Gid|Groups|SigBlk|SigIgn|SigCgt|Cap.*|NoNewPrivs|Seccomp|Cpus_allowed|THP_enabled):' /proc/self/status
		cat /proc/self/oom_score_adj /proc/self/timerslack_ns
		nice
		cd /proc/self/fd
		for fd in *; do echo "$fd $(readlink "$fd")"; done`
	// Like the container runtime, this sets the attributes before the agent starts.
	const prepare = `umask 027 && ulimit -S -n 123 && ulimit -S -s 4096 && ulimit -c 0 && exec env --default-signal nice -n 3 "$@"`

	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			extra, err := os.Open(writeFile(t, filepath.Join(dir, "extra"), "extra"))
			must(t, err)
			defer extra.Close()
			input, err := os.Open(writeFile(t, filepath.Join(dir, "input"), "input"))
			must(t, err)
			defer input.Close()

			command := []string{"/bin/sh", "-c", ask}
			under := func(argv ...string) result {
				t.Helper()
				args := append([]string{"-c", prepare, "sh"}, argv...)
				got := container{program: "/bin/sh", args: args, clone: clone, edit: func(cmd *exec.Cmd) {
					cmd.Stdin, cmd.ExtraFiles = input, []*os.File{extra}
				}}.run(t)
				got.Stdout = pipeNumber.ReplaceAllString(got.Stdout, "pipe") // it differs between runs
				return got
			}
			want := under(command...)
			got := under(append([]string{filepath.Join(programs, agentName)}, released(t, command...).Args()...)...)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("without and with agent: -want +got:\n%s", diff)
			}
			priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
			must(t, err)
			nice := 20 - priority // getpriority(2)
			// The report must contain the attributes, or the test compares nothing.
			for _, line := range []string{"0027\n", "Max open files            123 ", fmt.Sprintf("\n%d\n", nice+3), "3 " + extra.Name() + "\n", "0 " + input.Name() + "\n"} {
				if !strings.Contains(got.Stdout, line) {
					t.Errorf("no %q in the report:\n%s", line, got.Stdout)
				}
			}
		})
	}
}

var pipeNumber = regexp.MustCompile(`pipe:\[\d+\]`)

// The command reads the standard input of the container directly.
func TestStdinIsPassedThrough(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			const lines = "first\nsecond\n\x00third"
			flags := released(t, "cat")
			got := container{args: flags.Args(), clone: clone, edit: func(cmd *exec.Cmd) {
				cmd.Stdin = strings.NewReader(lines)
			}}.run(t)
			if diff := cmp.Diff(result{Stdout: lines}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
