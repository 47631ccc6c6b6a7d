//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

const logDebug = "TASKFLOW_AGENT_LOG=debug"

// At the debug level, the agent logs one line each time it waits, releases, starts, forwards, ends or kills the command, and ends itself.
func TestDebugLog(t *testing.T) {
	tests := map[string]struct {
		number int // of the step
		order  string
		edit   func(*contract.AgentFlags)
		then   func(*process, *podinfo, string) // while the step waits or runs
		want   []string
	}{
		"released by the order": {
			number: 1, order: "1",
			want: []string{"waiting for order 1 in INFO/order", "released by the order", "started true as process N", "published the record in RUN", "ending with exit code 0"},
		},
		"released by the record": {
			number: 2, order: "1",
			then: func(p *process, info *podinfo, runDir string) {
				info.awaitRejection()
				writeRecord(p.t, runDir, 1, contract.Record{})
			},
			want: []string{
				"waiting for order 2 in INFO/order or the record of step 1 in RUN", "released by the record of the step before",
				"started true as process N", "published the record in RUN", "ending with exit code 0",
			},
		},
		"skipped after a failure": {
			number: 2, order: "1",
			then: func(p *process, info *podinfo, runDir string) {
				writeRecord(p.t, runDir, 1, contract.Record{ExitCode: 3})
				eventually(p.t, "it waits for the halt", func() bool { return strings.Contains(p.stderr.String(), "halt") })
				info.write(halted("1", haltReason))
			},
			want: []string{
				"waiting for order 2 in INFO/order or the record of step 1 in RUN", "waiting for a halt: step 1 failed with exit code 3",
				"the command does not run (Skipped): " + haltReason, "published the record in RUN", "ending with exit code 0",
			},
		},
		"stopped while it waits": {
			number: 2, order: "1", edit: func(f *contract.AgentFlags) { f.ControllerOnly = true },
			then: func(p *process, info *podinfo, _ string) {
				info.awaitRejection()
				p.signal(34 + 3)
			},
			want: []string{
				"waiting for order 2 in INFO/order", "the command does not run (Terminated): received signal 37 before the step was released",
				"published the record in RUN", "ending with exit code 165",
			},
		},
		"can't start": {
			number: 1, order: "1", edit: func(f *contract.AgentFlags) { f.Run, f.Command = "", []string{"nope"} },
			want: []string{
				"waiting for order 1 in INFO/order", "released by the order", `starting "nope": not found in PATH`,
				`the command does not run (StartError): starting "nope": not found in PATH`, "ending with exit code 127",
			},
		},
		"signal, timeout, kill, leftovers and retry": {
			number: 1, order: "1", edit: func(f *contract.AgentFlags) {
				f.Timeout, f.Grace, f.Retries = shortTimeout, shortGrace, 1
				f.Command = []string{"sh", "-c", `mkdir "$0" 2>/dev/null || exit 0; sleep 60 & trap '' TERM; echo ready; while :; do read line; done`, f.Run + "/second"}
			},
			then: func(p *process, _ *podinfo, _ string) {
				p.awaitOutput("ready")
				p.signal(unix.SIGWINCH)
			},
			want: []string{
				"waiting for order 1 in INFO/order", "released by the order", "started sh as process N", "forwarding SIGWINCH to the command",
				"ending the command (TimedOut): SIGTERM now, and SIGKILL after 300ms", "killing the command",
				"killing the processes that the command left behind", "the command failed with exit code 124; retry 1 of 1 starts in 1s",
				"started sh as process N", "published the record in RUN", "ending with exit code 0",
			},
		},
	}
	number := regexp.MustCompile(`process \d+`)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			input, _ := pipe(t)
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order(tc.order))
			flags := info.sharing(runDir, tc.number)
			flags.Command = []string{"true"}
			if tc.edit != nil {
				tc.edit(&flags)
			}
			p := container{args: flags.Args(), edit: func(cmd *exec.Cmd) { cmd.Env, cmd.Stdin = append(os.Environ(), logDebug), input }}.start(t)
			if tc.then != nil {
				tc.then(p, info, runDir)
			}
			got := number.ReplaceAllString(p.wait().Stderr, "process N")
			got = strings.NewReplacer(info.dir, "INFO", runDir, "RUN").Replace(got)
			want := "agent: " + strings.Join(tc.want, "\nagent: ") + "\n"
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("log: -want +got:\n%s", diff)
			}
		})
	}
}

// At any other level the agent logs nothing about a step that succeeds. The command gets the variable unchanged at every level.
func TestLogLevels(t *testing.T) {
	for value, isDebug := range map[string]bool{"debug": true, "": false, "DEBUG": false, "debug,": false, "info": false, "1": false} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			env := []string{"GORACE=" + os.Getenv("GORACE"), "TASKFLOW_AGENT_LOG=" + value}
			command := child(childReport)
			got := container{args: released(t, command...).Args(), edit: func(cmd *exec.Cmd) { cmd.Dir, cmd.Env = "/", env }}.run(t)
			if (got.Stderr != "") != isDebug {
				t.Errorf("log: %q", got.Stderr)
			}
			got.Stderr = ""
			if diff := cmp.Diff(result{Stdout: reported(command, env, "/")}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
