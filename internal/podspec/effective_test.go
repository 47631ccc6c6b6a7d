package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// template has each field of a stepTemplate that a container has, too.
const template = `
image: base
imagePullPolicy: Always
workingDir: /base
env: [{name: A, value: a}, {name: B, value: $(A)}, {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
envFrom: [{configMapRef: {name: settings}}, {prefix: T_, secretRef: {name: token}}]
volumeMounts: [{name: work, mountPath: /work}, {name: cache, mountPath: /cache, readOnly: true}]
resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {memory: 2Gi}, claims: [{name: gpu}]}
securityContext:
  runAsUser: 1
  runAsNonRoot: true
  capabilities: {drop: [ALL], add: [CHOWN]}
  seccompProfile: {type: Localhost, localhostProfile: x}
  seLinuxOptions: {level: s0, role: r}
`

// TestStepTemplate proves that a step overrides the stepTemplate as a Pod that names a Task overrides the Task's container: as a strategic merge patch.
func TestStepTemplate(t *testing.T) {
	cases := map[string]string{
		"nothing":            `{}`,
		"single values":      `{image: own, imagePullPolicy: Never, workingDir: /own}`,
		"other fields":       `{command: [x], ports: [{containerPort: 80}], terminationMessagePath: /x}`,
		"variables":          `{env: [{name: D, value: d}, {name: B, value: own}, {name: C, value: own}]}`,
		"a variable twice":   `{env: [{name: B, value: one}, {name: B, value: two}, {name: D, value: d}, {name: D, value: e}]}`,
		"sources":            `{envFrom: [{secretRef: {name: own}}, {configMapRef: {name: settings}}]}`,
		"mounts":             `{volumeMounts: [{name: own, mountPath: /own}, {name: other, mountPath: /cache, subPath: x}]}`,
		"resources":          `{resources: {requests: {cpu: "1", nvidia.com/gpu: "1"}, limits: {cpu: "2"}, claims: [{name: other}]}}`,
		"a security context": `{securityContext: {runAsUser: 0, runAsNonRoot: false, privileged: true}}`,
		"capabilities":       `{securityContext: {capabilities: {drop: [NET_RAW]}}}`,
		"profiles":           `{securityContext: {seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: Unconfined}}}`,
		"SELinux":            `{securityContext: {seLinuxOptions: {level: s1}}}`,
	}
	var base v1alpha1.StepTemplate
	if err := yaml.UnmarshalStrict([]byte(template), &base); err != nil {
		t.Fatal(err)
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			var own corev1.Container
			if err := yaml.UnmarshalStrict([]byte(text), &own); err != nil {
				t.Fatal(err)
			}
			own.Name = "a"
			merged, err := mergeContainer(fieldsOf(base), fieldsOf(own))
			if err != nil {
				t.Fatal(err)
			}
			want, err := containerOf(merged)
			if err != nil {
				t.Fatal(err)
			}
			task := &v1alpha1.Task{Spec: v1alpha1.TaskSpec{StepTemplate: &base, Steps: []v1alpha1.Step{{Container: own}}}}
			before := task.DeepCopy()
			if diff := cmp.Diff(want, EffectiveSteps(task)[0].Container); diff != "" {
				t.Errorf("the container (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, task); diff != "" {
				t.Errorf("EffectiveSteps changed the Task (-before +after):\n%s", diff)
			}
		})
	}
}

