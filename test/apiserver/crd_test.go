//go:build apiserver

package apiserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

func parse(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(manifest), &object.Object); err != nil {
		t.Fatal(err)
	}
	return &object
}

// TestInvalidTasks proves that the refusal of an invalid Task is one sentence that names the field and the remedy.
func TestInvalidTasks(t *testing.T) {
	const head = "apiVersion: api.practice.com/v1alpha1\nkind: Task\n"
	named := func(name string) string { return head + "metadata: {name: " + name + ", namespace: default}\nspec: " }
	spec := func(spec string) string { return named("invalid") + spec }
	tests := map[string]struct{ manifest, want string }{
		"no spec": {
			manifest: head + "metadata: {name: invalid, namespace: default}",
			want:     "spec: Required value",
		},
		"no steps": {
			manifest: spec("{}"),
			want:     "spec.steps: Required value",
		},
		"empty steps": {
			manifest: spec("{steps: []}"),
			want:     "spec.steps: Invalid value: a Task needs at least one step",
		},
		"two steps of one name": {
			manifest: spec("{steps: [{name: a, image: x}, {name: b, image: x}, {name: a, image: z}]}"),
			want:     "spec: Invalid value: two steps or sidecars have the name \"a\": give each a name of its own",
		},
		"a step without a name": {
			manifest: spec("{steps: [{image: x}]}"),
			want:     "spec.steps[0].name: Required value",
		},
		"a step with an empty name": {
			manifest: spec("{steps: [{name: '', image: x}]}"),
			want:     "spec.steps[0].name: Invalid value: \"\": the name of a step must be lower-case letters, digits and '-', start and end with a letter or digit, and have at most 63 characters",
		},
		"a step with a name that no container can have": {
			manifest: spec("{steps: [{name: Step_1, image: x}]}"),
			want:     "spec.steps[0].name: Invalid value: \"Step_1\": the name of a step must be lower-case letters",
		},
		"a step with a name that is too long": {
			manifest: spec("{steps: [{name: " + strings.Repeat("a", 64) + ", image: x}]}"),
			want:     "spec.steps[0].name: Too long: may not be more than 63 bytes",
		},
		"a step with a name of taskflow's own": {
			manifest: spec("{steps: [{name: taskflow-agent, image: x}]}"),
			want:     "spec.steps[0].name: Invalid value: \"taskflow-agent\": the name of a step can't start with taskflow-: such names are taskflow's own",
		},
		"a step without an image": {
			manifest: spec("{steps: [{name: a}]}"),
			want:     "spec.steps: Invalid value: the step \"a\" has no image: set image",
		},
		"a step with an empty image": {
			manifest: spec("{steps: [{name: a, image: ''}]}"),
			want:     "spec.steps: Invalid value: the step \"a\" has no image: set image",
		},
		"too many steps": {
			manifest: spec("{steps: [" + strings.Repeat("{name: a, image: x},", 101) + "]}"),
			want:     "spec.steps: Too many: 101: must have at most 100 items",
		},
		"a postStart hook": {
			manifest: spec("{steps: [{name: a, image: x, lifecycle: {postStart: {exec: {command: [x]}}}}]}"),
			want:     "spec.steps[0].lifecycle.postStart: Invalid value: lifecycle.postStart of a step would run before the step is released: put it into the step's command",
		},
		"a script and a command": {
			manifest: spec("{steps: [{name: a, image: x, script: x, command: [x]}]}"),
			want:     "spec.steps: Invalid value: the step \"a\" has script and command: set only one of them",
		},
		"an empty script": {
			manifest: spec("{steps: [{name: a, image: x, script: ''}]}"),
			want:     "spec.steps[0].script: Invalid value: \"\": spec.steps[0].script in body should be at least 1 chars long",
		},
		"a script that is too long": {
			manifest: spec("{steps: [{name: a, image: x, script: " + strings.Repeat("x", 65537) + "}]}"),
			want:     "spec.steps[0].script: Too long: may not be more than 65536 bytes",
		},
		"a failure that is neither": {
			manifest: spec("{steps: [{name: a, image: x, onError: Ignore}]}"),
			want:     "spec.steps[0].onError: Unsupported value: \"Ignore\": supported values: \"Stop\", \"Continue\", \"FailAtEnd\"",
		},
		"retries below 0": {
			manifest: spec("{steps: [{name: a, image: x, retries: -1}]}"),
			want:     "spec.steps[0].retries: Invalid value: -1: spec.steps[0].retries in body should be greater than or equal to 0",
		},
		"too many retries": {
			manifest: spec("{steps: [{name: a, image: x, retries: 101}]}"),
			want:     "spec.steps[0].retries: Invalid value: 101: spec.steps[0].retries in body should be less than or equal to 100",
		},
		"a backoffLimit below 0": {
			manifest: spec("{steps: [{name: a, image: x}], backoffLimit: -1}"),
			want:     "spec.backoffLimit: Invalid value: -1: spec.backoffLimit in body should be greater than or equal to 0",
		},
		"a backoffLimit that is too high": {
			manifest: spec("{steps: [{name: a, image: x}], backoffLimit: 101}"),
			want:     "spec.backoffLimit: Invalid value: 101: spec.backoffLimit in body should be less than or equal to 100",
		},
		"a time to live below 0": {
			manifest: spec("{steps: [{name: a, image: x}], ttlSecondsAfterFinished: -1}"),
			want:     "spec.ttlSecondsAfterFinished: Invalid value: -1: spec.ttlSecondsAfterFinished in body should be greater than or equal to 0",
		},
		"cancel and suspend": {
			manifest: spec("{steps: [{name: a, image: x}], cancel: true, suspend: true}"),
			want:     "spec: Invalid value: cancel and suspend are both true: set only one of them",
		},
		"two limits of the Pod's time": {
			manifest: spec("{steps: [{name: a, image: x}], timeout: 1m, template: {spec: {activeDeadlineSeconds: 60}}}"),
			want:     "spec: Invalid value: timeout and template.spec.activeDeadlineSeconds have the same meaning: set only timeout",
		},
		"a failed step that is passed over and run again": {
			manifest: spec("{steps: [{name: a, image: x, onError: Continue}], template: {spec: {restartPolicy: OnFailure}}}"),
			want:     "spec: Invalid value: the step \"a\" has onError: Continue, and template.spec.restartPolicy: OnFailure restarts a failed step forever: set only one of them",
		},
		"a sidecar with the name of a step": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: a, image: x}]}"),
			want:     "spec: Invalid value: two steps or sidecars have the name \"a\": give each a name of its own",
		},
		"two sidecars of one name": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: b, image: x}, {name: b, image: z}]}"),
			want:     "spec: Invalid value: two steps or sidecars have the name \"b\": give each a name of its own",
		},
		"a sidecar with a restart policy": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: b, image: x, restartPolicy: Always}]}"),
			want:     "spec.sidecars[0].restartPolicy: Invalid value: \"Always\": restartPolicy of a sidecar is Always: leave it out",
		},
		"a sidecar without an image": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: b}]}"),
			want:     "spec.sidecars: Invalid value: the sidecar \"b\" has no image: set image",
		},
		"a sidecar with a name that no container can have": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: B, image: x}]}"),
			want:     "spec.sidecars[0].name: Invalid value: \"B\": the name of a sidecar must be lower-case letters, digits and '-', start and end with a letter or digit, and have at most 63 characters",
		},
		"a sidecar with a name of taskflow's own": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [{name: taskflow-agent, image: x}]}"),
			want:     "spec.sidecars[0].name: Invalid value: \"taskflow-agent\": the name of a sidecar can't start with taskflow-: such names are taskflow's own",
		},
		"too many sidecars": {
			manifest: spec("{steps: [{name: a, image: x}], sidecars: [" + strings.Repeat("{name: b, image: x},", 21) + "]}"),
			want:     "spec.sidecars: Too many: 21: must have at most 20 items",
		},
		"a restart policy of a step": {
			manifest: spec("{steps: [{name: a, image: x, restartPolicy: Always}]}"),
			want:     "spec.steps[0].restartPolicy: Invalid value: \"Always\": restartPolicy of a step isn't supported: set template.spec.restartPolicy",
		},
		"rules of a step's restarts": {
			manifest: spec("{steps: [{name: a, image: x, restartPolicyRules: [{action: Restart}]}]}"),
			want:     "spec.steps[0].restartPolicyRules: Invalid value: restartPolicyRules of a step isn't supported: set template.spec.restartPolicy",
		},
		"a restart policy that never ends": {
			manifest: spec("{steps: [{name: a, image: x}], template: {spec: {restartPolicy: Always}}}"),
			want:     "spec.template.spec.restartPolicy: Invalid value: \"Always\": template.spec.restartPolicy must be Never or OnFailure: steps must be able to finish",
		},
		"containers in the template": {
			manifest: spec("{steps: [{name: a, image: x}], template: {spec: {containers: [{name: b}]}}}"),
			want:     "spec.template.spec.containers: Invalid value: template.spec.containers must be left out: the steps are the containers",
		},
		"an annotation of taskflow's own": {
			manifest: spec("{steps: [{name: a, image: x}], template: {metadata: {annotations: {taskflow.practice.com/order: '9'}}}}"),
			want:     "spec.template.metadata.annotations: Invalid value: template.metadata.annotations: taskflow.practice.com/order is set by taskflow: remove it; only taskflow.practice.com/handoff and taskflow.practice.com/agent-delivery can be set",
		},
		"a hand-off that there isn't": {
			manifest: spec("{steps: [{name: a, image: x}], template: {metadata: {annotations: {taskflow.practice.com/handoff: local}}}}"),
			want:     "spec.template.metadata.annotations: Invalid value: template.metadata.annotations: taskflow.practice.com/handoff is \"local\": set it to controller, or remove it",
		},
		"a delivery that there isn't": {
			manifest: spec("{steps: [{name: a, image: x}], template: {metadata: {annotations: {taskflow.practice.com/agent-delivery: auto}}}}"),
			want:     "spec.template.metadata.annotations: Invalid value: template.metadata.annotations: taskflow.practice.com/agent-delivery is \"auto\": set it to init or image, or remove it",
		},
		"a label of taskflow's own": {
			manifest: spec("{steps: [{name: a, image: x}], template: {metadata: {labels: {taskflow.practice.com/task: other}}}}"),
			want:     "spec.template.metadata.labels: Invalid value: template.metadata.labels: taskflow.practice.com/task is set by taskflow: remove it",
		},
		"a name that is too long for a label": {
			manifest: named(strings.Repeat("a", 64)) + "{steps: [{name: a, image: x}]}",
			want:     "metadata.name must have at most 63 characters: it becomes a label of the Task's Pod",
		},
		"a field that doesn't exist": {
			manifest: spec("{steps: [{name: a, image: x, comand: [y]}]}"),
			want:     `strict decoding error: unknown field "spec.steps[0].comand"`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { wantInvalid(t, test.manifest, test.want) })
	}
}

