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

// TestGate proves everything that is added to a Pod, and that nothing else changes. Its keys, names, paths and flags are spelled
// out, not taken from the contract: Pods in flight outlive an upgrade.
func TestGate(t *testing.T) {
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
		// Existing entries keep their places. A container that the annotation doesn't name is a helper: it stays unchanged, and the Pod
		// waits for it.
		"a subset in another order, beside the user's own fields": {
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

// TestGateLeavesOtherPodsAlone proves that a Pod without the labels stays unchanged, and is not checked.
func TestGateLeavesOtherPodsAlone(t *testing.T) {
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
		"a Pod that would be rejected": {
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

// TestGateReadsEveryVersionOfTheAPI proves that an owner in a later version of the API group is still a Task.
func TestGateReadsEveryVersionOfTheAPI(t *testing.T) {
	pod := taskPod(step("a"))
	pod.OwnerReferences[0].APIVersion = "api.practice.com/v1"
	if got := gateTyped(t, pod).Annotations[contract.OrderAnnotation]; got != "1" {
		t.Errorf("the order is %q, want 1", got)
	}
}

// TestGateStep proves what the agent of one step is told: its own parser reads the step's argv from its flags. A user's mount at, above or
// below the path of the order moves the order to another path.
func TestGateStep(t *testing.T) {
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
		"command and args":                     {command([]string{"a", "b"}, []string{"c", ""}), argv("a", "b", "c", "")},
		"command alone":                        {command([]string{"/app"}, nil), argv("/app")},
		"a command that resembles the agent's": {command([]string{"--command"}, []string{"--wait", "x", "--command"}), argv("--command", "--wait", "x", "--command")},
		"a command that is the agent":          {command([]string{contract.AgentPath}, []string{"install", "x"}), argv(contract.AgentPath, "install", "x")},
		"variables and line feeds":             {command([]string{"sh", "-c", "echo\n$(A) $$(B)"}, nil), argv("sh", "-c", "echo\n$(A) $$(B)")},
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
		"mounts elsewhere":                   {mounts("/work", "/etc/podinfo2", "/etc/pod", "/etcetera", "/taskflow2", "/var/taskflow"), flags()},
		"a mount at /etc/podinfo":            {mounts("/work", "/etc/podinfo"), aside},
		"a mount above":                      {mounts("/etc"), aside},
		"a mount below":                      {mounts("/etc/podinfo/x"), aside},
		"a mount there, in another spelling": {mounts("/etc//podinfo/./"), aside},
		"a mount above, with a slash":        {mounts("/etc/"), aside},
		"a relative mount there":             {mounts("etc/podinfo"), aside},
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
			// The rest of the container is unchanged.
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
