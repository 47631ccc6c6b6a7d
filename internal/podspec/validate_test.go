package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestCheckProcess1 proves that a step can't run a program that must be process 1, but can run another program of the same name.
func TestCheckProcess1(t *testing.T) {
	refused := func(program string) string {
		return `the step "app" runs ` + program + `, which must be process 1, but taskflow's agent is: set command to the program that it starts`
	}
	cases := map[string]struct {
		command, args []string
		want          string
	}{
		"s6-overlay":               {[]string{"/init"}, nil, refused("/init")},
		"s6-overlay and a program": {[]string{"/init", "nginx"}, []string{"-g", "daemon off;"}, refused("/init")},
		"systemd as init":          {[]string{"/sbin/init"}, nil, refused("/sbin/init")},
		"systemd":                  {[]string{"/lib/systemd/systemd"}, []string{"--system"}, refused("/lib/systemd/systemd")},
		"systemd below /usr":       {[]string{"/usr/lib/systemd/systemd"}, nil, refused("/usr/lib/systemd/systemd")},
		"init below /usr":          {[]string{"/usr/sbin/init"}, nil, refused("/usr/sbin/init")},
		"an init for containers":   {[]string{"/sbin/tini", "--", "/init"}, nil, ""},
		"a script of that name":    {[]string{"/app/init"}, nil, ""},
		"a script in the PATH":     {[]string{"init"}, nil, ""},
		"a shell that becomes one": {[]string{"sh", "-c", "exec /init"}, nil, ""},
		"only an argument":         {[]string{"cat"}, []string{"/init"}, ""},
		"nothing":                  {nil, nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := checkStep(&corev1.Container{Name: "app", Command: c.command, Args: c.args}); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("checkStep (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGateRejects proves each rejection: one sentence with the field and the remedy.
func TestGateRejects(t *testing.T) {
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
		"an unknown hand-off": {
			annotation(contract.HandoffAnnotation, "local"),
			`metadata.annotations: taskflow.practice.com/handoff is "local": set it to controller, or remove it`,
		},
		"a hand-off that is empty": {
			annotation(contract.HandoffAnnotation, ""),
			`metadata.annotations: taskflow.practice.com/handoff is "": set it to controller, or remove it`,
		},
		"an unknown delivery": {
			annotation(contract.DeliveryAnnotation, "auto"),
			`metadata.annotations: taskflow.practice.com/agent-delivery is "auto": set it to init or image, or remove it`,
		},
		"a delivery that is empty": {
			annotation(contract.DeliveryAnnotation, ""),
			`metadata.annotations: taskflow.practice.com/agent-delivery is "": set it to init or image, or remove it`,
		},
		"a user's image as the agent's volume": {
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
		"a mount at /taskflow, in another spelling": {
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
		"a hook before the step's turn": {
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
		"a helper with restart rules": {
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
				t.Fatalf("gatePod = %v, want a rejection", patch)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("the rejection (-want +got):\n%s", diff)
			}
			if len(patch) != 0 {
				t.Errorf("beside the refusal there is the patch %v", patch)
			}
		})
	}
}
