package podspec

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestGateTwice proves that a second call adds nothing, regardless of what another webhook changed in between: the API server calls again then
// (reinvocationPolicy: IfNeeded).
func TestGateTwice(t *testing.T) {
	// front puts a program before the command, as webhooks that fetch secrets do.
	front := func(edit func(*corev1.Container)) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			for i := range pod.Spec.Containers {
				edit(&pod.Spec.Containers[i])
			}
		}
	}
	helper := corev1.Container{Name: "helper", Image: "helper"} // without a command: as a step it would be refused
	cases := map[string]func(*corev1.Pod){
		"nothing": func(*corev1.Pod) {},
		"a container at the end": func(pod *corev1.Pod) {
			pod.Spec.Containers = append(pod.Spec.Containers, helper)
		},
		"a container before the steps": func(pod *corev1.Pod) {
			pod.Spec.Containers = slices.Insert(pod.Spec.Containers, 0, helper)
		},
		"a container between the steps": func(pod *corev1.Pod) {
			pod.Spec.Containers = slices.Insert(pod.Spec.Containers, 1, helper)
		},
		"init containers before and after the agent's": func(pod *corev1.Pod) {
			pod.Spec.InitContainers = slices.Concat([]corev1.Container{helper}, pod.Spec.InitContainers, []corev1.Container{{Name: "last"}})
		},
		"the steps in another order": func(pod *corev1.Pod) {
			slices.Reverse(pod.Spec.Containers)
		},
		"a volume, mounted everywhere": func(pod *corev1.Pod) {
			token := mount("token", "/etc/podinfo/token")
			pod.Spec.Volumes = slices.Insert(pod.Spec.Volumes, 0, corev1.Volume{Name: "token"})
			for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
				for i := range containers {
					containers[i].VolumeMounts = slices.Insert(containers[i].VolumeMounts, 0, token)
				}
			}
		},
		"labels, annotations and environment": func(pod *corev1.Pod) {
			pod.Labels["a"], pod.Annotations["b"] = "c", "d"
			pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
		},
		"another image and other settings for the agent": func(pod *corev1.Pod) {
			for i := range pod.Spec.InitContainers {
				agent := &pod.Spec.InitContainers[i]
				agent.Image, agent.ImagePullPolicy, agent.TerminationMessagePath = "mirror/agent@sha256:0", corev1.PullAlways, "/dev/termination-log"
			}
			if image := pod.Spec.Volumes[0].Image; image != nil {
				image.Reference, image.PullPolicy = "mirror/agent@sha256:0", corev1.PullAlways
			}
		},
		"the other delivery": func(pod *corev1.Pod) {
			other := map[string]string{contract.DeliveryInit: contract.DeliveryImage, contract.DeliveryImage: contract.DeliveryInit}
			pod.Annotations[contract.DeliveryAnnotation] = other[pod.Annotations[contract.DeliveryAnnotation]]
		},
		"a front program as the command": front(func(c *corev1.Container) {
			c.Command, c.Args = []string{"/vault/env"}, slices.Concat(c.Command, c.Args)
		}),
		"a front program in the command": front(func(c *corev1.Container) {
			c.Command = slices.Concat([]string{"/vault/env", "--"}, c.Command)
		}),
		"all of it in the command": front(func(c *corev1.Container) {
			c.Command, c.Args = slices.Concat(c.Command, c.Args), nil
		}),
		"flags of a newer operator": front(func(c *corev1.Container) {
			c.Args, c.LivenessProbe = slices.Insert(c.Args, 0, "--new", "x"), &corev1.Probe{}
		}),
		"all of it in args, for an image whose entrypoint is a front program": front(func(c *corev1.Container) {
			c.Command, c.Args = nil, slices.Concat(c.Command, c.Args)
		}),
	}
	for name, between := range cases {
		for _, delivery := range []string{contract.DeliveryInit, contract.DeliveryImage} {
			t.Run(name+", "+delivery, func(t *testing.T) {
				pod := taskPod(step("a"), step("b"), step("c"))
				pod.Annotations[contract.DeliveryAnnotation] = delivery
				once := gateTyped(t, pod)
				between(once)
				assertNothingToAdd(t, encode(t, once))
			})
		}
	}
}