// wantInvalid checks the error of creating an object.
func wantInvalid(t *testing.T, manifest, want string) {
	t.Helper()
	// kubectl asks for strict validation, too: unknown fields are refused.
	err := client.WithFieldValidation(cluster, "Strict").Create(t.Context(), parse(t, manifest), client.DryRunAll)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got the error %v, and not %q", err, want)
	}
}

// TestValidTask proves that steps and template accept all fields of core/v1.
func TestValidTask(t *testing.T) {
	task := parse(t, `
apiVersion: api.practice.com/v1alpha1
kind: Task
metadata: {name: valid, namespace: default}
spec:
  suspend: true
  steps:
  - name: a
    image: x
    command: [a]
    ports: [{containerPort: 80}]
    env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {requests: {cpu: 10m}}
    readinessProbe: {exec: {command: [x]}}
    livenessProbe: {httpGet: {port: 80}}
    startupProbe: {tcpSocket: {port: 80}}
    lifecycle: {preStop: {exec: {command: [x]}}}
    timeout: 1m30s
    onError: Stop
    retries: 3
    volumeMounts: [{name: data, mountPath: /data}]
    terminationMessagePolicy: FallbackToLogsOnError
  - name: b
    image: x
    script: "#!/usr/bin/env python3\nprint(1)"
    args: [a]
  sidecars:
  - {name: proxy, image: x, startupProbe: {tcpSocket: {port: 80}}, lifecycle: {postStart: {exec: {command: [x]}}}}
  timeout: 1h
  backoffLimit: 100
  ttlSecondsAfterFinished: 0
  template:
    metadata: {labels: {team: a}, annotations: {note: b, taskflow.practice.com/handoff: controller, taskflow.practice.com/agent-delivery: image}}
    spec:
      restartPolicy: OnFailure
      initContainers: [{name: first, image: x}]
      volumes: [{name: data, emptyDir: {}}]
      securityContext: {runAsNonRoot: true}
      imagePullSecrets: [{name: secret}]
`)
	if err := client.WithFieldValidation(cluster, "Strict").Create(t.Context(), task, client.DryRunAll); err != nil {
		t.Error(err)
	}
}