// TestEffectiveOptions proves which timeout and retries of the stepTemplate apply, and that params stand before all other variables.
func TestEffectiveOptions(t *testing.T) {
	task := readTask(t, `
metadata: {name: x}
spec:
  params: [{name: P, value: p}, {name: A, value: param}, {name: B}]
  stepTemplate: {timeout: 1m, retries: 3, env: [{name: A, value: template}]}
  steps:
  - {name: a, image: x}
  - {name: b, image: x, timeout: 2m, retries: 0, env: [{name: C, value: $(P)}, {name: B, value: own}]}
`)
	type effective struct {
		Timeout string
		Retries int32
		Env     []corev1.EnvVar
	}
	var got []effective
	for _, step := range EffectiveSteps(task) {
		got = append(got, effective{step.Timeout.Duration.String(), *step.Retries, step.Env})
	}
	want := []effective{
		{"1m0s", 3, []corev1.EnvVar{{Name: "P", Value: "p"}, {Name: "A", Value: "template"}, {Name: "B"}}},
		{"2m0s", 0, []corev1.EnvVar{{Name: "P", Value: "p"}, {Name: "A", Value: "template"}, {Name: "B", Value: "own"}, {Name: "C", Value: "$(P)"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("EffectiveSteps (-want +got):\n%s", diff)
	}
}

// TestWorkspace proves the volume of each kind of workspace in a Task's own Pod, where it is mounted, and which steps run in it.
func TestWorkspace(t *testing.T) {
	size := resource.MustParse("5Gi")
	claim := func(name string) corev1.VolumeSource {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
	}
	cases := map[string]struct {
		workspace *v1alpha1.Workspace
		step      string
		want      corev1.VolumeSource
		mounts    []corev1.VolumeMount
		dir       string
	}{
		"a directory": {
			&v1alpha1.Workspace{}, "{}", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			[]corev1.VolumeMount{mount("workspace", "/workspace")}, "/workspace",
		},
		"a claim of the Task": {
			&v1alpha1.Workspace{Size: &size}, "{}", claim("job-workspace"), []corev1.VolumeMount{mount("workspace", "/workspace")}, "/workspace",
		},
		"a claim that exists": {
			&v1alpha1.Workspace{ClaimName: "mine"}, "{}", claim("mine"), []corev1.VolumeMount{mount("workspace", "/workspace")}, "/workspace",
		},
		"a step with a workingDir": {
			&v1alpha1.Workspace{ClaimName: "mine"}, "{workingDir: /src}", claim("mine"), []corev1.VolumeMount{mount("workspace", "/workspace")}, "",
		},
		"a step with another mount there": {
			&v1alpha1.Workspace{ClaimName: "mine"}, "{volumeMounts: [{name: own, mountPath: /workspace/}]}", claim("mine"),
			[]corev1.VolumeMount{mount("own", "/workspace/")}, "",
		},
		"a step with the workspace elsewhere, too": {
			&v1alpha1.Workspace{ClaimName: "mine"}, "{volumeMounts: [{name: workspace, mountPath: /data}]}", claim("mine"),
			[]corev1.VolumeMount{mount("workspace", "/data"), mount("workspace", "/workspace")}, "/workspace",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var step v1alpha1.Step
			if err := yaml.UnmarshalStrict([]byte(c.step), &step); err != nil {
				t.Fatal(err)
			}
			step.Name, step.Image, step.Command = "a", "x", []string{"x"}
			task := &v1alpha1.Task{Spec: v1alpha1.TaskSpec{Workspace: c.workspace, Steps: []v1alpha1.Step{step}}}
			task.Name = "job"
			pod := New(task, 1, nil)
			if diff := cmp.Diff([]corev1.Volume{{Name: "workspace", VolumeSource: c.want}}, pod.Spec.Volumes); diff != "" {
				t.Errorf("volumes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.mounts, pod.Spec.Containers[0].VolumeMounts); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "own"})
			flags, err := contract.ParseAgentFlags(gateTyped(t, pod).Spec.Containers[0].Args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.dir, flags.DefaultWorkDir); diff != "" {
				t.Errorf("--default-workdir (-want +got):\n%s", diff)
			}
		})
	}
	task := &v1alpha1.Task{Spec: v1alpha1.TaskSpec{Workspace: &v1alpha1.Workspace{Size: &size, StorageClassName: new("fast")}}}
	task.Name, task.Namespace, task.UID = "job", "ns", "1"
	wantClaim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": size}},
		StorageClassName: new("fast"),
	}}
	wantClaim.Name, wantClaim.Namespace, wantClaim.OwnerReferences = "job-workspace", "ns", New(task, 1, nil).OwnerReferences
	if diff := cmp.Diff(wantClaim, WorkspaceClaim(task)); diff != "" {
		t.Errorf("WorkspaceClaim (-want +got):\n%s", diff)
	}
}

// TestValidateTask proves each rejection of a field of a Task beside its steps.
func TestValidateTask(t *testing.T) {
	const noName = "can't be the name of a variable: use letters, digits and _, and don't begin with a digit"
	cases := map[string]struct{ spec, want string }{
		"all of it": {"{params: [{name: A}], stepTemplate: {image: x}, workspace: {size: 1Gi, storageClassName: x}, timeout: 1h, finallyTimeout: 1m, cancel: true, cancelFinally: true, steps: [{name: a}, {name: b, finally: true}]}", ""},
		"params in too many steps": {"{params: [{name: A, value: " + strings.Repeat("x", 11000) + "}], stepTemplate: {image: x}, steps: [" + strings.Repeat("{name: a}, ", 100) + "]}",
			"spec.stepTemplate and spec.params: they have 11056 bytes, so 1105600 in all 100 steps, and at most 1048576 fit into a Pod: put large values into a ConfigMap, and name it in envFrom"},
		"long conditions": {
			"{stepTemplate: {image: x}, steps: [{name: a}, {name: b, when: [{step: a, output: K, in: [" + strings.Repeat(strings.Repeat("x", 1400)+", ", 95) + "z]}]}]}",
			"spec.steps: when, inputs and exitCodes of all steps take 133352 bytes, and they may take 131072: the Pod has them in an annotation; use fewer or shorter values",
		},
		"no image":                   {"{steps: [{name: a, image: x}, {name: b}]}", `spec.steps[1].image: the step "b" has no image: set it here or in spec.stepTemplate`},
		"finallyTimeout alone":       {"{finallyTimeout: 1m, steps: [{name: a, image: x}]}", "spec.finallyTimeout has no effect without timeout: set spec.timeout, or remove finallyTimeout"},
		"cancelFinally alone":        {"{cancelFinally: true, steps: [{name: a, image: x}]}", "spec.cancelFinally has no effect without cancel: set spec.cancel to true, too, or remove cancelFinally"},
		"a param with a dash":        {"{params: [{name: A}, {name: a-b}], steps: []}", `spec.params[1].name: "a-b" ` + noName},
		"a param without name":       {`{params: [{name: ""}], steps: []}`, `spec.params[0].name: "" ` + noName},
		"a param of the agent":       {"{params: [{name: TASKFLOW_STATUS}], steps: []}", "spec.params[0].name: variables that start with TASKFLOW_ are reserved for taskflow: choose another name"},
		"a param twice":              {"{params: [{name: A}, {name: A}], steps: []}", "spec.params[1].name: the param A is there twice: remove one"},
		"two claims":                 {"{workspace: {size: 1Gi, claimName: x}, steps: []}", "spec.workspace: size makes a claim, and claimName names another one: set only one of them"},
		"no size":                    {"{workspace: {size: 0}, steps: []}", "spec.workspace.size: 0 must be above 0, such as 1Gi"},
		"a class without size":       {"{workspace: {storageClassName: x}, steps: []}", "spec.workspace.storageClassName has no effect without size: set size, or remove storageClassName"},
		"a volume with the name":     {"{workspace: {}, steps: [], template: {spec: {volumes: [{name: a}, {name: workspace}]}}}", `spec.template.spec.volumes: the name "workspace" is the volume of spec.workspace: rename the volume, or remove workspace`},
		"a volume without workspace": {"{steps: [], template: {spec: {volumes: [{name: workspace}]}}}", ""},
		"a param that is an input":   {"{params: [{name: A}], steps: [{name: a, image: x}, {name: b, image: x, inputs: [{step: a, output: A}]}]}", `spec.steps[1].inputs[0]: spec.params sets the variable A, too: remove one of them`},
		"a variable of the template": {"{stepTemplate: {image: x, env: [{name: A}]}, params: [{name: A}], steps: [{name: a}, {name: b, inputs: [{step: a, output: A}]}]}", `spec.steps[1].inputs[0]: spec.stepTemplate.env sets the variable A, too: remove one of them`},
		"a variable of the step":     {"{params: [{name: A}], steps: [{name: a, image: x}, {name: b, image: x, env: [{name: A}], inputs: [{step: a, output: A}]}]}", `spec.steps[1].inputs[0]: env of the step "b" sets the variable A, too: remove one of them`},
		"no final step":              {"{timeout: 1h, finallyTimeout: 1m, steps: [{name: a, image: x}]}", "spec.finallyTimeout has no effect without a final step: set finally: true of a step, or remove finallyTimeout"},
		"a retry by the template":    {"{stepTemplate: {image: x, retries: 1}, steps: [{name: a, exitCodes: [{in: [3], then: Retry}]}]}", ""},
		"no retry by the step":       {"{stepTemplate: {image: x, retries: 1}, steps: [{name: a, retries: 0, exitCodes: [{in: [3], then: Retry}]}]}", `spec.steps[0].exitCodes[0].then: Retry has no effect without retries: set retries of the step "a", or remove the rule`},
		"retries of the template":    {"{stepTemplate: {retries: 101}, steps: [{name: a, image: x}]}", "spec.steps[0].retries: 101 must be between 0 and 100"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := ValidateTask(readTask(t, "spec: "+c.spec)); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("ValidateTask (-want +got):\n%s", diff)
			}
		})
	}
}
