package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// graph is a Task whose steps don't simply follow each other, and which shares fields between them.
const graph = `
metadata: {name: build}
spec:
  suspend: true
  params: [{name: DAY, value: today}, {name: BRANCH, value: main}]
  workspace: {size: 1Gi, storageClassName: fast}
  stepTemplate:
    image: alpine:3
    env: [{name: MODE, value: ci}]
    retries: 1
    timeout: 5m
  steps:
  - {name: fetch, script: git clone, env: [{name: BRANCH, value: dev}]}
  - {name: lint, command: [lint], dependsOn: [fetch], onError: FailAtEnd, timeout: 1m}
  - {name: test, command: [test], dependsOn: [fetch], inputs: [{step: fetch, output: SHA}], workingDir: /src}
  - {name: notify, image: "curl:8", command: [curl], finally: true}
`

// TestOverride proves how the list of a Pod that names a Task chooses and orders the Task's steps, and overrides single options.
func TestOverride(t *testing.T) {
	const (
		fetch  = `"fetch":{"timeout":300000000000,"retries":1,"defaultWorkDir":"/workspace"}`
		lint   = `"lint":{"timeout":60000000000,"retries":1,"failAtEnd":true,"dependsOn":["fetch"],"defaultWorkDir":"/workspace"}`
		test   = `"test":{"timeout":300000000000,"retries":1,"dependsOn":["fetch"],"inputs":[{"name":"SHA","step":"fetch","output":"SHA"}]}`
		notify = `"notify":{"timeout":300000000000,"retries":1,"finally":true,"defaultWorkDir":"/workspace"}`
	)
	cases := map[string]struct{ list, steps, options string }{
		"no list":                  {"", "fetch,lint,test,notify", "{" + fetch + "," + lint + "," + notify + "," + test + "}"},
		"names":                    {"fetch, test", "fetch,test", "{" + fetch + "," + test + "}"},
		"names in YAML":            {"[fetch, test]", "fetch,test", "{" + fetch + "," + test + "}"},
		"another order":            {"[fetch, test, lint]", "fetch,test,lint", "{" + fetch + "," + lint + "," + test + "}"},
		"one option":               {"[fetch, {name: test, retries: 0}]", "fetch,test", "{" + fetch + "," + strings.Replace(test, `"retries":1,`, "", 1) + "}"},
		"another time and onError": {"[fetch, {name: lint, timeout: 2m, onError: Stop}]", "fetch,lint", "{" + fetch + "," + strings.NewReplacer("60000000000", "120000000000", `"failAtEnd":true,`, "").Replace(lint) + "}"},
		"another graph":            {"[fetch, lint, {name: test, dependsOn: [lint]}]", "fetch,lint,test", "{" + fetch + "," + lint + "," + strings.Replace(test, `"dependsOn":["fetch"]`, `"dependsOn":["lint"]`, 1) + "}"},
		"no more inputs":           {"[fetch, {name: test, inputs: []}]", "fetch,test", "{" + fetch + "," + `"test":{"timeout":300000000000,"retries":1,"dependsOn":["fetch"]}}`},
		"a final step": {
			"[fetch, {name: lint, finally: true}]", "fetch,lint",
			"{" + fetch + "," + `"lint":{"timeout":60000000000,"retries":1,"failAtEnd":true,"finally":true,"defaultWorkDir":"/workspace"}}`,
		},
		"not a final step": {
			"[fetch, {name: notify, finally: false}]", "fetch,notify", "{" + fetch + "," + strings.Replace(notify, `,"finally":true`, "", 1) + "}",
		},
		"a step of the Pod": {
			"[fetch, {name: mine, dependsOn: [], retries: 5}]", "fetch,mine", "{" + fetch + `,"mine":{"retries":5,"dependsOn":[]}}`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(`{"name":"task","image":"task"}`)))
			if c.list != "" {
				pod.Annotations = map[string]string{contract.StepsAnnotation: c.list}
			}
			if strings.Contains(c.steps, "mine") {
				pod.Spec.Containers = append(pod.Spec.Containers, step("mine"))
			}
			raw, _ := admit(t, encode(t, pod), readTask(t, graph))
			assertUnchanged(t, raw)
			got := decodePod(t, raw).Annotations
			if diff := cmp.Diff(c.steps, got[contract.StepsAnnotation]); diff != "" {
				t.Errorf("the steps (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.options, got[contract.OptionsAnnotation]); diff != "" {
				t.Errorf("the options (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOverrideRejects proves where the sentences about a Pod that names a Task point to.
func TestOverrideRejects(t *testing.T) {
	cases := map[string]struct {
		list string
		edit func(*corev1.Pod) // may be nil
		want string
	}{
		"a predecessor that is left out": {
			"fetch,test,lint,notify", func(pod *corev1.Pod) { pod.Annotations[contract.StepsAnnotation] = "lint,notify" },
			`the Task "build": spec.steps[1].dependsOn[0]: the Pod leaves out the step "fetch": add it to the annotation taskflow.practice.com/steps, or override the field there`,
		},
		"an option of the Pod": {
			"[fetch, {name: test, dependsOn: [lint]}]", nil,
			`metadata.annotations: taskflow.practice.com/steps[1].dependsOn[0]: there is no step "lint" in the list: add it, or fix the name`,
		},
		"the order of the Pod": {
			"[test, fetch]", nil,
			`metadata.annotations: taskflow.practice.com/steps[0]: the step "fetch" stands later in the list: move it before "test"`,
		},
		"an order by names": {
			"test,fetch", nil,
			`metadata.annotations: taskflow.practice.com/steps[0]: the step "fetch" stands later in the list: move it before "test"`,
		},
		"a final step first": {
			"[notify, fetch]", nil,
			`metadata.annotations: taskflow.practice.com/steps[0]: the final step "notify" stands before the step "fetch", which is not final: move it to the end of the list`,
		},
		"a final step of the Pod first": {
			"[{name: fetch, finally: true}, lint]", nil,
			`metadata.annotations: taskflow.practice.com/steps[0].finally: the final step "fetch" stands before the step "lint", which is not final: move it to the end of the list`,
		},
		"an input that comes later": {
			"[{name: test, dependsOn: []}, fetch]", nil,
			`metadata.annotations: taskflow.practice.com/steps[0]: the step "fetch" stands later in the list: move it before "test"`,
		},
		"final steps only": {
			"notify", nil,
			`metadata.annotations: taskflow.practice.com/steps names final steps only: name the steps that do the work, too`,
		},
		"a param": {
			"[fetch, {name: test, inputs: [{step: fetch, output: DAY}]}]", nil,
			`metadata.annotations: taskflow.practice.com/steps[1].inputs[0]: spec.params of the Task "build" sets the variable DAY, too: remove one of them`,
		},
		"a variable of stepTemplate": {
			"[fetch, {name: test, inputs: [{step: fetch, output: MODE}]}]", nil,
			`metadata.annotations: taskflow.practice.com/steps[1].inputs[0]: spec.stepTemplate.env of the Task "build" sets the variable MODE, too: remove one of them`,
		},
		"a variable of the Pod": {
			"[fetch, test]", func(pod *corev1.Pod) {
				container := corev1.Container{Name: "test", Image: "task", Env: []corev1.EnvVar{{Name: "SHA", Value: "1"}}}
				pod.Spec.Containers = append(pod.Spec.Containers, container)
			},
			`the Task "build": spec.steps[2].inputs[0]: env of the step "test" sets the variable SHA, too: remove one of them`,
		},
		"an unknown step": {
			"[fetch, {name: tests}]", nil,
			`metadata.annotations: taskflow.practice.com/steps names "tests", which is neither a step of the Task "build" nor a container of the Pod: fix the name (the Task's steps: fetch, lint, test, notify)`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(`{"name":"task","image":"task"}`)))
			pod.Annotations = map[string]string{contract.StepsAnnotation: c.list}
			if c.edit != nil {
				c.edit(pod)
			}
			if diff := cmp.Diff(outcome{Rejection: c.want}, mutateRaw(t, encode(t, pod), readTask(t, graph))); diff != "" {
				t.Errorf("the outcome (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOverrideWarns proves that a list with options warns of the Task's steps that it leaves out, and that names alone are a choice.
func TestOverrideWarns(t *testing.T) {
	cases := map[string]struct{ list, want string }{
		"one step":     {"- {name: fetch, retries: 3}", `steps of the Task "build" that this Pod leaves out: lint, test, notify: name them in the list to run them`},
		"names":        {"[fetch, lint, test]", `steps of the Task "build" that this Pod leaves out: notify: name them in the list to run them`},
		"all steps":    {"[fetch, lint, {name: test, retries: 0}, notify]", ""},
		"comma":        {"fetch,lint", ""},
		"no list":      {"", ""},
		"only a comma": {",", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := decodePod(t, []byte(naming(`{"name":"task","image":"task"}`)))
			pod.Annotations = map[string]string{contract.StepsAnnotation: c.list}
			_, warnings := admit(t, encode(t, pod), readTask(t, graph))
			if diff := cmp.Diff(c.want, strings.Join(warnings, "\n")); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOwnVariables proves that a variable of a step that taskflow sets causes a warning, in a Pod and in a Task.
func TestOwnVariables(t *testing.T) {
	const list = "[{name: a}, {name: b, finally: true}]"
	cases := map[string]struct {
		env  string
		want []string
	}{
		"an output":     {contract.OutputVariable, []string{`env of the step "a" sets TASKFLOW_OUTPUT, and taskflow sets it, too: choose another name`, `env of the step "b" sets TASKFLOW_OUTPUT, and taskflow sets it, too: choose another name`}},
		"a status":      {contract.StatusVariable, []string{`env of the step "b" sets TASKFLOW_STATUS, and taskflow sets it, too: choose another name`}},
		"a failed step": {contract.FailedStepVariable, []string{`env of the step "b" sets TASKFLOW_FAILED_STEP, and taskflow sets it, too: choose another name`}},
		"another":       {"TASKFLOW_HOME", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task, pod := readTask(t, "spec: {steps: "+list+"}"), decodePod(t, fromYAML(t, listPod("a b", list)))
			for i := range 2 {
				env := []corev1.EnvVar{{Name: c.env, Value: "x"}}
				pod.Spec.Containers[i].Env, task.Spec.Steps[i].Env = env, env
			}
			_, warnings := admit(t, encode(t, pod))
			if diff := cmp.Diff(c.want, warnings); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, TaskWarnings(task)); diff != "" {
				t.Errorf("the Task (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNamedTaskShared proves that a Pod that names a Task gets the Task's params, workspace and stepTemplate, and overrides them with its own
// containers and volumes.
func TestNamedTaskShared(t *testing.T) {
	pod := decodePod(t, []byte(naming(`{"name":"fetch","image":"task","env":[{"name":"DAY","value":"monday"},{"name":"MINE","value":"x"}]},{"name":"task","image":"task"}`)))
	raw, warnings := admit(t, encode(t, pod), readTask(t, graph))
	if diff := cmp.Diff([]string(nil), warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	admitted := decodePod(t, raw)
	type container struct {
		Image, WorkDir string // --default-workdir
		Env            string
		Mounted        bool
	}
	got := map[string]container{}
	for _, c := range admitted.Spec.Containers {
		flags, err := contract.ParseAgentFlags(c.Args)
		if err != nil {
			t.Fatal(err)
		}
		var env []string
		for _, v := range c.Env {
			env = append(env, v.Name+"="+v.Value)
		}
		isMounted := false
		for _, m := range c.VolumeMounts {
			isMounted = isMounted || m.Name == "workspace" && m.MountPath == "/workspace"
		}
		got[c.Name] = container{c.Image, flags.DefaultWorkDir, strings.Join(env, " "), isMounted}
	}
	want := map[string]container{
		"fetch":  {"alpine:3", "/workspace", "DAY=monday BRANCH=dev MODE=ci MINE=x", true},
		"lint":   {"alpine:3", "/workspace", "DAY=today BRANCH=main MODE=ci", true},
		"test":   {"alpine:3", "", "DAY=today BRANCH=main MODE=ci", true},
		"notify": {"curl:8", "/workspace", "DAY=today BRANCH=main MODE=ci", true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
	claim := admitted.Spec.Volumes[0].Ephemeral
	if claim == nil || claim.VolumeClaimTemplate.Spec.Resources.Requests.Storage().String() != "1Gi" || *claim.VolumeClaimTemplate.Spec.StorageClassName != "fast" {
		t.Errorf("the workspace is %+v", admitted.Spec.Volumes[0])
	}

	pod.Spec.Volumes = []corev1.Volume{{Name: "workspace", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/mine"}}}}
	raw, _ = admit(t, encode(t, pod), readTask(t, graph, func(task *v1alpha1.Task) { task.Spec.Workspace = &v1alpha1.Workspace{} }))
	if diff := cmp.Diff(pod.Spec.Volumes[0], decodePod(t, raw).Spec.Volumes[0]); diff != "" {
		t.Errorf("the Pod's own volume (-want +got):\n%s", diff)
	}
}
