//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// producing returns the flags of step 1 of a Pod with a run directory, whose command is a script.
func producing(t *testing.T, info *podinfo, runDir, script string) contract.AgentFlags {
	t.Helper()
	flags := info.sharing(runDir, 1)
	flags.Command = shell(script)
	return flags
}

// consuming returns the flags of step 2, which prints the input V: the output of step 1 with the key.
func consuming(t *testing.T, info *podinfo, runDir, key string) contract.AgentFlags {
	t.Helper()
	flags := info.sharing(runDir, 2)
	flags.Inputs = []string{contract.Input{Name: "V", Step: "make", Number: 1, Output: key}.String()}
	flags.Command = shell(`printf '[%s]' "$V"`)
	return flags
}

// A step that succeeded with invalid outputs fails, and says why. Of one that failed, invalid outputs don't count. None of them blocks the agent.
func TestInvalidOutputs(t *testing.T) {
	const noFile = "$TASKFLOW_OUTPUT is not a regular file: write lines KEY=value to it"
	tests := map[string]struct {
		script string
		want   string
	}{
		"10 MB": {
			`head -c 10000000 /dev/zero | tr '\0' 'a' >$TASKFLOW_OUTPUT`,
			"$TASKFLOW_OUTPUT is larger than 1 MiB: write large results to a volume, and the path as an output",
		},
		"binary": {
			`printf 'A=\001\002\n\377\000=\n' >$TASKFLOW_OUTPUT`,
			`line 2 of $TASKFLOW_OUTPUT has the key "\xff\x00", which is no variable name: use letters, digits and underscores`,
		},
		"a FIFO":                        {`mkfifo $TASKFLOW_OUTPUT`, noFile},
		"a link":                        {`echo A=1 >$TASKFLOW_OUTPUT.real; ln -s $TASKFLOW_OUTPUT.real $TASKFLOW_OUTPUT`, noFile},
		"a link to nothing":             {`ln -s nowhere $TASKFLOW_OUTPUT`, noFile},
		"a link to an endless device":   {`ln -s /dev/zero $TASKFLOW_OUTPUT`, noFile},
		"a directory":                   {`mkdir $TASKFLOW_OUTPUT; echo A=1 >$TASKFLOW_OUTPUT/x`, noFile},
		"a key that is no variable":     {`echo my-key=1 >$TASKFLOW_OUTPUT`, `line 1 of $TASKFLOW_OUTPUT has the key "my-key", which is no variable name: use letters, digits and underscores`},
		"text without a key":            {`echo done >$TASKFLOW_OUTPUT`, `line 1 of $TASKFLOW_OUTPUT has no "=": write KEY=value, and a value of several lines in single quotes`},
		"valid ones, and an open quote": {`printf "A=1\nB='2\n" >$TASKFLOW_OUTPUT`, `line 2 of $TASKFLOW_OUTPUT begins a value whose single quote is not closed: close it`},
	}
	for name, tc := range tests {
		for _, code := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s/%d", name, code), func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 2)
				info.write(order("2"))
				flags := producing(t, info, runDir, fmt.Sprintf("%s; exit %d", tc.script, code))
				want := contract.Record{ExitCode: code}
				said := "agent: the outputs don't count: " + tc.want + "\n"
				if code == 0 {
					want = contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonOutputInvalid, Message: tc.want}
					said = "agent: " + tc.want + "\n"
				}
				if diff := cmp.Diff(result{Code: want.ExitCode, Stderr: said}, container{args: flags.Args()}.run(t)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				checkRecords(t, want, flags)

				said = "agent: the outputs of step \"make\" don't count: " + tc.want + "\n" +
					"agent: input V: step \"make\" has no output A; write A=VALUE to $TASKFLOW_OUTPUT there, or set a default\n"
				got := container{args: consuming(t, info, runDir, "A").Args()}.run(t)
				if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: said}, got); diff != "" {
					t.Errorf("the step with the input: -want +got:\n%s", diff)
				}
			})
		}
	}
}

