//go:build apiserver

package apiserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TestInvalidGraphs proves that the schema refuses what it can tell of the fields of steps side by side, in one sentence that names the field and
// the remedy.
func TestInvalidGraphs(t *testing.T) {
	for name, test := range map[string]struct{ spec, want string }{
		"a failure at the end of a step that is run again": {
			spec: "steps: [{name: a, image: x, onError: FailAtEnd}], template: {spec: {restartPolicy: OnFailure}}",
			want: "spec: Invalid value: the step \"a\" has onError: FailAtEnd, and template.spec.restartPolicy: OnFailure restarts a failed step forever: set only one of them",
		},
		"a step without an image, and a template without one": {
			spec: "steps: [{name: a, image: x}, {name: b}], stepTemplate: {workingDir: /}",
			want: "spec.steps: Invalid value: the step \"b\" has no image: set image",
		},
		"cancelFinally alone": {
			spec: "steps: [{name: a, image: x}], cancelFinally: true",
			want: "spec: Invalid value: cancelFinally takes effect only together with cancel: set cancel: true, too",
		},
		"a workspace that is new and exists": {
			spec: "steps: [{name: a, image: x}], workspace: {size: 1Gi, claimName: mine}",
			want: "spec.workspace: Invalid value: workspace has size and claimName: set size for a new claim, or claimName for an existing one",
		},
		"a StorageClass without a claim": {
			spec: "steps: [{name: a, image: x}], workspace: {storageClassName: fast}",
			want: "spec.workspace: Invalid value: workspace.storageClassName takes effect only together with size: set size, too",
		},
		"a size that is no quantity": {
			spec: "steps: [{name: a, image: x}], workspace: {size: large}",
			want: "spec.workspace.size: Invalid value: \"large\": spec.workspace.size in body should match",
		},
		"two params of one name": {
			spec: "steps: [{name: a, image: x}], params: [{name: A, value: b}, {name: A, value: c}]",
			want: "spec.params[1]: Duplicate value: {\"name\":\"A\"}",
		},
		"too many params": {
			spec: "steps: [{name: a, image: x}], params: [" + strings.Repeat("{name: A},", 101) + "]",
			want: "spec.params: Too many: 101: must have at most 100 items",
		},
		"a rule without exit codes": {
			spec: "steps: [{name: a, image: x, exitCodes: [{in: [], then: Fail}]}]",
			want: "spec.steps[0].exitCodes[0].in: Invalid value: 0: spec.steps[0].exitCodes[0].in in body should have at least 1 items",
		},
		"an exit code that no command has": {
			spec: "steps: [{name: a, image: x, exitCodes: [{in: [256], then: Fail}]}]",
			want: "spec.steps[0].exitCodes[0].in[0]: Invalid value: 256: spec.steps[0].exitCodes[0].in[0] in body should be less than or equal to 255",
		},
		"an exit code that means something else": {
			spec: "steps: [{name: a, image: x, exitCodes: [{in: [3], then: Skip}]}]",
			want: "spec.steps[0].exitCodes[0].then: Unsupported value: \"Skip\": supported values: \"Succeed\", \"Finish\", \"Fail\", \"Retry\"",
		},
		"a condition of a state that isn't an end": {
			spec: "steps: [{name: a, image: x}, {name: b, image: x, when: [{step: a, state: {in: [Running]}}]}]",
			want: "spec.steps[1].when[0].state.in[0]: Unsupported value: \"Running\": supported values: \"Succeeded\", \"Failed\", \"Skipped\"",
		},
		"too many steps before a step": {
			spec: "steps: [{name: a, image: x, dependsOn: [" + strings.Repeat("b,", 101) + "]}]",
			want: "spec.steps[0].dependsOn: Too many: 101: must have at most 100 items",
		},
		"a step before a step with a name that is too long": {
			spec: "steps: [{name: a, image: x, dependsOn: [" + strings.Repeat("b", 64) + "]}]",
			want: "spec.steps[0].dependsOn[0]: Too long: may not be more than 63 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantInvalid(t, "{apiVersion: api.practice.com/v1alpha1, kind: Task, metadata: {name: invalid, namespace: default}, spec: {"+test.spec+"}}", test.want)
		})
	}
}

// TestValidGraph proves that the fields of steps side by side are accepted, that an image may come from the stepTemplate, and that an empty
// dependsOn, which means something else than none, is stored.
func TestValidGraph(t *testing.T) {
	task := parse(t, `
apiVersion: api.practice.com/v1alpha1
kind: Task
metadata: {name: graph}
spec:
  suspend: true
  stepTemplate:
    image: x
    imagePullPolicy: IfNotPresent
    workingDir: /src
    env: [{name: A, value: b}]
    envFrom: [{configMapRef: {name: a}}]
    volumeMounts: [{name: data, mountPath: /data}]
    resources: {requests: {cpu: 10m}}
    securityContext: {runAsUser: 1}
    timeout: 1m
    retries: 2
  params: [{name: DAY, value: today}, {name: EMPTY}]
  workspace: {size: 1Gi, storageClassName: fast}
  timeout: 1h
  finallyTimeout: 90s
  steps:
  - {name: a, command: [a], exitCodes: [{in: [0, 255], then: Finish}, {in: [3], then: Retry}]}
  - {name: b, command: [a], dependsOn: [], onError: FailAtEnd}
  - name: c
    command: [a]
    dependsOn: [a, b]
    when: [{step: a, output: CHANGED, in: ["true"]}, {step: b, state: {notIn: [Skipped]}}, {step: b, exitCode: {in: [0]}}]
    inputs: [{step: a, output: SHA}, {name: VERSION, step: b, output: VERSION, default: ""}]
  - {name: d, command: [a], finally: true}
  template: {spec: {volumes: [{name: data, emptyDir: {}}]}}
`)
	task.SetNamespace(cluster.NewNamespace(t, "privileged"))
	if err := client.WithFieldValidation(cluster, "Strict").Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	var stored v1alpha1.Task
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &stored); err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, step := range stored.Spec.Steps {
		got = append(got, step.DependsOn)
	}
	if diff := cmp.Diff([][]string{nil, {}, {"a", "b"}, nil}, got); diff != "" {
		t.Errorf("dependsOn of the steps (-want +got):\n%s", diff)
	}
	// Go clients write what they read.
	again := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "again", Namespace: task.GetNamespace()}, Spec: stored.Spec}
	cluster.Make(t, again)
	if diff := cmp.Diff(stored.Spec, again.Spec); diff != "" {
		t.Errorf("the spec, written from Go (-want +got):\n%s", diff)
	}
}
