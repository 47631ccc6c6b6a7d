package podspec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// bothForms returns what a list of steps is refused with as a Task's steps and as a Pod's annotation. Each step of the Task has an image.
func bothForms(t *testing.T, list string, policy corev1.RestartPolicy, env []corev1.EnvVar) (task, pod string) {
	t.Helper()
	var steps []v1alpha1.Step
	if err := yaml.UnmarshalStrict([]byte(list), &steps); err != nil {
		t.Fatal(err)
	}
	object := &v1alpha1.Task{Spec: v1alpha1.TaskSpec{Steps: steps}}
	object.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{RestartPolicy: policy}}
	user := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: policy}}
	user.Labels = map[string]string{contract.SequentialLabel: "true"}
	user.Annotations = map[string]string{contract.StepsAnnotation: list}
	for i := range steps {
		steps[i].Image, steps[i].Env = "x", env
		container := step(steps[i].Name)
		container.Env = env
		user.Spec.Containers = append(user.Spec.Containers, container)
	}
	if err := ValidateTask(object); err != nil {
		task = err.Error()
	}
	return task, mutateRaw(t, encode(t, user)).Rejection
}

// TestCheckList proves each rejection of the options of steps, in a Task and in a Pod. PATH stands for where the list is.
func TestCheckList(t *testing.T) {
	const (
		noAction = "set it to Succeed, Finish, Fail or Retry"
		noName   = "can't be the name of a variable: use letters, digits and _, and don't begin with a digit"
		noCode   = "is no exit code: set it to a number from 0 to 255"
		restarts = "has no effect with restartPolicy: OnFailure, which restarts a failed step until it succeeds: set POLICY to Never"
	)
	onFailure := corev1.RestartPolicyOnFailure
	cases := map[string]struct {
		list   string
		policy corev1.RestartPolicy
		env    []corev1.EnvVar
		want   string // "" is accepted
	}{
		"names":            {list: "[{name: a}, {name: b}]"},
		"all options":      {list: `[{name: a, timeout: 1h, retries: 3, onError: FailAtEnd}, {name: b, dependsOn: []}, {name: c, dependsOn: [a, b], when: [{step: a, state: {in: [Failed]}}]}]`},
		"an earlier final": {list: "[{name: a}, {name: b, finally: true}, {name: c, finally: true, inputs: [{step: b, output: X}, {step: a, output: Z}]}]"},

		"a step that isn't there": {list: "[{name: a}, {name: b, dependsOn: [x]}]", want: `PATH[1].dependsOn[0]: there is no step "x" in the list: add it, or fix the name`},
		"a misspelt step":         {list: "[{name: lint}, {name: b, dependsOn: [lnit]}]", want: `PATH[1].dependsOn[0]: there is no step "lnit" in the list: did you mean "lint"?`},
		"an empty name":           {list: `[{name: a}, {name: b, dependsOn: [""]}]`, want: `PATH[1].dependsOn[0]: the name of a step is missing: set it to the name of a step that stands earlier in the list`},
		"itself":                  {list: "[{name: a}, {name: b, dependsOn: [a, b]}]", want: `PATH[1].dependsOn[1]: the step "b" can't depend on itself: remove the name`},
		"a later step":            {list: "[{name: a, dependsOn: [b]}, {name: b}]", want: `PATH[0].dependsOn[0]: the step "b" stands later in the list: move it before "a"`},
		"twice":                   {list: "[{name: a}, {name: b, dependsOn: [a, a]}]", want: `PATH[1].dependsOn[1]: "a" is named twice: remove one`},
		"a final step":            {list: "[{name: a, dependsOn: [b]}, {name: b, finally: true}]", want: `PATH[0].dependsOn[0]: "b" is a final step, which runs after all others: remove the name`},
		"too many predecessors":   {list: fmt.Sprintf("[{name: a}, {name: b, dependsOn: [%s]}]", strings.Repeat("a, ", 101)), want: "PATH[1].dependsOn: there are 101 names, and a step may have 100: put a step between them"},

		"dependsOn of a final step":       {list: "[{name: a}, {name: b, finally: true, dependsOn: [a]}]", want: `PATH[1].dependsOn: the final step "b" runs after all other steps: remove dependsOn`},
		"empty dependsOn of a final step": {list: "[{name: a}, {name: b, finally: true, dependsOn: []}]", want: `PATH[1].dependsOn: the final step "b" runs after all other steps: remove dependsOn`},
		"a final step in the middle":      {list: "[{name: a}, {name: b, finally: true}, {name: c}]", want: `PATH[1].finally: the final step "b" stands before the step "c", which is not final: move it to the end of the list`},
		"only final steps":                {list: "[{name: a, finally: true}, {name: b, finally: true}]", want: `PATH[0].finally: all steps are final: remove finally from the steps that do the work`},
		"a final step that finishes":      {list: "[{name: a}, {name: b, finally: true, exitCodes: [{in: [1], then: Finish}]}]", want: "PATH[1].exitCodes[0].then: a final step can't finish the sequence, which is over when it runs: set it to Succeed"},

		"a timeout below 0": {list: "[{name: a, timeout: -1s}]", want: "PATH[0].timeout: -1s must be between 1ms and 99999h: change it, or remove it for no limit"},
		"no time":           {list: "[{name: a, timeout: 0s}]", want: "PATH[0].timeout: 0s must be between 1ms and 99999h: change it, or remove it for no limit"},
		"too much time":     {list: "[{name: a, timeout: 100000h}]", want: "PATH[0].timeout: 100000h0m0s must be between 1ms and 99999h: change it, or remove it for no limit"},
		"retries below 0":   {list: "[{name: a}, {name: b, retries: -1}]", want: "PATH[1].retries: -1 must be between 0 and 100"},
		"too many retries":  {list: "[{name: a, retries: 101}]", want: "PATH[0].retries: 101 must be between 0 and 100"},
		"an unknown onError": {
			list: "[{name: a, onError: continue}]", want: `PATH[0].onError: "continue" is unknown: set it to Stop, Continue or FailAtEnd`,
		},

		"a rule without codes":       {list: "[{name: a, exitCodes: [{in: [], then: Fail}]}]", want: "PATH[0].exitCodes[0].in: there is no exit code: set it to a list such as [2, 3]"},
		"a rule without action":      {list: "[{name: a, exitCodes: [{in: [1]}]}]", want: "PATH[0].exitCodes[0].then: it is missing: " + noAction},
		"an unknown action":          {list: "[{name: a, exitCodes: [{in: [1], then: succeed}]}]", want: `PATH[0].exitCodes[0].then: "succeed" is unknown: ` + noAction},
		"an exit code that is none":  {list: "[{name: a, exitCodes: [{in: [1, 256], then: Fail}]}]", want: "PATH[0].exitCodes[0].in[1]: 256 " + noCode},
		"an exit code below 0":       {list: "[{name: a, exitCodes: [{in: [-1], then: Fail}]}]", want: "PATH[0].exitCodes[0].in[0]: -1 " + noCode},
		"Retry without retries":      {list: "[{name: a, exitCodes: [{in: [1], then: Fail}, {in: [2], then: Retry}]}]", want: `PATH[0].exitCodes[1].then: Retry has no effect without retries: set retries of the step "a", or remove the rule`},
		"Retry with retries":         {list: "[{name: a, retries: 1, exitCodes: [{in: [2], then: Retry}]}]"},
		"an exit code in two rules":  {list: "[{name: a, exitCodes: [{in: [1], then: Fail}, {in: [2, 1], then: Retry}]}]", want: "PATH[0].exitCodes[1].in[1]: 1 is named twice, and its first rule applies: remove one"},
		"too many rules":             {list: fmt.Sprintf("[{name: a, exitCodes: [%s]}]", strings.Repeat("{in: [1], then: Fail}, ", 21)), want: "PATH[0].exitCodes: there are 21 rules, and a step may have 20: name several codes in one rule"},
		"OnFailure with Continue":    {list: "[{name: a, onError: Continue}]", policy: onFailure, want: "PATH[0].onError: Continue " + restarts},
		"OnFailure with FailAtEnd":   {list: "[{name: a, onError: FailAtEnd}]", policy: onFailure, want: "PATH[0].onError: FailAtEnd " + restarts},
		"OnFailure with Fail":        {list: "[{name: a, exitCodes: [{in: [1], then: Fail}]}]", policy: onFailure, want: "PATH[0].exitCodes[0].then: Fail " + restarts},
		"OnFailure with Retry":       {list: "[{name: a, exitCodes: [{in: [1], then: Succeed}, {in: [2], then: Retry}]}]", policy: onFailure, want: "PATH[0].exitCodes[1].then: Retry " + restarts},
		"OnFailure with the others":  {list: "[{name: a, onError: Stop, exitCodes: [{in: [1], then: Succeed}, {in: [2], then: Finish}]}]", policy: onFailure},
		"inputs of a predecessor":    {list: "[{name: a}, {name: b}, {name: c, inputs: [{step: a, output: X}, {step: b, output: X, name: Z}]}]"},
		"an input of itself":         {list: "[{name: a, inputs: [{step: a, output: X}]}]", want: `PATH[0].inputs[0].step: the step "a" can't read its own end: name a step that runs before it`},
		"an input without step":      {list: "[{name: a}, {name: b, inputs: [{output: X}]}]", want: "PATH[1].inputs[0].step: the name of a step is missing: set it to the name of a step that stands earlier in the list"},
		"an input of an unknown":     {list: "[{name: a}, {name: b, inputs: [{step: u, output: X}]}]", want: `PATH[1].inputs[0].step: there is no step "u" in the list: add it, or fix the name`},
		"an input of a later step":   {list: "[{name: a, inputs: [{step: b, output: X}]}, {name: b}]", want: `PATH[0].inputs[0].step: the step "b" stands later in the list: move it before "a"`},
		"an input of a final step":   {list: "[{name: a, inputs: [{step: b, output: X}]}, {name: b, finally: true}]", want: `PATH[0].inputs[0].step: "b" is a final step, which runs later: name a step that runs before "a"`},
		"an input of a sibling":      {list: "[{name: a}, {name: b, dependsOn: [], inputs: [{step: a, output: X}]}]", want: `PATH[1].inputs[0].step: the step "a" runs beside "b", not before it: add it to dependsOn of "b"`},
		"a condition on a sibling":   {list: "[{name: a}, {name: b, dependsOn: [], when: [{step: a, output: X, in: [x]}]}]", want: `PATH[1].when[0].step: the step "a" runs beside "b", not before it: add it to dependsOn of "b"`},
		"an input without output":    {list: "[{name: a}, {name: b, inputs: [{step: a, name: X}]}]", want: `PATH[1].inputs[0].output: it is missing: set it to the key of an output of "a"`},
		"an output with a dash":      {list: "[{name: a}, {name: b, inputs: [{step: a, output: a-b}]}]", want: `PATH[1].inputs[0].output: "a-b" ` + noName},
		"a name with a digit first":  {list: "[{name: a}, {name: b, inputs: [{step: a, output: X, name: 1X}]}]", want: `PATH[1].inputs[0].name: "1X" ` + noName},
		"a name of two lines":        {list: `[{name: a}, {name: b, inputs: [{step: a, output: X, name: "X\n"}]}]`, want: `PATH[1].inputs[0].name: "X\n" ` + noName},
		"a long name":                {list: fmt.Sprintf("[{name: a}, {name: b, inputs: [{step: a, output: %s}]}]", strings.Repeat("X", 254)), want: "PATH[1].inputs[0].output: the name has 254 characters, and it may have 253: use a shorter one"},
		"PATH":                       {list: "[{name: a}, {name: b, inputs: [{step: a, output: PATH}]}]", want: "PATH[1].inputs[0].output: the variable PATH changes how programs load or run: set name to another variable, or to PATH if you want that"},
		"LD_PRELOAD":                 {list: "[{name: a}, {name: b, inputs: [{step: a, output: LD_PRELOAD}]}]", want: "PATH[1].inputs[0].output: the variable LD_PRELOAD changes how programs load or run: set name to another variable, or to LD_PRELOAD if you want that"},
		"PATH by name":               {list: "[{name: a}, {name: b, inputs: [{step: a, output: PATH, name: PATH}]}]"},
		"PATH as another variable":   {list: "[{name: a}, {name: b, inputs: [{step: a, output: PATH, name: DIR}]}]"},
		"a NUL":                      {list: `[{name: a}, {name: b, inputs: [{step: a, output: K, default: "x\0"}]}]`, want: "PATH[1].inputs[0].default: a variable can't have a NUL character: remove it"},
		"a commit":                   {list: "[{name: a}, {name: b, inputs: [{step: a, output: GIT_SHA}]}]"},
		"a variable of the agent":    {list: "[{name: a}, {name: b, inputs: [{step: a, output: X, name: TASKFLOW_OUTPUT}]}]", want: "PATH[1].inputs[0].name: variables that start with TASKFLOW_ are reserved for taskflow: set name to another variable"},
		"a variable twice":           {list: "[{name: a}, {name: b, inputs: [{step: a, output: X}, {step: a, output: Z, name: X}]}]", want: "PATH[1].inputs[1]: inputs[0] sets the variable X, too: give one of them another name"},
		"a variable of the step":     {list: "[{name: a}, {name: b, inputs: [{step: a, output: X}]}]", env: []corev1.EnvVar{{Name: "X"}}, want: `PATH[1].inputs[0]: env of the step "b" sets the variable X, too: remove one of them`},
		"too many inputs":            {list: fmt.Sprintf("[{name: a}, {name: b, inputs: [%s]}]", strings.Repeat("{step: a, output: X}, ", 101)), want: "PATH[1].inputs: there are 101 inputs, and a step may have 100: read the files of the outputs"},
		"no test":                    {list: "[{name: a}, {name: b, when: [{step: a}]}]", want: "PATH[1].when[0]: the condition tests nothing: set state, exitCode or output"},
		"values without output":      {list: "[{name: a}, {name: b, when: [{step: a, in: [x]}]}]", want: "PATH[1].when[0]: in and notIn test an output, and output is missing: set output to its key"},
		"two tests":                  {list: "[{name: a}, {name: b, when: [{step: a, output: X, in: [x], state: {in: [Failed]}}]}]", want: "PATH[1].when[0]: the condition has several tests: write a condition for each of state, exitCode and output"},
		"values beside a state":      {list: "[{name: a}, {name: b, when: [{step: a, in: [x], state: {in: [Failed]}}]}]", want: "PATH[1].when[0]: in and notIn beside state or exitCode belong to an output: move them into state or exitCode"},
		"an unknown state":           {list: "[{name: a}, {name: b, when: [{step: a, state: {in: [Failed, failed]}}]}]", want: `PATH[1].when[0].state.in[1]: "failed" is no state in which a step ends: set it to Succeeded, Failed or Skipped`},
		"a state that is no end":     {list: "[{name: a}, {name: b, when: [{step: a, state: {notIn: [Running]}}]}]", want: `PATH[1].when[0].state.notIn[0]: "Running" is no state in which a step ends: set it to Succeeded, Failed or Skipped`},
		"a state without values":     {list: "[{name: a}, {name: b, when: [{step: a, state: {}}]}]", want: "PATH[1].when[0].state: there is no value to compare with: set in or notIn"},
		"empty values":               {list: "[{name: a}, {name: b, when: [{step: a, output: X, in: [], notIn: []}]}]", want: "PATH[1].when[0]: there is no value to compare with: set in or notIn"},
		"in and notIn":               {list: "[{name: a}, {name: b, when: [{step: a, output: X, in: [x], notIn: [z]}]}]", want: "PATH[1].when[0]: in and notIn are both set: write a condition for each of them"},
		"exit codes, in and notIn":   {list: "[{name: a}, {name: b, when: [{step: a, exitCode: {in: [1], notIn: [2]}}]}]", want: "PATH[1].when[0].exitCode: in and notIn are both set: write a condition for each of them"},
		"a condition's exit code":    {list: "[{name: a}, {name: b, when: [{step: a, exitCode: {in: [300]}}]}]", want: "PATH[1].when[0].exitCode.in[0]: 300 " + noCode},
		"a condition's other code":   {list: "[{name: a}, {name: b, when: [{step: a, exitCode: {notIn: [1, -3]}}]}]", want: "PATH[1].when[0].exitCode.notIn[1]: -3 " + noCode},
		"a condition's key":          {list: "[{name: a}, {name: b, when: [{step: a, output: a.b, in: [x]}]}]", want: `PATH[1].when[0].output: "a.b" ` + noName},
		"too many values":            {list: fmt.Sprintf("[{name: a}, {name: b, when: [{step: a, output: X, in: [%s]}]}]", strings.Repeat("x, ", 101)), want: "PATH[1].when[0]: there are 101 values, and there may be 100"},
		"a condition about a later":  {list: "[{name: a, when: [{step: b, state: {in: [Failed]}}]}, {name: b}]", want: `PATH[0].when[0].step: the step "b" stands later in the list: move it before "a"`},
		"too many conditions":        {list: fmt.Sprintf("[{name: a}, {name: b, when: [%s]}]", strings.Repeat("{step: a, state: {in: [Failed]}}, ", 21)), want: "PATH[1].when: there are 21 conditions, and a step may have 20: test them in an earlier step, and write an output"},
		"an input over two branches": {list: "[{name: a}, {name: b}, {name: c, dependsOn: [a]}, {name: d, dependsOn: [b, c], inputs: [{step: a, output: X}]}]"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task, pod := bothForms(t, c.list, c.policy, c.env)
			want := func(path, policy string) string {
				at, found := strings.CutPrefix(c.want, "PATH")
				if !found {
					return c.want
				}
				return path + strings.Replace(at, "POLICY", policy, 1)
			}
			if diff := cmp.Diff(want("spec.steps", "spec.template.spec.restartPolicy"), task); diff != "" {
				t.Errorf("the Task (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want("metadata.annotations: taskflow.practice.com/steps", "spec.restartPolicy"), pod); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
		})
	}
}
