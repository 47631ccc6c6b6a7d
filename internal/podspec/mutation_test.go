package podspec

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// userPod returns a sequential Pod as a user creates it.
func userPod(containers ...corev1.Container) *corev1.Pod {
	pod := taskPod(containers...)
	pod.Labels, pod.Annotations, pod.OwnerReferences = map[string]string{contract.SequentialLabel: "true"}, nil, nil
	return pod
}

// ran is the command and the number that an agent gets.
type ran struct {
	Number  int
	Command []string
}

func agents(t *testing.T, pod *corev1.Pod) map[string]ran {
	t.Helper()
	all := map[string]ran{}
	for _, container := range pod.Spec.Containers {
		if !slices.Equal(container.Command, []string{contract.AgentPath}) {
			continue
		}
		flags, err := contract.ParseAgentFlags(container.Args)
		if err != nil {
			t.Fatal(err)
		}
		all[container.Name] = ran{flags.WaitContent, flags.Command}
	}
	return all
}

// TestUserPod proves which containers of a user's Pod are steps, and what else the webhook sets at its creation.
func TestUserPod(t *testing.T) {
	echo := func(name string) []string { return []string{"sh", "-c", "echo " + name} }
	type settled struct {
		Agents        map[string]ran
		Steps, Order  string
		RestartPolicy corev1.RestartPolicy
		Warnings      []string
	}
	const becameNever = "spec.restartPolicy was changed from Always to Never, because steps must be able to finish: set it to Never or OnFailure"
	all := map[string]ran{"a": {1, echo("a")}, "b": {2, echo("b")}, "c": {3, echo("c")}}
	cases := map[string]struct {
		edit func(*corev1.Pod)
		want settled
	}{
		"all containers, in their order": {
			func(*corev1.Pod) {},
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
		"other annotations": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{"mine": "x"} },
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
		"another order": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "c, a ,b"} },
			settled{map[string]ran{"c": {1, echo("c")}, "a": {2, echo("a")}, "b": {3, echo("b")}}, "c,a,b", "1", corev1.RestartPolicyNever, nil},
		},
		"an empty list counts as no list": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: " , "} },
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
		"the Pod waits for helpers": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "b"} },
			settled{map[string]ran{"b": {1, echo("b")}}, "b", "0", corev1.RestartPolicyNever, []string{
				"containers that are not steps: a, c; the Pod finishes only after they exit, unless they are init containers with restartPolicy: Always",
			}},
		},
		"OnFailure": {
			func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure },
			settled{all, "a,b,c", "1", corev1.RestartPolicyOnFailure, nil},
		},
		"Always": {
			func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyAlways },
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, []string{becameNever}},
		},
		"no restart policy": {
			func(pod *corev1.Pod) { pod.Spec.RestartPolicy = "" },
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, []string{becameNever}},
		},
		"a Job's": {
			func(pod *corev1.Pod) {
				pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "x", UID: "1", Controller: new(true)}}
			},
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
		"a ReplicaSet of another API group": {
			func(pod *corev1.Pod) {
				pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "ReplicaSet", Name: "x", UID: "1", Controller: new(true)}}
			},
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := userPod(step("a"), step("b"), step("c"))
			c.edit(pod)
			raw, warnings := admit(t, encode(t, pod))
			admitted := decodePod(t, raw)
			got := settled{
				agents(t, admitted), admitted.Annotations[contract.StepsAnnotation], admitted.Annotations[contract.OrderAnnotation],
				admitted.Spec.RestartPolicy, warnings,
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
			for key, value := range pod.Annotations {
				if key != contract.StepsAnnotation && admitted.Annotations[key] != value {
					t.Errorf("the annotation %s is gone", key)
				}
			}
			assertUnchanged(t, raw)
		})
	}
}