// Outputs that are unusual and valid reach a later step in full. The termination message has what fits.
func TestUnusualOutputs(t *testing.T) {
	tests := map[string]struct {
		script, key, want string
		code              int
		keys, values      int // in the termination message, at least
	}{
		"a key twice":              {script: `echo A=1 >$TASKFLOW_OUTPUT; echo A=2 >>$TASKFLOW_OUTPUT`, key: "A", want: "2", keys: 1, values: 1},
		"several lines":            {script: `printf "A='1\n2\n'\n" >$TASKFLOW_OUTPUT`, key: "A", want: "1\n2\n", keys: 1, values: 1},
		"an empty value":           {script: `echo A= >$TASKFLOW_OUTPUT`, key: "A", want: "", keys: 1, values: 1},
		"of a command that failed": {script: `echo A=1 >$TASKFLOW_OUTPUT; exit 3`, key: "A", want: "1", code: 3, keys: 1, values: 1},
		"1,000 keys":               {script: `seq 1000 | sed 's/.*/K&=&/' >$TASKFLOW_OUTPUT`, key: "K1000", want: "1000", keys: 280, values: 190},
		"a value of 3,000 bytes":   {script: `echo B=1 >$TASKFLOW_OUTPUT; echo A=$(head -c 3000 /dev/zero | tr '\0' 'a') >>$TASKFLOW_OUTPUT`, key: "A", want: strings.Repeat("a", 3000), keys: 2, values: 2},
		"a value of 100,000 bytes": {script: `echo A=$(head -c 100000 /dev/zero | tr '\0' 'a') >$TASKFLOW_OUTPUT; echo B=1 >>$TASKFLOW_OUTPUT`, key: "A", want: strings.Repeat("a", 100000), keys: 2, values: 1},
		"other scripts":            {script: `echo A=日本 >$TASKFLOW_OUTPUT`, key: "A", want: "日本", keys: 1, values: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("2"))
			flags := producing(t, info, runDir, tc.script)
			if diff := cmp.Diff(result{Code: tc.code}, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if size := len(readFile(t, flags.TerminationLog)); size >= 4096 {
				t.Errorf("the termination message has %d bytes", size)
			}
			record := readRecord(t, flags)
			if len(record.OutputKeys) < tc.keys || len(record.Outputs) < tc.values {
				t.Errorf("the termination message has %d keys and %d values, want at least %d and %d", len(record.OutputKeys), len(record.Outputs), tc.keys, tc.values)
			}
			for key, value := range record.Outputs {
				if !slices.Contains(record.OutputKeys, key) || key == tc.key && value != tc.want {
					t.Errorf("the termination message has %s=%q", key, value)
				}
			}
			if got := recordOf(t, runDir, 1); got.OutputKeys != nil || got.Outputs != nil {
				t.Errorf("the record in the run directory has outputs: %v", got)
			}
			if diff := cmp.Diff(result{Stdout: "[" + tc.want + "]"}, container{args: consuming(t, info, runDir, tc.key).Args()}.run(t)); diff != "" {
				t.Errorf("the step with the input: -want +got:\n%s", diff)
			}
		})
	}
}

// A value of 200 KiB is fine for the step that writes it. The environment of a process can't have it, so the step with the input fails.
func TestAnOutputThatIsTooLongForAVariable(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("2"))
	flags := producing(t, info, runDir, `echo A=$(head -c 204800 /dev/zero | tr '\0' 'a') >$TASKFLOW_OUTPUT`)
	if diff := cmp.Diff(result{}, container{args: flags.Args()}.run(t)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	const message = `input V: the output A of step "make" has 204800 bytes, and the variable can have 131069; write the value to a volume, and its path as the output`
	consumer := consuming(t, info, runDir, "A")
	if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: "agent: " + message + "\n"}, container{args: consumer.Args()}.run(t)); diff != "" {
		t.Errorf("the step with the input: -want +got:\n%s", diff)
	}
	checkRecords(t, contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonInputInvalid, Message: message}, consumer)

	// The longest one that is possible.
	longest := writeFile(t, filepath.Join(contract.StepDir(runDir, 1), ".new"), "A="+strings.Repeat("a", 131069))
	must(t, os.Rename(longest, filepath.Join(contract.StepDir(runDir, 1), contract.OutputFile)))
	must(t, os.Remove(recordPath(runDir, 2)))
	consumer.Command = shell(`printf %s ${#V}`)
	if diff := cmp.Diff(result{Stdout: "131069"}, container{args: consumer.Args()}.run(t)); diff != "" {
		t.Errorf("the longest value: -want +got:\n%s", diff)
	}
}