// TestNotUTF8 proves that a command which isn't UTF-8 never runs as a different command. YAML with such bytes is refused at once. In JSON
// the API server replaces the bytes, and then the webhook refuses the Pod.
func TestNotUTF8(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	transport, err := rest.HTTPClientFor(environment.Config)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := apiutil.RESTClientForGVK(v1alpha1.GroupVersion.WithKind("Task"), false, false, environment.Config, scheme.Codecs, transport)
	if err != nil {
		t.Fatal(err)
	}
	create := func(contentType string) error {
		body := `{"apiVersion": "api.practice.com/v1alpha1", "kind": "Task", "metadata": {"name": "bytes"}, "spec": {"steps": [{"name": "a", "image": "x", "command": ["printf", "` + "\xff" + `"]}]}}`
		return raw.Post().Namespace(namespace).Resource("tasks").SetHeader("Content-Type", contentType).Body([]byte(body)).Do(t.Context()).Error()
	}
	if err := create("application/yaml"); err == nil || !strings.Contains(err.Error(), "yaml: invalid leading UTF-8 octet") {
		t.Errorf("got the error %v for YAML", err)
	}
	if err := create("application/json"); err != nil {
		t.Fatal(err)
	}
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "bytes", Namespace: namespace}}
	status := cluster.AwaitTask(t, task, "the refusal", func(s v1alpha1.TaskStatus) bool { return len(s.Conditions) > 0 })
	want := `the container "a" has U+FFFD in command or args, in place of bytes that aren't UTF-8: write them with a program, such as printf '\377'`
	if got := status.Conditions[0]; got.Reason != v1alpha1.ReasonPodRefused || !strings.HasSuffix(got.Message, want) {
		t.Errorf("the condition is %+v, and doesn't end in %q", got, want)
	}
	wantNoPod(t, task)
}

