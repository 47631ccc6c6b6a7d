package podspec

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestParseStepList proves how each spelling of a list is read.
func TestParseStepList(t *testing.T) {
	type steps = []stepEntry
	cases := map[string]struct {
		text string
		want steps
	}{
		"names":           {"- a\n- b", steps{{name: "a"}, {name: "b"}}},
		"names in a line": {" [a, b]\n", steps{{name: "a"}, {name: "b"}}},
		"JSON":            {`[{"name":"a","retries":1}]`, steps{{name: "a", fields: []string{"retries"}, options: v1alpha1.StepOptions{Retries: new(int32(1))}}}},
		"a document":      {"---\n- a", steps{{name: "a"}}},
		"a comment last":  {"[a] # first\n# then\n", steps{{name: "a"}}},
		"a comment first": {"# what runs\n- a # first", steps{{name: "a"}}},
		"only names in objects": {
			"- name: a\n- name: b\n", steps{{name: "a"}, {name: "b"}},
		},
		"defaults that are set": {
			"[{name: a, dependsOn: [], finally: false, retries: 0, onError: Stop}]",
			steps{{name: "a", fields: []string{"dependsOn", "finally", "onError", "retries"}, options: v1alpha1.StepOptions{Retries: new(int32(0)), DependsOn: []string{}, OnError: "Stop"}}},
		},
		"everything": {
			`
- name: a
  timeout: 1h30m
  onError: FailAtEnd
  exitCodes: [{in: [2, 0x10], then: Fail}]
  dependsOn: [b]
  when: [{step: b, state: {in: [Failed]}}, {step: b, exitCode: {notIn: [1]}}, {step: b, output: X, in: ["yes", "1"], notIn: []}]
  inputs: [{name: X, step: b, output: O, default: ""}]
  finally: true`,
			steps{{
				name: "a", fields: []string{"dependsOn", "exitCodes", "finally", "inputs", "onError", "timeout", "when"},
				options: v1alpha1.StepOptions{
					Timeout: &metav1.Duration{Duration: 90 * time.Minute}, OnError: "FailAtEnd", DependsOn: []string{"b"}, Finally: true,
					ExitCodes: []v1alpha1.ExitCodeRule{{In: []int32{2, 16}, Then: "Fail"}},
					When: []v1alpha1.Condition{
						{Step: "b", State: &v1alpha1.StateTest{In: []v1alpha1.StepState{"Failed"}}},
						{Step: "b", ExitCode: &v1alpha1.ExitCodeTest{NotIn: []int32{1}}},
						{Step: "b", Output: "X", In: []string{"yes", "1"}, NotIn: []string{}},
					},
					Inputs: []v1alpha1.Input{{Name: "X", Step: "b", Output: "O", Default: new("")}},
				},
			}},
		},
		"an anchor": {
			"- {name: a, when: &w [{step: x, output: X, in: [z]}]}\n- {name: b, when: *w}",
			steps{
				{name: "a", fields: []string{"when"}, options: v1alpha1.StepOptions{When: []v1alpha1.Condition{{Step: "x", Output: "X", In: []string{"z"}}}}},
				{name: "b", fields: []string{"when"}, options: v1alpha1.StepOptions{When: []v1alpha1.Condition{{Step: "x", Output: "X", In: []string{"z"}}}}},
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if !isStepList(c.text) {
				t.Errorf("it is not taken for a list")
			}
			got, err := parseStepList(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(stepEntry{})); diff != "" {
				t.Errorf("parseStepList (-want +got):\n%s", diff)
			}
		})
	}
	for _, names := range []string{"", " ", "a", "a,b", " a , b ", "a,\nb"} {
		if isStepList(names) {
			t.Errorf("the names %q are taken for a list", names)
		}
	}
}