// Each run of the command begins without outputs: also after a failure, and whatever it left.
func TestOutputsOfARetry(t *testing.T) {
	tests := map[string]string{
		"a file":                       `echo OLD=1 >$TASKFLOW_OUTPUT`,
		"an invalid file":              `echo OLD >$TASKFLOW_OUTPUT`,
		"a file without permissions":   `echo OLD=1 >$TASKFLOW_OUTPUT; chmod 0 $TASKFLOW_OUTPUT`,
		"a directory":                  `mkdir -p $TASKFLOW_OUTPUT/sub`,
		"a FIFO":                       `mkfifo $TASKFLOW_OUTPUT`,
		"a link to the step's own log": `ln -s record $TASKFLOW_OUTPUT`,
		"nothing":                      `true`,
	}
	for name, first := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runDir := newRunDir(t, 1)
			flags := retrying(t, 1, `if [ $n = 1 ]; then `+first+`; exit 1; fi; ls $TASKFLOW_OUTPUT 2>/dev/null; echo NEW=$n >>$TASKFLOW_OUTPUT`)
			flags.Run = runDir
			got := container{args: flags.Args()}.run(t)
			got.Stderr = ""
			if diff := cmp.Diff(result{}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			want := contract.Record{Retries: 1, OutputKeys: []string{"NEW"}, Outputs: map[string]string{"NEW": "2"}}
			if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// The outputs are read when nothing of the step runs any more: what a background process writes before it is killed counts, and nothing changes
// them afterwards.
func TestOutputsAndLeftovers(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			consumer := consuming(t, info, runDir, "N")
			p := container{args: consumer.Args(), clone: clone}.start(t)
			// The background process replaces the file again and again.
			flags := producing(t, info, runDir, `
				(trap '' TERM; n=0; while :; do n=$((n + 1)); echo N=$n >$TASKFLOW_OUTPUT.new; mv $TASKFLOW_OUTPUT.new $TASKFLOW_OUTPUT; done) &
				until [ -s $TASKFLOW_OUTPUT ]; do :; done`)
			if diff := cmp.Diff(result{}, container{args: flags.Args(), clone: clone}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			want := "[" + readRecord(t, flags).Outputs["N"] + "]"
			if diff := cmp.Diff(result{Stdout: want}, p.wait()); diff != "" {
				t.Errorf("the step with the input: -want +got:\n%s", diff)
			}
			now := readFile(t, filepath.Join(contract.StepDir(runDir, 1), contract.OutputFile))
			if diff := cmp.Diff("["+strings.TrimPrefix(strings.TrimSpace(now), "N=")+"]", want); diff != "" {
				t.Errorf("the file has changed: -want +got:\n%s", diff)
			}
		})
	}
}

// A step of another user, with a umask that hides its files, writes outputs that a later step can read. Neither can write into the directory of
// another step.
func TestOutputsOfOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	t.Parallel()
	const producer, consumer = 1234, 5678
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("2"))
	for step, user := range map[int]int{1: producer, 2: consumer} {
		must(t, os.Chown(contract.StepDir(runDir, step), user, user)) // as if only this step had the directory mounted with write access
	}
	openParents(t, runDir+"/1")
	openParents(t, info.dir+"/order")
	binary, err := os.Open(filepath.Join(programs, agentName))
	must(t, err)
	t.Cleanup(func() { _ = binary.Close() })
	run := func(user uint32, flags contract.AgentFlags) result {
		t.Helper()
		return container{program: "/proc/self/fd/3", args: flags.Args(), edit: func(cmd *exec.Cmd) {
			// Another user can't reach the binary by its path.
			cmd.Dir, cmd.Args[0], cmd.ExtraFiles = "/", agentName, []*os.File{binary}
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user, NoSetGroups: true}
		}}.run(t)
	}
	first := producing(t, info, runDir, `umask 077; echo A=1 >$TASKFLOW_OUTPUT; echo A=2 >`+contract.StepDir(runDir, 2)+`/output || echo refused`)
	got := run(producer, first)
	got.Stderr = ""
	if diff := cmp.Diff(result{Stdout: "refused\n"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	stat, err := os.Stat(filepath.Join(contract.StepDir(runDir, 1), contract.OutputFile))
	must(t, err)
	if diff := cmp.Diff(os.FileMode(0o444), stat.Mode()); diff != "" {
		t.Errorf("mode: -want +got:\n%s", diff)
	}
	second := consuming(t, info, runDir, "A")
	second.Command = shell(`printf '[%s]' "$V"; echo A=3 >` + contract.StepDir(runDir, 1) + `/output || echo refused; cat ` + contract.StepDir(runDir, 1) + `/output`)
	got = run(consumer, second)
	got.Stderr = ""
	if diff := cmp.Diff(result{Stdout: "[1]refused\nA=1\n"}, got); diff != "" {
		t.Errorf("the step with the input: -want +got:\n%s", diff)
	}
}

// A kubelet that loses a container starts another one. The termination message of that one has the outputs, too.
func TestOutputsOfAStepThatHasEnded(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 1)
	info.write(order("1"))
	container{args: producing(t, info, runDir, `echo A=1 >$TASKFLOW_OUTPUT`).Args()}.run(t)
	again := producing(t, info, runDir, `echo A=2 >$TASKFLOW_OUTPUT`)
	container{args: again.Args()}.run(t)
	want := contract.Record{OutputKeys: []string{"A"}, Outputs: map[string]string{"A": "1"}}
	if diff := cmp.Diff(want, readRecord(t, again), ignoreTimes); diff != "" {
		t.Errorf("record: -want +got:\n%s", diff)
	}
}