// TestGateTwiceProbes proves that probes that another webhook adds between two calls start with the command, as if the first call had seen them.
// Otherwise the kubelet would kill a waiting step.
func TestGateTwiceProbes(t *testing.T) {
	exec := func(command ...string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}, InitialDelaySeconds: 5}
	}
	http := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/"}}, FailureThreshold: 3}
	cases := map[string]func(*corev1.Container){
		"a livenessProbe":           func(c *corev1.Container) { c.LivenessProbe = exec("live") },
		"a readinessProbe":          func(c *corev1.Container) { c.ReadinessProbe = http },
		"a startupProbe":            func(c *corev1.Container) { c.StartupProbe = exec("started", "--wait", "x") },
		"one that asks the network": func(c *corev1.Container) { c.StartupProbe = http },
		"all": func(c *corev1.Container) {
			c.LivenessProbe, c.ReadinessProbe, c.StartupProbe = exec("live"), http, exec("up")
		},
	}
	pods := map[string]func(*corev1.Pod){
		"plain": func(*corev1.Pod) {},
		"released by the controller alone": func(pod *corev1.Pod) {
			pod.Annotations[contract.HandoffAnnotation] = contract.HandoffController
		},
		"with failures that don't matter, and a mount at /etc/podinfo": func(pod *corev1.Pod) {
			pod.Annotations[contract.OptionsAnnotation] = contract.Options{"a": {ContinueOnError: true}}.Marshal()
			pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{mount("work", "/etc")}
		},
	}
	for name, probe := range cases {
		for kind, edit := range pods {
			t.Run(name+", "+kind, func(t *testing.T) {
				pod := taskPod(step("a"), step("b"))
				edit(pod)
				once := gateTyped(t, pod)
				probe(&pod.Spec.Containers[1])
				probe(&once.Spec.Containers[1])
				want, got := gateTyped(t, pod), gateTyped(t, once)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the Pod after two calls (-after one +got):\n%s", diff)
				}
				assertNothingToAdd(t, encode(t, got))
			})
		}
	}
}

// TestGateOfACopy proves that the copy of a Pod that has run, such as a restored backup, starts with its first step: otherwise all released steps
// would start at once. It also proves that the controllers see the copy.
func TestGateOfACopy(t *testing.T) {
	helper := corev1.Container{Name: "helper", Image: "helper"}
	type result struct{ Order, Halt, Sequential string }
	cases := map[string]struct {
		helpers []corev1.Container
		edit    func(*corev1.Pod)
		want    result
	}{
		"ahead": {nil, func(pod *corev1.Pod) { pod.Annotations[contract.OrderAnnotation] = "3" }, result{"1", "", "true"}},
		"halted": {nil, func(pod *corev1.Pod) {
			pod.Annotations[contract.OrderAnnotation], pod.Annotations[contract.HaltAnnotation] = "2", "why"
		}, result{"1", "", "true"}},
		"with a helper":     {[]corev1.Container{helper}, func(pod *corev1.Pod) { pod.Annotations[contract.OrderAnnotation] = "3" }, result{"0", "", "true"}},
		"without the label": {nil, func(pod *corev1.Pod) { delete(pod.Labels, contract.SequentialLabel) }, result{"1", "", "true"}},
		"without a value":   {nil, func(pod *corev1.Pod) { delete(pod.Annotations, contract.OrderAnnotation) }, result{"1", "", "true"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"), step("c"))
			pod.Spec.Containers = append(pod.Spec.Containers, c.helpers...)
			pod = gateTyped(t, pod)
			c.edit(pod)
			again := encode(t, gateTyped(t, pod))
			got := decodePod(t, again)
			if diff := cmp.Diff(c.want, result{
				got.Annotations[contract.OrderAnnotation], got.Annotations[contract.HaltAnnotation], got.Labels[contract.SequentialLabel],
			}); diff != "" {
				t.Errorf("annotations and label (-want +got):\n%s", diff)
			}
			assertNothingToAdd(t, again)
		})
	}
}

// TestGateTwiceRejects proves that the second call rejects what another webhook added if the first call rejects it, and a step whose agent another
// webhook removed.
func TestGateTwiceRejects(t *testing.T) {
	const lost = `another webhook removed the agent from the container "b", which would start at once: configure that webhook to keep command and args`
	cases := map[string]struct {
		between func(b *corev1.Container)
		want    string
	}{
		"command and args are the user's again": {func(b *corev1.Container) { b.Command, b.Args = []string{"sh", "-c"}, []string{"echo b"} }, lost},
		"another command":                       {func(b *corev1.Container) { b.Command = []string{"/vault/env"} }, lost},
		"no command and args":                   {func(b *corev1.Container) { b.Command, b.Args = nil, nil }, lost},
		"a shell around it":                     {func(b *corev1.Container) { b.Command, b.Args = []string{"sh", "-c", "exec /taskflow/bin/agent"}, nil }, lost},
		"a hook before the step's turn": {
			func(b *corev1.Container) { b.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}} },
			`the step "b" has lifecycle.postStart, which would run before its turn: put it into the command`,
		},
		"a restart policy": {
			func(b *corev1.Container) { b.RestartPolicy = new(corev1.ContainerRestartPolicyAlways) },
			`the step "b" has a restartPolicy of its own, which isn't supported: set spec.restartPolicy`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			once := gateTyped(t, taskPod(step("a"), step("b"), step("c")))
			c.between(&once.Spec.Containers[1])
			patch, err := gateRaw(t, encode(t, once))
			if err == nil {
				t.Fatalf("gatePod = %v, want a rejection", patch)
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("the rejection (-want +got):\n%s", diff)
			}
		})
	}
}
