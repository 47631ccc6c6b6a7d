package podspec

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestPlan proves the whole of what is added to a Pod, and that nothing else changes. Its keys, names, paths and flags are spelled
// out, not taken from the contract: Pods in flight outlive an upgrade.
func TestPlan(t *testing.T) {
	cases := map[string]struct{ pod, want string }{
		"three steps": {
			pod: `
metadata:
  name: example
  labels: {taskflow.practice.com/task: example}
  annotations: {taskflow.practice.com/steps: "step1,step2,step3"}
  ownerReferences: [{apiVersion: api.practice.com/v1alpha1, kind: Task, name: example, uid: "1", controller: true}]
spec:
  restartPolicy: Never
  containers:
  - {name: step1, image: "busybox:1.28", command: [sh, -c], args: [echo step1]}
  - {name: step2, image: "busybox:1.28", command: [/script.sh, "100"]}
  - {name: step3, image: scratch, command: [/app], args: [--wait, x, --command, ""], env: [{name: A, value: b}]}
`,
			want: `
metadata:
  name: example
  labels: {taskflow.practice.com/task: example, taskflow.practice.com/sequential: "true"}
  annotations: {taskflow.practice.com/steps: "step1,step2,step3", taskflow.practice.com/order: "1"}
  ownerReferences: [{apiVersion: api.practice.com/v1alpha1, kind: Task, name: example, uid: "1", controller: true}]
spec:
  restartPolicy: Never
  initContainers:
  - name: taskflow-agent
    image: example.com/taskflow/agent:1
    imagePullPolicy: IfNotPresent
    args: [install, /taskflow/bin/agent]
    resources: {requests: {cpu: 10m}, limits: {memory: 64Mi}}
    volumeMounts: [{name: taskflow-bin, mountPath: /taskflow/bin}]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      runAsUser: 65532
      runAsGroup: 65532
      seccompProfile: {type: RuntimeDefault}
  containers:
  - name: step1
    image: busybox:1.28
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "1", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --command, sh, -c, echo step1]
    volumeMounts:
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/1, subPath: "1"}
  - name: step2
    image: busybox:1.28
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "2", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --command, /script.sh, "100"]
    volumeMounts:
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/2, subPath: "2"}
  - name: step3
    image: scratch
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "3", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --command, /app, --wait, x, --command, ""]
    env: [{name: A, value: b}]
    volumeMounts:
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/3, subPath: "3"}
  volumes:
  - name: taskflow-bin
    emptyDir: {}
  - name: taskflow-run
    emptyDir: {}
  - name: taskflow-podinfo
    downwardAPI:
      items:
      - {path: order, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/order']"}}
      - {path: halt, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/halt']"}}
`,
		},
		// The agent's image is a volume, and there is no container but the user's.
		"the agent's image as a volume": {
			pod: `
metadata:
  name: example
  labels: {taskflow.practice.com/task: example}
  annotations: {taskflow.practice.com/steps: "step1,step2", taskflow.practice.com/agent-delivery: image}
spec:
  restartPolicy: Never
  initContainers:
  - {name: prepare, image: busybox}
  containers:
  - {name: step1, image: scratch, command: [/app]}
  - {name: step2, image: scratch, command: [/app], volumeMounts: [{name: work, mountPath: /work}]}
  volumes:
  - {name: work, emptyDir: {}}
`,
			want: `
metadata:
  name: example
  labels: {taskflow.practice.com/task: example, taskflow.practice.com/sequential: "true"}
  annotations: {taskflow.practice.com/steps: "step1,step2", taskflow.practice.com/agent-delivery: image, taskflow.practice.com/order: "1"}
spec:
  restartPolicy: Never
  initContainers:
  - {name: prepare, image: busybox}
  containers:
  - name: step1
    image: scratch
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "1", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --command, /app]
    volumeMounts:
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/1, subPath: "1"}
  - name: step2
    image: scratch
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "2", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --command, /app]
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/2, subPath: "2"}
  volumes:
  - {name: work, emptyDir: {}}
  - name: taskflow-bin
    image: {reference: "example.com/taskflow/agent:1", pullPolicy: IfNotPresent}
  - name: taskflow-run
    emptyDir: {}
  - name: taskflow-podinfo
    downwardAPI:
      items:
      - {path: order, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/order']"}}
      - {path: halt, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/halt']"}}
`,
		},
		// What is there keeps its place; a container that the annotation doesn't name is left alone, and waited for.
		"a subset in another order, beside what the user has": {
			pod: `
metadata:
  generateName: example-
  labels: {taskflow.practice.com/task: example, mine: label}
  annotations: {mine: annotation, taskflow.practice.com/steps: " last , first "}
  ownerReferences:
  - {apiVersion: example.com/v1, kind: Other, name: other, uid: "2"}
  - {apiVersion: api.practice.com/v1alpha1, kind: Task, name: example, uid: "1", controller: true}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: prepare, image: busybox}
  - {name: proxy, image: proxy, restartPolicy: Always}
  containers:
  - {name: first, image: busybox, command: ["true"], volumeMounts: [{name: work, mountPath: /work}, {name: data, mountPath: /data}]}
  - {name: helper, image: helper, volumeMounts: [{name: work, mountPath: /taskflow}]}
  - {name: last, image: busybox, command: ["true"]}
  volumes:
  - {name: work, emptyDir: {medium: Memory}}
  - {name: data, hostPath: {path: /}}
`,
			want: `
metadata:
  generateName: example-
  labels: {taskflow.practice.com/task: example, mine: label, taskflow.practice.com/sequential: "true"}
  annotations: {mine: annotation, taskflow.practice.com/steps: " last , first ", taskflow.practice.com/order: "0"}
  ownerReferences:
  - {apiVersion: example.com/v1, kind: Other, name: other, uid: "2"}
  - {apiVersion: api.practice.com/v1alpha1, kind: Task, name: example, uid: "1", controller: true}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: prepare, image: busybox}
  - {name: proxy, image: proxy, restartPolicy: Always}
  - name: taskflow-agent
    image: example.com/taskflow/agent:1
    imagePullPolicy: IfNotPresent
    args: [install, /taskflow/bin/agent]
    resources: {requests: {cpu: 10m}, limits: {memory: 64Mi}}
    volumeMounts: [{name: taskflow-bin, mountPath: /taskflow/bin}]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      runAsUser: 65532
      runAsGroup: 65532
      seccompProfile: {type: RuntimeDefault}
  containers:
  - name: first
    image: busybox
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "2", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --after-failure, wait, --again, --command, "true"]
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: data, mountPath: /data}
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/2, subPath: "2"}
  - {name: helper, image: helper, volumeMounts: [{name: work, mountPath: /taskflow}]}
  - name: last
    image: busybox
    command: [/taskflow/bin/agent]
    args: [--wait, /etc/podinfo/order, --waitcontent, "1", --out, stdout, --halt, /etc/podinfo/halt, --run, /taskflow/run, --again, --command, "true"]
    volumeMounts:
    - {name: taskflow-bin, mountPath: /taskflow/bin, readOnly: true}
    - {name: taskflow-podinfo, mountPath: /etc/podinfo, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run, readOnly: true}
    - {name: taskflow-run, mountPath: /taskflow/run/1, subPath: "1"}
  volumes:
  - {name: work, emptyDir: {medium: Memory}}
  - {name: data, hostPath: {path: /}}
  - name: taskflow-bin
    emptyDir: {}
  - name: taskflow-run
    emptyDir: {}
  - name: taskflow-podinfo
    downwardAPI:
      items:
      - {path: order, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/order']"}}
      - {path: halt, fieldRef: {fieldPath: "metadata.annotations['taskflow.practice.com/halt']"}}
`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := decode(t, fromYAML(t, c.want))
			if diff := cmp.Diff(want, decode(t, gate(t, fromYAML(t, c.pod)))); diff != "" {
				t.Errorf("the Pod after the patch (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanLeavesOtherPodsAlone proves that only the label makes a Pod taskflow's: without it, nothing is even looked at.
func TestPlanLeavesOtherPodsAlone(t *testing.T) {
	cases := map[string]*corev1.Pod{
		"an empty Pod": {},
		"another label": {
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "example"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{step("a")}},
		},
		"all but the label": func() *corev1.Pod {
			pod := taskPod(step("a"), step("b"))
			pod.Labels = nil
			return pod
		}(),
		"what would be refused": {
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{contract.OrderAnnotation: "1", contract.StepsAnnotation: "nope"}},
			Spec:       corev1.PodSpec{OS: &corev1.PodOS{Name: corev1.Windows}, Volumes: []corev1.Volume{{Name: contract.BinVolume}}},
		},
	}
	for name, pod := range cases {
		t.Run(name, func(t *testing.T) {
			assertNothingToAdd(t, encode(t, pod))
		})
	}
}

// TestPlanReadsEveryVersionOfTheAPI proves that the group alone makes the owner a Task: a later version is still one.
func TestPlanReadsEveryVersionOfTheAPI(t *testing.T) {
	pod := taskPod(step("a"))
	pod.OwnerReferences[0].APIVersion = "api.practice.com/v1"
	if got := gateTyped(t, pod).Annotations[contract.OrderAnnotation]; got != "1" {
		t.Errorf("the order is %q, want 1", got)
	}
}

// TestPlanStep proves what the agent of one step is told: read with the agent's own parser, its flags give back the step's
// argv. A mount of the user's at, above or below the order's place moves that aside.
func TestPlanStep(t *testing.T) {
	type edit = func(*corev1.Container)
	command := func(command, args []string) edit {
		return func(c *corev1.Container) { c.Command, c.Args = command, args }
	}
	mounts := func(paths ...string) edit {
		return func(c *corev1.Container) {
			for _, path := range paths {
				c.VolumeMounts = append(c.VolumeMounts, mount("work", path))
			}
		}
	}
	flags := func(edits ...func(*contract.AgentFlags)) contract.AgentFlags {
		f := contract.AgentFlags{
			Wait:           "/etc/podinfo/order",
			WaitContent:    1,
			Halt:           "/etc/podinfo/halt",
			Run:            "/taskflow/run",
			AfterFailure:   contract.AfterFailureStop,
			Out:            contract.OutStdout,
			TerminationLog: "/dev/termination-log",
			Grace:          30 * time.Second,
			Command:        []string{"sh", "-c", "echo a"},
		}
		for _, edit := range edits {
			edit(&f)
		}
		return f
	}
	argv := func(argv ...string) contract.AgentFlags {
		return flags(func(f *contract.AgentFlags) { f.Command = argv })
	}
	aside := flags(func(f *contract.AgentFlags) { f.Wait, f.Halt = "/taskflow/podinfo/order", "/taskflow/podinfo/halt" })

	cases := map[string]struct {
		edit edit
		want contract.AgentFlags
	}{
		"command and args":                   {command([]string{"a", "b"}, []string{"c", ""}), argv("a", "b", "c", "")},
		"command alone":                      {command([]string{"/app"}, nil), argv("/app")},
		"a command that is like the agent's": {command([]string{"--command"}, []string{"--wait", "x", "--command"}), argv("--command", "--wait", "x", "--command")},
		"a command that is the agent":        {command([]string{contract.AgentPath}, []string{"install", "x"}), argv(contract.AgentPath, "install", "x")},
		"variables and line feeds":           {command([]string{"sh", "-c", "echo\n$(A) $$(B)"}, nil), argv("sh", "-c", "echo\n$(A) $$(B)")},
		"the default termination message": {
			func(c *corev1.Container) {
				c.TerminationMessagePath, c.TerminationMessagePolicy = "/dev/termination-log", corev1.TerminationMessageReadFile
			},
			flags(),
		},
		"a termination message elsewhere": {
			func(c *corev1.Container) { c.TerminationMessagePath = "/tmp/my message" },
			flags(func(f *contract.AgentFlags) { f.TerminationLog = "/tmp/my message" }),
		},
		"a termination message from the log": {
			func(c *corev1.Container) {
				c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
			},
			flags(func(f *contract.AgentFlags) { f.FallbackToLogs = true }),
		},
		"mounts elsewhere":                      {mounts("/work", "/etc/podinfo2", "/etc/pod", "/etcetera", "/taskflow2", "/var/taskflow"), flags()},
		"a mount at /etc/podinfo":               {mounts("/work", "/etc/podinfo"), aside},
		"a mount above":                         {mounts("/etc"), aside},
		"a mount below":                         {mounts("/etc/podinfo/x"), aside},
		"a mount there, written in another way": {mounts("/etc//podinfo/./"), aside},
		"a mount above, with a slash":           {mounts("/etc/"), aside},
		"a relative mount there":                {mounts("etc/podinfo"), aside},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			container := step("a")
			c.edit(&container)
			got := gateTyped(t, taskPod(container)).Spec.Containers[0]

			gotFlags, err := contract.ParseAgentFlags(got.Args)
			if err != nil {
				t.Fatalf("ParseAgentFlags(%q): %v", got.Args, err)
			}
			if diff := cmp.Diff(c.want, gotFlags); diff != "" {
				t.Errorf("the agent's flags (-want +got):\n%s", diff)
			}
			// All else of the container is as it was.
			want := container
			want.Command, want.Args = []string{"/taskflow/bin/agent"}, got.Args
			want.VolumeMounts = slices.Concat(container.VolumeMounts, []corev1.VolumeMount{
				{Name: "taskflow-bin", MountPath: "/taskflow/bin", ReadOnly: true},
				{Name: "taskflow-podinfo", MountPath: c.want.Wait[:len(c.want.Wait)-len("/order")], ReadOnly: true},
				{Name: "taskflow-run", MountPath: "/taskflow/run", ReadOnly: true},
				{Name: "taskflow-run", MountPath: "/taskflow/run/1", SubPath: "1"},
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the container (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanHandOff proves what each step's agent is told of the step before it, and that a step can write to no directory but its own
// (PEERS row 13).
func TestPlanHandOff(t *testing.T) {
	own := func(n string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: "taskflow-run", MountPath: "/taskflow/run/" + n, SubPath: n}
	}
	all := corev1.VolumeMount{Name: "taskflow-run", MountPath: "/taskflow/run", ReadOnly: true}
	type told struct {
		Alone, Again bool
		AfterFailure string
		Mounts       []corev1.VolumeMount
	}
	const stop, goOn, wait = contract.AfterFailureStop, contract.AfterFailureContinue, contract.AfterFailureWait
	onFailure := func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }
	continues := func(pod *corev1.Pod) {
		pod.Annotations[contract.OptionsAnnotation] = contract.Options{"a": {ContinueOnError: true}}.Marshal()
	}
	controller := func(pod *corev1.Pod) { pod.Annotations["taskflow.practice.com/handoff"] = "controller" }
	mounts := [][]corev1.VolumeMount{{all, own("1")}, {all, own("2")}, {all, own("3")}}
	alone := [][]corev1.VolumeMount{{own("1")}, {own("2")}, {own("3")}}

	cases := map[string]struct {
		edits []func(*corev1.Pod)
		want  []told
	}{
		"restartPolicy Never": {nil, []told{
			{false, false, stop, mounts[0]}, {false, false, stop, mounts[1]}, {false, false, stop, mounts[2]},
		}},
		"restartPolicy OnFailure": {[]func(*corev1.Pod){onFailure}, []told{
			{false, true, stop, mounts[0]}, {false, true, wait, mounts[1]}, {false, true, wait, mounts[2]},
		}},
		"the first step may fail": {[]func(*corev1.Pod){continues}, []told{
			{false, false, stop, mounts[0]}, {false, false, goOn, mounts[1]}, {false, false, stop, mounts[2]},
		}},
		"the first step may fail, but is run again": {[]func(*corev1.Pod){continues, onFailure}, []told{
			{false, true, stop, mounts[0]}, {false, true, wait, mounts[1]}, {false, true, wait, mounts[2]},
		}},
		"the controller alone releases": {[]func(*corev1.Pod){controller, continues}, []told{
			{true, false, stop, alone[0]}, {true, false, stop, alone[1]}, {true, false, stop, alone[2]},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"), step("c"))
			for _, edit := range c.edits {
				edit(pod)
			}
			var got []told
			for _, container := range gateTyped(t, pod).Spec.Containers {
				flags, err := contract.ParseAgentFlags(container.Args)
				if err != nil {
					t.Fatalf("ParseAgentFlags(%q): %v", container.Args, err)
				}
				if flags.Run != "/taskflow/run" {
					t.Errorf("the run directory is %q", flags.Run)
				}
				run := slices.DeleteFunc(slices.Clone(container.VolumeMounts), func(m corev1.VolumeMount) bool { return m.Name != "taskflow-run" })
				got = append(got, told{flags.ControllerOnly, flags.RestartsOnFailure, flags.AfterFailure, run})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what the agents are told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanRefuses proves each refusal: one sentence with the field and the remedy.
func TestPlanRefuses(t *testing.T) {
	annotation := func(key, value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations[key] = value }
	}
	volume := func(name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.Volumes = []corev1.Volume{{Name: "work"}, {Name: name}}
		}
	}
	container := func(name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Spec.Containers = append(pod.Spec.Containers, step(name)) }
	}
	initContainer := func(name string, args ...string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name, Args: args})
		}
	}
	mounts := func(name, path string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{mount("fine", "/fine"), mount(name, path)}
		}
	}
	const (
		noSteps       = "metadata.annotations: taskflow.practice.com/steps is missing: set it to the names of the containers in their order"
		anotherName   = " starts with taskflow-, which is reserved for taskflow: choose another name"
		anotherPath   = ", which is reserved for taskflow: choose another mountPath"
		anotherVolume = ", and volume names that start with taskflow- are reserved for taskflow: choose another volume"
		noPolicy      = `the container "b" is a helper and has a restartPolicy of its own, which isn't supported: remove the restartPolicy, or make it an init container with restartPolicy: Always`
	)
	cases := map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"the order is set": {
			annotation(contract.OrderAnnotation, "3"),
			"metadata.annotations: only taskflow sets taskflow.practice.com/order: remove it",
		},
		"the order is set, and empty": {
			annotation(contract.OrderAnnotation, ""),
			"metadata.annotations: only taskflow sets taskflow.practice.com/order: remove it",
		},
		"halt is set": {
			annotation(contract.HaltAnnotation, "stop"),
			"metadata.annotations: only taskflow sets taskflow.practice.com/halt: remove it",
		},
		"a hand-off that there isn't": {
			annotation(contract.HandoffAnnotation, "local"),
			`metadata.annotations: taskflow.practice.com/handoff is "local": set it to controller, or remove it`,
		},
		"a hand-off that is empty": {
			annotation(contract.HandoffAnnotation, ""),
			`metadata.annotations: taskflow.practice.com/handoff is "": set it to controller, or remove it`,
		},
		"a delivery that there isn't": {
			annotation(contract.DeliveryAnnotation, "auto"),
			`metadata.annotations: taskflow.practice.com/agent-delivery is "auto": set it to init or image, or remove it`,
		},
		"a delivery that is empty": {
			annotation(contract.DeliveryAnnotation, ""),
			`metadata.annotations: taskflow.practice.com/agent-delivery is "": set it to init or image, or remove it`,
		},
		"an image of the user's as the agent's volume": {
			func(pod *corev1.Pod) {
				pod.Spec.Volumes = []corev1.Volume{{Name: "taskflow-bin", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "mine"}}}}
			},
			`spec.volumes: "taskflow-bin"` + anotherName,
		},
		"Windows": {
			func(pod *corev1.Pod) { pod.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			"spec.os.name: steps run on Linux nodes only: set it to linux, or leave it out",
		},
		"a volume of the agent's": {
			volume("taskflow-bin"),
			`spec.volumes: "taskflow-bin"` + anotherName,
		},
		"a volume with a name that begins alike": {
			volume("taskflow-data"),
			`spec.volumes: "taskflow-data"` + anotherName,
		},
		"a container with a name that begins alike": {
			container("taskflow-helper"),
			`the container name "taskflow-helper"` + anotherName,
		},
		"a container with the agent's name": {
			container("taskflow-agent"),
			`the container name "taskflow-agent"` + anotherName,
		},
		"an init container with the agent's name": {
			initContainer("taskflow-agent", "install", "/elsewhere"),
			`the container name "taskflow-agent"` + anotherName,
		},
		"an init container with a name that begins alike": {
			initContainer("taskflow-helper"),
			`the container name "taskflow-helper"` + anotherName,
		},
		"no annotations": {
			func(pod *corev1.Pod) { pod.Annotations = nil },
			noSteps,
		},
		"no names of steps": {
			annotation(contract.StepsAnnotation, ""),
			noSteps,
		},
		"nothing but commas": {
			annotation(contract.StepsAnnotation, " , "),
			noSteps,
		},
		"a step without a container": {
			annotation(contract.StepsAnnotation, "a,b,c,d"),
			`metadata.annotations: taskflow.practice.com/steps names "d", and the Pod has no container of that name: fix the name`,
		},
		"a step in another case": {
			annotation(contract.StepsAnnotation, "A"),
			`metadata.annotations: taskflow.practice.com/steps names "A", and the Pod has no container of that name: fix the name`,
		},
		"a step that is an init container": {
			func(pod *corev1.Pod) {
				initContainer("prepare")(pod)
				annotation(contract.StepsAnnotation, "prepare,a")(pod)
			},
			`metadata.annotations: taskflow.practice.com/steps names "prepare", and the Pod has no container of that name: fix the name`,
		},
		"a step twice": {
			annotation(contract.StepsAnnotation, "a,b,a"),
			`metadata.annotations: taskflow.practice.com/steps names "a" twice: name each container once`,
		},
		"no command": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Command, pod.Spec.Containers[1].Args = nil, nil },
			`the container "b" has no command: set command`,
		},
		"args alone": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Command = []string{} },
			`the container "b" has no command: set command`,
		},
		"an argument that was not UTF-8": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Args = []string{"fine", "a\ufffdb"} },
			`the container "b" has U+FFFD in command or args, in place of bytes that aren't UTF-8: write them with a program, such as printf '\377'`,
		},
		"a command that was not UTF-8": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Command = []string{"\ufffd"} },
			`the container "b" has U+FFFD in command or args, in place of bytes that aren't UTF-8: write them with a program, such as printf '\377'`,
		},
		"a mount at /taskflow": {
			mounts("work", "/taskflow"),
			`the container "b" mounts "work" at /taskflow` + anotherPath,
		},
		"a mount below /taskflow": {
			mounts("work", "/taskflow/bin/x"),
			`the container "b" mounts "work" at /taskflow/bin/x` + anotherPath,
		},
		"a mount at /taskflow, written in another way": {
			mounts("work", "//taskflow/../taskflow/"),
			`the container "b" mounts "work" at //taskflow/../taskflow/` + anotherPath,
		},
		"a relative mount at taskflow": {
			mounts("work", "taskflow"),
			`the container "b" mounts "work" at taskflow` + anotherPath,
		},
		"a mount of the run directory": {
			mounts("work", "/taskflow/run/2"),
			`the container "b" mounts "work" at /taskflow/run/2` + anotherPath,
		},
		"a mount of the run directory's volume": {
			mounts("taskflow-run", "/records"),
			`the container "b" mounts "taskflow-run"` + anotherVolume,
		},
		"a mount at the root": {
			mounts("work", "/"),
			`the container "b" mounts "work" at /` + anotherPath,
		},
		"a hook before the step's turn (PEERS row 28)": {
			func(pod *corev1.Pod) {
				pod.Spec.Containers[1].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
			},
			`the step "b" has lifecycle.postStart, which would run before its turn: put it into the command`,
		},
		"a step with a restart policy": {
			func(pod *corev1.Pod) {
				pod.Spec.Containers[1].RestartPolicy = new(corev1.ContainerRestartPolicyOnFailure)
			},
			`the step "b" has a restartPolicy of its own, which isn't supported: set spec.restartPolicy`,
		},
		"a helper with a restart policy": {
			func(pod *corev1.Pod) {
				annotation(contract.StepsAnnotation, "a,c")(pod)
				pod.Spec.Containers[1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
			},
			noPolicy,
		},
		"a helper with rules when to start it again": {
			func(pod *corev1.Pod) {
				annotation(contract.StepsAnnotation, "a,c")(pod)
				pod.Spec.Containers[1].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart}}
			},
			noPolicy,
		},
		"a device at /taskflow": {
			func(pod *corev1.Pod) {
				pod.Spec.Containers[1].VolumeDevices = []corev1.VolumeDevice{{Name: "disk", DevicePath: "/taskflow/disk"}}
			},
			`the container "b" has the device "disk" at /taskflow/disk, which is reserved for taskflow: choose another devicePath`,
		},
		"a mount of the agent's volume": {
			mounts("taskflow-bin", "/bin/agent"),
			`the container "b" mounts "taskflow-bin"` + anotherVolume,
		},
		"a mount of the agent's volume, in an init container": {
			func(pod *corev1.Pod) {
				pod.Spec.InitContainers = []corev1.Container{{Name: "prepare", VolumeMounts: []corev1.VolumeMount{mount("taskflow-bin", "/x")}}}
			},
			`the container "prepare" mounts "taskflow-bin"` + anotherVolume,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"), step("c"))
			c.edit(pod)
			patch, err := gateRaw(t, encode(t, pod))
			if err == nil {
				t.Fatalf("plan = %v, want a refusal", patch)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("the refusal (-want +got):\n%s", diff)
			}
			if len(patch) != 0 {
				t.Errorf("beside the refusal there is the patch %v", patch)
			}
		})
	}
}