// TestParseStepListRejects proves the sentence about each list that can't be read.
func TestParseStepListRejects(t *testing.T) {
	const (
		invalid = ": near line 1, it is not valid YAML: check indentation, quotes and brackets"
		more    = ": there is more text after the list: write all steps in one list, in one pair of brackets"
		isBool  = ": YAML reads the value as the boolean true, as it does true, yes and on, or false, no and off: put it in quotes"
		fields  = "(the fields are dependsOn, exitCodes, finally, inputs, onError, retries, timeout, when)"
	)
	cases := map[string]struct{ text, want string }{
		"an empty list":       {"[]", " must be a list of steps, not an empty list: write each step as an entry, such as - {name: test, retries: 2}"},
		"an object":           {"{name: a}", " must be a list of steps, not an object: write each step as an entry, such as - {name: test, retries: 2}"},
		"a comment":           {"# nothing", " must be a list of steps, not nothing: write each step as an entry, such as - {name: test, retries: 2}"},
		"a text":              {"---", " must be a list of steps, not nothing: write each step as an entry, such as - {name: test, retries: 2}"},
		"a bracket too few":   {"[{name: a}", invalid},
		"a bracket too many":  {"- {name: a}}", invalid},
		"a colon in a line":   {"- {name: a: b}", invalid},
		"a quote too few":     {"- \"a", invalid},
		"an odd character":    {"- @a", invalid},
		"a wrong indentation": {"- name: a\n retries: 2", invalid},
		"a tab":               {"- name: a\n\tretries: 2", strings.Replace(invalid, "1", "2", 1)},
		"no such anchor":      {"[*a]", ": it is not valid YAML: check indentation, quotes and brackets"},
		"two documents":       {"- a\n---\n- b", ": there are several YAML documents: write one list, without separators such as ---"},
		"two lists":           {"[{name: a}], [{name: b}]", more},
		"a list, and a name":  {"[a], b", more},
		"a list, and a line":  {"[a]\n- b", more},
		"two brackets":        {"[a]]", more},
		"a field twice":       {"- {name: a, retries: 1, retries: 2}", ": the field retries is set twice in one entry: remove one of them"},
		"a NUL":               {"- a\x00", ": it is not valid YAML: check indentation, quotes and brackets"},
		"not a number":        {"- {name: a, retries: .nan}", ": it is not valid YAML: check indentation, quotes and brackets"},
		"a large list":        {"[" + strings.Repeat(" ", 1<<16) + "]", ": the list has 65538 bytes, and it may have 65536: split the Pod into several Tasks"},

		"a number as an entry":  {"- a\n- 1", "[1] must be the name of a step or an object with a name, not the number 1: write it as - {name: test, retries: 2}"},
		"a list as an entry":    {"- [a, b]", "[0] must be the name of a step or an object with a name, not a list: write it as - {name: test, retries: 2}"},
		"an empty entry":        {"- a\n-", "[1] must be the name of a step or an object with a name, not nothing: write it as - {name: test, retries: 2}"},
		"a name and a colon":    {"- a:\n    retries: 2", "[0].name is missing: set it to the name of a container"},
		"no name":               {"- {retries: 2}", "[0].name is missing: set it to the name of a container"},
		"a boolean as name":     {"- {name: true}", "[0].name" + isBool},
		"a number as name":      {"- {name: 1}", "[0].name: YAML reads the value as the number 1: put it in quotes"},
		"a name without value":  {"- {name: }", "[0].name has no value: write one, or remove the field"},
		"a name with a comma":   {`- {name: "a,b"}`, `[0].name: "a,b" can't be the name of a container: set it to the name of a container of the Pod`},
		"a long name":           {"- " + strings.Repeat("a", 64), `[0].name: "` + strings.Repeat("a", 63) + `..." can't be the name of a container: set it to the name of a container of the Pod`},
		"a name twice":          {"[a, {name: a}]", `[1]: the list has the step "a" twice: name each container once`},
		"a misspelt field":      {"- {name: a, retry: 2}", `[0]: the field "retry" is unknown: did you mean retries?`},
		"a field without a d":   {"- {name: a, depensOn: []}", `[0]: the field "depensOn" is unknown: did you mean dependsOn?`},
		"a field in lower case": {"- {name: a, dependson: []}", `[0]: the field "dependson" is unknown: did you mean dependsOn?`},
		"an unknown field":      {"- {name: a, parallel: true}", `[0]: the field "parallel" is unknown: remove it ` + fields},
		"an odd field":          {"- {name: a, \"\\n\": 1}", `[0]: the field "\n" is unknown: remove it ` + fields},
		"an image":              {"- {name: a, image: x}", "[0].image is a field of the container: set it there"},
		"a variable":            {"- {name: a, env: []}", "[0].env is a field of the container: set it there"},
		"a script":              {"- {name: a, script: x}", "[0].script: only a step of a Task has a script: set command of the container, or name a Task"},

		"a field of a rule":      {"- {name: a, exitCodes: [{codes: [1], then: Fail}]}", `[0].exitCodes[0]: the field "codes" is unknown: remove it (the fields are in, then)`},
		"a field of a condition": {"- {name: a, when: [{step: b, outputs: X}]}", `[0].when[0]: the field "outputs" is unknown: did you mean output?`},
		"a field of a test":      {"- {name: a, when: [{step: b, state: {not: [Failed]}}]}", `[0].when[0].state: the field "not" is unknown: did you mean notIn?`},
		"a field of an input":    {"- {name: a, inputs: [{step: b, key: X}]}", `[0].inputs[0]: the field "key" is unknown: remove it (the fields are default, name, output, step)`},

		"text for a list":       {"- {name: a, dependsOn: b}", `[0].dependsOn must be a list, not the text "b": write it in brackets, such as [a, b]`},
		"nothing for a list":    {"- {name: a, dependsOn: }", "[0].dependsOn has no value: write one, or remove the field"},
		"a boolean in a list":   {"- {name: a, when: [{step: b, output: X, in: [yes]}]}", "[0].when[0].in[0]" + isBool},
		"a number in a list":    {"- {name: a, when: [{step: b, output: X, in: [1]}]}", "[0].when[0].in[0]: YAML reads the value as the number 1: put it in quotes"},
		"nothing in a list":     {"- {name: a, dependsOn: [~]}", "[0].dependsOn[0] has no value: write one, or remove the field"},
		"an object in a list":   {"- {name: a, dependsOn: [{name: b}]}", "[0].dependsOn[0] must be a text, not an object"},
		"text for a number":     {`- {name: a, retries: "2"}`, `[0].retries must be a whole number, not the text "2"`},
		"a fraction":            {"- {name: a, retries: 1.5}", "[0].retries must be a whole number, not the number 1.5"},
		"a huge number":         {"- {name: a, retries: 4294967296}", "[0].retries must be a whole number, not the number 4294967296"},
		"text for a boolean":    {`- {name: a, finally: "true"}`, `[0].finally must be true or false, not the text "true"`},
		"a number for a time":   {"- {name: a, timeout: 90}", "[0].timeout must be a number with a unit, such as 90s or 1h30m, not the number 90"},
		"days":                  {"- {name: a, timeout: 1d}", `[0].timeout must be a number with a unit, such as 90s or 1h30m, not the text "1d"`},
		"a list for an object":  {"- {name: a, exitCodes: [[1]]}", "[0].exitCodes[0] must be an object, not a list: its fields are in, then"},
		"an object for a list":  {"- {name: a, exitCodes: {in: [1], then: Fail}}", "[0].exitCodes must be a list, not an object: write it in brackets, such as [a, b]"},
		"a list for a state":    {"- {name: a, when: [{step: b, state: [Failed]}]}", "[0].when[0].state must be an object, not a list: its fields are in, notIn"},
		"text for an exit code": {`- {name: a, exitCodes: [{in: ["1"], then: Fail}]}`, `[0].exitCodes[0].in[0] must be a whole number, not the text "1"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			entries, err := parseStepList(c.text)
			got := fmt.Sprintf(": accepted as %+v", entries)
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff("metadata.annotations: taskflow.practice.com/steps"+c.want, got); diff != "" {
				t.Errorf("parseStepList (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStepListRejects proves that a Pod with a list that can't be read is refused, and one whose list names no container.
func TestStepListRejects(t *testing.T) {
	cases := map[string]struct{ containers, list, want string }{
		"not YAML":              {"a", "- {", "metadata.annotations: taskflow.practice.com/steps: near line 1, it is not valid YAML: check indentation, quotes and brackets"},
		"a map":                 {"a", "name: a\nretries: 1", `metadata.annotations: taskflow.practice.com/steps must be a list: begin each entry with "- ", or write the names of the steps, separated by commas`},
		"lines":                 {"a b", "a\nb", `metadata.annotations: taskflow.practice.com/steps must be a list: begin each entry with "- ", or write the names of the steps, separated by commas`},
		"an unknown container":  {"a", "- b", `metadata.annotations: taskflow.practice.com/steps names "b", and the Pod has no container of that name: fix the name`},
		"an invalid option":     {"a", "- {name: a, retries: 200}", "metadata.annotations: taskflow.practice.com/steps[0].retries: 200 must be between 0 and 100"},
		"a helper in dependsOn": {"a b", "- {name: a, dependsOn: [b]}", `metadata.annotations: taskflow.practice.com/steps[0].dependsOn[0]: there is no step "b" in the list: add it, or fix the name`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(outcome{Rejection: c.want}, mutateRaw(t, fromYAML(t, listPod(c.containers, c.list)))); diff != "" {
				t.Errorf("the outcome (-want +got):\n%s", diff)
			}
		})
	}
	for _, key := range []string{"options", "halt-finally", "cancel", "outcome", "order", "halt"} {
		pod := decodePod(t, fromYAML(t, listPod("a", "- a")))
		pod.Annotations[contract.Group+key] = "x"
		if got := mutateRaw(t, encode(t, pod)).Rejection; !strings.HasPrefix(got, "metadata.annotations: only taskflow sets taskflow.practice.com/"+key+": remove it") {
			t.Errorf("a Pod with %s: %q", key, got)
		}
	}
}