// TestKubectl proves that client-side kubectl apply accepts the CRD, although it keeps a copy of it in an annotation of limited size, and
// that kubectl explain describes taskflow's own fields.
func TestKubectl(t *testing.T) {
	kubectl := func(args ...string) string {
		t.Helper()
		config := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(config, environment.KubeConfig, 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), append([]string{"--kubeconfig", config}, args...)...)
		output, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, output)
		}
		return string(output)
	}
	applied := kubectl("apply", "--dry-run=server", "-f", "../../config/crd/tasks.yaml", "-o", `jsonpath={.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}`)
	if !strings.Contains(applied, "tasks.api.practice.com") {
		t.Errorf("the annotation of kubectl apply is %.100q", applied)
	}
	for field, want := range map[string]string{
		"task.spec.steps":          "steps are the containers to run, in this order",
		"task.spec.suspend":        "suspend stops taskflow from creating Pods",
		"task.status.steps.reason": "why the step is in this state",
	} {
		if got := strings.Join(strings.Fields(kubectl("explain", field)), " "); !strings.Contains(got, want) {
			t.Errorf("kubectl explain %s says nothing of %q: %s", field, want, got)
		}
	}

	namespace := cluster.NewNamespace(t, "privileged")
	task := makeEchoTask(t, namespace, "shown", "a", "b")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, ended(0), running())
	cluster.AwaitTask(t, task, "step b", func(s v1alpha1.TaskStatus) bool { return s.Progress == "1/2" && s.Phase == v1alpha1.TaskRunning })
	columns := func() string {
		fields := strings.Fields(kubectl("get", "tf", "-n", namespace))
		return strings.Join(fields[:len(fields)-1], " ") // without the column AGE
	}
	if diff := cmp.Diff("NAME STATUS PROGRESS STEP DURATION AGE shown Running 1/2 b", columns()); diff != "" {
		t.Errorf("kubectl get tasks, while it runs (-want +got):\n%s", diff)
	}
	setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0))
	kubectl("wait", "-n", namespace, "--for=condition=Complete", "--timeout=60s", "task/shown")
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("NAME STATUS PROGRESS STEP DURATION AGE shown Succeeded 2/2 "+task.Status.Duration, columns()); diff != "" {
		t.Errorf("kubectl get tasks, at the end (-want +got):\n%s", diff)
	}
	story := kubectl("describe", "-n", namespace, "task", "shown")
	for _, line := range []string{`created the Pod "shown"`, `step "a" succeeded`, `step "b" succeeded`, "all steps succeeded"} {
		if !strings.Contains(story, line) {
			t.Errorf("kubectl describe doesn't tell of %q: %s", line, story)
		}
	}
}