// TestUserPodRejects proves each rejection of a user's Pod: one sentence with the field and the remedy.
func TestUserPodRejects(t *testing.T) {
	annotation := func(key string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations = map[string]string{key: "x"} }
	}
	owner := func(apiVersion, kind string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "web", UID: "1", Controller: new(true)}}
		}
	}
	forEver := func(kind string) string {
		return "metadata.ownerReferences: the " + kind + ` "web" replaces Pods that have succeeded, and steps must be able to finish: use a Job, or remove the taskflow labels from the Pod template`
	}
	cases := map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"a ReplicaSet's":            {owner("apps/v1", "ReplicaSet"), forEver("ReplicaSet")},
		"a StatefulSet's":           {owner("apps/v1", "StatefulSet"), forEver("StatefulSet")},
		"a DaemonSet's":             {owner("apps/v1", "DaemonSet"), forEver("DaemonSet")},
		"a ReplicationController's": {owner("v1", "ReplicationController"), forEver("ReplicationController")},
		"order":                     {annotation(contract.OrderAnnotation), "metadata.annotations: only taskflow sets taskflow.practice.com/order: remove it"},
		"halt":                      {annotation(contract.HaltAnnotation), "metadata.annotations: only taskflow sets taskflow.practice.com/halt: remove it"},
		"options": {
			annotation(contract.OptionsAnnotation),
			"metadata.annotations: only taskflow sets taskflow.practice.com/options: remove it, and name a Task with the label taskflow.practice.com/task",
		},
		"a script": {
			annotation(contract.ScriptAnnotationPrefix + "1"),
			"metadata.annotations: only taskflow sets taskflow.practice.com/script-1: remove it, and name a Task with the label taskflow.practice.com/task",
		},
		"a volume with taskflow's name": {
			func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{Name: contract.ScriptsVolume}} },
			`spec.volumes: "taskflow-scripts" starts with taskflow-, which is reserved for taskflow: choose another name`,
		},
		"neither true nor false": {
			func(pod *corev1.Pod) { pod.Labels[contract.SequentialLabel] = "yes" },
			`metadata.labels: taskflow.practice.com/sequential is "yes": set it to "true", or remove it`,
		},
		"an unknown step": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "a,x"} },
			`metadata.annotations: taskflow.practice.com/steps names "x", and the Pod has no container of that name: fix the name`,
		},
		"two containers with the same name": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Name = "a" },
			`spec.containers: two containers have the name "a": give each a name of its own`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := userPod(step("a"), step("b"))
			c.edit(pod)
			if diff := cmp.Diff(outcome{Rejection: c.want}, mutateRaw(t, encode(t, pod))); diff != "" {
				t.Errorf("the outcome (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSequentialFalse proves that a Pod with the label "false" stays unchanged.
func TestSequentialFalse(t *testing.T) {
	pod := userPod(step("a"))
	pod.Labels[contract.SequentialLabel] = "false"
	assertUnchanged(t, encode(t, pod))
}

// TestUserPodCommands proves that a step without a command runs the command of its image, that helpers stay as they are, and that an image whose
// command is known for one digest only is pinned.
func TestUserPodCommands(t *testing.T) {
	pod := userPod(
		corev1.Container{Name: "args", Image: "x", Args: []string{"$(A)"}},
		step("own"),
		corev1.Container{Name: "nothing", Image: "pinned", ImagePullPolicy: corev1.PullAlways},
		corev1.Container{Name: "helper", Image: "unknown"},
	)
	pod.Annotations = map[string]string{contract.StepsAnnotation: "args,own,nothing"}
	raw, _ := admit(t, encode(t, pod))
	admitted := decodePod(t, raw)
	want := map[string]ran{
		"args":    {1, []string{"/entry", "x", "$(A)"}},
		"own":     {2, []string{"sh", "-c", "echo own"}},
		"nothing": {3, []string{"/entry", "pinned"}},
	}
	if diff := cmp.Diff(want, agents(t, admitted)); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("pinned@sha256:0", admitted.Spec.Containers[2].Image); diff != "" {
		t.Errorf("the image (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pod.Spec.Containers[3], admitted.Spec.Containers[3]); diff != "" {
		t.Errorf("the helper (-was +is):\n%s", diff)
	}
}
