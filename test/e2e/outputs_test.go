//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestOutputs proves what comes of each kind of outputs, valid or not: how the step ends, what the status has, and what a later step reads.
func TestOutputs(t *testing.T) {
	t.Parallel()
	const invalid = " Failed OutputInvalid 125"
	tests := []struct {
		name, script string
		line         string // without the name
		outputs      map[string]string
		message      string // a part of the step's message
	}{
		{name: "nothing", script: "true"},
		{name: "empty", script: ": >$TASKFLOW_OUTPUT"},
		{name: "twice", script: `printf 'KEY=1\nKEY=2\n' >$TASKFLOW_OUTPUT`, outputs: map[string]string{"KEY": "2"}},
		{name: "replaced", script: `echo KEY=moved >/tmp/x; rm -f $TASKFLOW_OUTPUT; cp /tmp/x $TASKFLOW_OUTPUT; chmod 0 $TASKFLOW_OUTPUT`, outputs: map[string]string{"KEY": "moved"}},
		{name: "many", script: `i=0; while test $i -lt 1000; do echo KEY_$i=$i; i=$((i+1)); done >$TASKFLOW_OUTPUT`},
		{name: "big", script: `{ printf VALUE=; head -c 204800 /dev/zero | tr '\0' x; } >$TASKFLOW_OUTPUT`},
		{name: "too-large", script: `{ printf VALUE=; head -c 10000000 /dev/zero | tr '\0' x; } >$TASKFLOW_OUTPUT`, line: invalid, message: "1 MiB"},
		{name: "zero", script: `printf 'KEY=a\0b\n' >$TASKFLOW_OUTPUT`, line: invalid, message: "line 1"},
		{name: "binary", script: `printf 'KEY=\377\376\n' >$TASKFLOW_OUTPUT`, line: invalid, message: "UTF-8"},
		{name: "fifo", script: `rm -f $TASKFLOW_OUTPUT; mkfifo $TASKFLOW_OUTPUT`, line: invalid, message: "regular file"},
		{name: "link", script: `ln -sf /etc/passwd $TASKFLOW_OUTPUT`, line: invalid, message: "regular file"},
		{name: "directory", script: `rm -f $TASKFLOW_OUTPUT; mkdir $TASKFLOW_OUTPUT`, line: invalid, message: "regular file"},
		{name: "bad-key", script: `printf 'OK=1\nbad-key=2\n' >$TASKFLOW_OUTPUT`, line: invalid, message: "line 2"},
		{name: "quoted", script: `echo 'KEY="a"' >$TASKFLOW_OUTPUT`, line: invalid, message: "line 1"},
		{name: "spaces", script: `echo 'KEY = a' >$TASKFLOW_OUTPUT`, line: invalid, message: "line 1"},
		{name: "failed", script: `echo KEY=failed >$TASKFLOW_OUTPUT; exit 3`, line: " Failed Error 3", outputs: map[string]string{"KEY": "failed"}},
		{name: "failed-invalid", script: `echo 'KEY = a' >$TASKFLOW_OUTPUT; exit 3`, line: " Failed Error 3"},
	}
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "outputs")
	var want, names []string
	for _, test := range tests {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{
			Container:   harness.Shell(test.name, test.script),
			StepOptions: options{DependsOn: alone, OnError: v1alpha1.OnErrorContinue},
		})
		if test.line == "" {
			test.line = " Succeeded Completed 0"
		}
		want, names = append(want, test.name+test.line), append(names, test.name)
	}
	task.Spec.Steps = append(task.Spec.Steps,
		v1alpha1.Step{Container: harness.Shell("reads", `echo "$KEY_999 $TWICE $REPLACED $FAILED $NONE"`), StepOptions: options{DependsOn: names, Inputs: []v1alpha1.Input{
			{Step: "many", Output: "KEY_999"}, {Step: "twice", Output: "KEY", Name: "TWICE"}, {Step: "replaced", Output: "KEY", Name: "REPLACED"},
			{Step: "failed", Output: "KEY", Name: "FAILED"}, {Step: "failed-invalid", Output: "KEY", Name: "NONE", Default: new("none")},
		}}},
		v1alpha1.Step{Container: harness.Shell("reads-big", "echo ran"), StepOptions: options{
			DependsOn: names, OnError: v1alpha1.OnErrorContinue, Inputs: []v1alpha1.Input{{Step: "big", Output: "VALUE"}},
		}})
	want = append(want, "reads Succeeded Completed 0", "reads-big Failed InputInvalid 125 never started")
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	for i, test := range tests {
		step := status.Steps[i]
		if test.message != "" {
			if file := "$" + contract.OutputVariable; !strings.Contains(step.Message, file) || !strings.Contains(step.Message, test.message) {
				t.Errorf("%s says %q, want %s and %q", step.Name, step.Message, file, test.message)
			}
		}
		switch test.name {
		case "many":
			if got := len(step.Outputs) + len(step.OmittedOutputs); got == 0 {
				t.Errorf("the status has none of the outputs of %s: %+v", step.Name, step)
			}
		case "big":
			if diff := cmp.Diff([]string{"VALUE"}, step.OmittedOutputs); diff != "" {
				t.Errorf("omitted outputs of %s (-want +got):\n%s", step.Name, diff)
			}
		default:
			if diff := cmp.Diff(test.outputs, step.Outputs); diff != "" {
				t.Errorf("outputs of %s (-want +got):\n%s", step.Name, diff)
			}
		}
	}
	big := status.Steps[len(status.Steps)-1]
	if !strings.Contains(big.Message, "VALUE") || !strings.Contains(big.Message, "has 204800 bytes") {
		t.Errorf("the step with a value that is too large says %q", big.Message)
	}
	log := cluster.Log(t, task.Namespace, task.Name, "reads")
	for _, part := range []string{"999 2 moved failed none\n", `agent: the outputs of step "failed-invalid" don't count: line 1`} {
		if !strings.Contains(log, part) {
			t.Errorf("what a later step reads, and is told, is %q, without %q", log, part)
		}
	}
}
