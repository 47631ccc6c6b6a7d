package webhook

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// userPod is a Pod of a user's that asks for a sequence.
func userPod(containers ...corev1.Container) *corev1.Pod {
	pod := taskPod(containers...)
	pod.Labels, pod.Annotations, pod.OwnerReferences = map[string]string{contract.SequentialLabel: "true"}, nil, nil
	return pod
}

// admit does what the API server does with the webhook's answer, and fails the test where that is a refusal.
func admit(t *testing.T, raw []byte, known ...*v1alpha1.Task) (admitted []byte, warnings []string) {
	t.Helper()
	response := handle(t, raw, known...)
	if !response.Allowed {
		t.Fatalf("the Pod was refused: %s", response.Result.Message)
	}
	return applyJSON(t, raw, response.Patch), response.Warnings
}

// ran is what an agent is told to run, and when.
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

// TestUsersPod proves which containers of a user's Pod are steps, and what else is settled when it is created.
func TestUsersPod(t *testing.T) {
	echo := func(name string) []string { return []string{"sh", "-c", "echo " + name} }
	type settled struct {
		Agents        map[string]ran
		Steps, Order  string
		RestartPolicy corev1.RestartPolicy
		Warnings      []string
	}
	const becameNever = "spec.restartPolicy Always has become Never, since steps end: set it to Never or OnFailure"
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
		"an empty list is none": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: " , "} },
			settled{all, "a,b,c", "1", corev1.RestartPolicyNever, nil},
		},
		"helpers are waited for, and the Pod waits for them": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "b"} },
			settled{map[string]ran{"b": {1, echo("b")}}, "b", "0", corev1.RestartPolicyNever, []string{
				"not in the sequence: a, c; the Pod ends only when they do, unless each is an init container with restartPolicy: Always",
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
		"somebody else's ReplicaSet": {
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
			if again := handle(t, raw); !again.Allowed || len(again.Patch)+len(again.Warnings) > 0 {
				t.Errorf("the second answer is %+v, want none", again)
			}
		})
	}
}

// TestUsersPodRefuses proves each refusal of a user's Pod: one sentence with the field and the remedy.
func TestUsersPodRefuses(t *testing.T) {
	annotation := func(key string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations = map[string]string{key: "x"} }
	}
	owner := func(apiVersion, kind string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "web", UID: "1", Controller: new(true)}}
		}
	}
	forEver := func(kind string) string {
		return "metadata.ownerReferences: the " + kind + ` "web" starts its Pods again for ever, and steps end: use a Job, or remove the taskflow labels from the Pod template`
	}
	cases := map[string]struct {
		edit func(*corev1.Pod)
		want string
	}{
		"a ReplicaSet's":            {owner("apps/v1", "ReplicaSet"), forEver("ReplicaSet")},
		"a StatefulSet's":           {owner("apps/v1", "StatefulSet"), forEver("StatefulSet")},
		"a DaemonSet's":             {owner("apps/v1", "DaemonSet"), forEver("DaemonSet")},
		"a ReplicationController's": {owner("v1", "ReplicationController"), forEver("ReplicationController")},
		"order":                     {annotation(contract.OrderAnnotation), "metadata.annotations: taskflow.practice.com/order is set by taskflow alone: remove it"},
		"halt":                      {annotation(contract.HaltAnnotation), "metadata.annotations: taskflow.practice.com/halt is set by taskflow alone: remove it"},
		"options": {
			annotation(contract.OptionsAnnotation),
			"metadata.annotations: taskflow.practice.com/options is set by taskflow alone: remove it, and name a Task with the label taskflow.practice.com/task",
		},
		"a script": {
			annotation(contract.ScriptAnnotationPrefix + "1"),
			"metadata.annotations: taskflow.practice.com/script-1 is set by taskflow alone: remove it, and name a Task with the label taskflow.practice.com/task",
		},
		"a volume that is taskflow's": {
			func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{Name: contract.ScriptsVolume}} },
			`spec.volumes: "taskflow-scripts" starts with taskflow-, which is for taskflow's own: choose another name`,
		},
		"neither true nor false": {
			func(pod *corev1.Pod) { pod.Labels[contract.SequentialLabel] = "yes" },
			`metadata.labels: taskflow.practice.com/sequential is "yes": set it to "true", or remove it`,
		},
		"a step that isn't there": {
			func(pod *corev1.Pod) { pod.Annotations = map[string]string{contract.StepsAnnotation: "a,x"} },
			`metadata.annotations: taskflow.practice.com/steps names "x", and the Pod has no container of that name: correct the name`,
		},
		"two containers of one name": {
			func(pod *corev1.Pod) { pod.Spec.Containers[1].Name = "a" },
			`spec.containers: two containers have the name "a": give each a name of its own`,
		},
		"a command that isn't known": {
			func(pod *corev1.Pod) { pod.Spec.Containers[0] = corev1.Container{Name: "a", Image: "unknown"} },
			`the container "a": image "unknown" has neither ENTRYPOINT nor CMD; set command`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := userPod(step("a"), step("b"))
			c.edit(pod)
			response := handle(t, encode(t, pod))
			if response.Allowed || len(response.Patch) > 0 {
				t.Fatalf("the answer is %+v, want a refusal", response)
			}
			if diff := cmp.Diff(c.want, response.Result.Message); diff != "" {
				t.Errorf("the refusal (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSequentialFalse proves that a label which says no is one.
func TestSequentialFalse(t *testing.T) {
	pod := userPod(step("a"))
	pod.Labels[contract.SequentialLabel] = "false"
	if response := handle(t, encode(t, pod)); !response.Allowed || len(response.Patch)+len(response.Warnings) > 0 {
		t.Errorf("the answer is %+v, want none", response)
	}
}

// TestUsersPodCommands proves that a step without a command runs the one of its image, that only steps are asked for, with what
// the kubelet would pull them with, and that an image which has to be pinned is.
func TestUsersPodCommands(t *testing.T) {
	pod := userPod(
		corev1.Container{Name: "args", Image: "x", Args: []string{"$(A)"}},
		step("own"),
		corev1.Container{Name: "nothing", Image: "pinned", ImagePullPolicy: corev1.PullAlways},
		corev1.Container{Name: "helper", Image: "unknown"},
	)
	pod.Annotations = map[string]string{contract.StepsAnnotation: "args,own,nothing"}
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "secret"}}
	pod.Spec.NodeSelector = map[string]string{"kubernetes.io/arch": "arm64"}
	response, asked := handleWith(t, encode(t, pod), nil, nil)
	admitted := decodePod(t, applyJSON(t, encode(t, pod), response.Patch))
	want := map[string]ran{
		"args":    {1, []string{"/entry", "x", "$(A)"}},
		"own":     {2, []string{"sh", "-c", "echo own"}},
		"nothing": {3, []string{"/entry", "pinned", "$$cmd"}},
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
	wantAsked := []entrypoint.Request{
		{Namespace: "default", Image: "pinned", PullPolicy: corev1.PullAlways, PullSecrets: []string{"secret"}, Architecture: "arm64"},
		{Namespace: "default", Image: "x", PullSecrets: []string{"secret"}, Architecture: "arm64", HasArgs: true},
	}
	if diff := cmp.Diff(wantAsked, asked); diff != "" {
		t.Errorf("what was asked (-want +got):\n%s", diff)
	}
}

// TestPodLevelResources proves that the agent's container has no resources of its own where the Pod has: the API server refuses
// a container that may use more than its Pod.
func TestPodLevelResources(t *testing.T) {
	pod := userPod(step("a"))
	pod.Spec.Resources = &corev1.ResourceRequirements{}
	raw, _ := admit(t, encode(t, pod))
	if diff := cmp.Diff(corev1.ResourceRequirements{}, decodePod(t, raw).Spec.InitContainers[0].Resources); diff != "" {
		t.Errorf("the agent's resources (-want +got):\n%s", diff)
	}
}

// TestAgentMedium proves that the agent can be kept in memory, for nodes that mount their disk noexec (PEERS row 27), and that the
// containers can't write to it.
func TestAgentMedium(t *testing.T) {
	for _, medium := range []corev1.StorageMedium{corev1.StorageMediumDefault, corev1.StorageMediumMemory} {
		pod := taskPod(step("a"))
		patch, err := plan(pod, Agent{Image: "agent", Medium: medium})
		if err != nil {
			t.Fatal(err)
		}
		planned := decodePod(t, apply(t, encode(t, pod), patch))
		want := corev1.Volume{Name: "taskflow-bin", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
		if diff := cmp.Diff(want, planned.Spec.Volumes[0]); diff != "" {
			t.Errorf("the agent's volume (-want +got):\n%s", diff)
		}
		if mount := planned.Spec.Containers[0].VolumeMounts[0]; mount.Name != "taskflow-bin" || !mount.ReadOnly {
			t.Errorf("the step's mount of it is %+v, want a read-only one", mount)
		}
	}
}

// TestDelivery proves who decides how the agent gets into a Pod: the Pod, else the operator; and that auto mounts the agent's image only where
// every node can, and never under a runtime class.
func TestDelivery(t *testing.T) {
	kata := func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = new("kata") }
	asks := func(delivery string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations[contract.DeliveryAnnotation] = delivery }
	}
	cases := map[string]struct {
		agent Agent
		edit  func(*corev1.Pod)
		want  string
	}{
		"init":                              {Agent{Delivery: "init", ImageVolumes: true}, nil, "init"},
		"init, and the Pod asks for image":  {Agent{Delivery: "init"}, asks("image"), "image"},
		"image":                             {Agent{Delivery: "image"}, nil, "image"},
		"image under a runtime class":       {Agent{Delivery: "image"}, kata, "image"},
		"image, and the Pod asks for init":  {Agent{Delivery: "image"}, asks("init"), "init"},
		"auto, and all nodes can":           {Agent{Delivery: "auto", ImageVolumes: true}, nil, "image"},
		"auto, and a node can't":            {Agent{Delivery: "auto"}, nil, "init"},
		"auto under a runtime class":        {Agent{Delivery: "auto", ImageVolumes: true}, kata, "init"},
		"auto, and the Pod asks for image":  {Agent{Delivery: "auto"}, asks("image"), "image"},
		"auto, and the Pod asks for init":   {Agent{Delivery: "auto", ImageVolumes: true}, asks("init"), "init"},
		"a program that doesn't say at all": {Agent{ImageVolumes: true}, nil, "init"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"))
			if c.edit != nil {
				c.edit(pod)
			}
			c.agent.Image, c.agent.PullPolicy = "agent", corev1.PullAlways
			patch, err := plan(pod, c.agent)
			if err != nil {
				t.Fatal(err)
			}
			planned := decodePod(t, apply(t, encode(t, pod), patch))
			type delivered struct {
				Containers int
				Volume     corev1.VolumeSource
			}
			want := map[string]delivered{
				"init":  {1, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				"image": {0, corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "agent", PullPolicy: corev1.PullAlways}}},
			}[c.want]
			if diff := cmp.Diff(want, delivered{len(planned.Spec.InitContainers), planned.Spec.Volumes[0].VolumeSource}); diff != "" {
				t.Errorf("how the agent is delivered (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHandleDelivery proves that the nodes are asked about for auto, and for nothing else, and that the answer counts.
func TestHandleDelivery(t *testing.T) {
	type answer struct{ Asked, ByInit bool }
	for _, c := range []struct {
		delivery string
		can      bool
		want     answer
	}{
		{"init", true, answer{false, true}},
		{"image", false, answer{false, false}},
		{"auto", true, answer{true, false}},
		{"auto", false, answer{true, true}},
	} {
		var got answer
		handler := Handler{Agent: testAgent}
		handler.Agent.Delivery = c.delivery
		handler.ImageVolumes = func() bool { got.Asked = true; return c.can }
		response := handler.Handle(t.Context(), requestFor(encode(t, taskPod(step("a")))))
		got.ByInit = strings.Contains(string(response.Patch), contract.AgentContainer)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s, and the nodes can: %t (-want +got):\n%s", c.delivery, c.can, diff)
		}
	}
}

// slow is a registry that doesn't answer.
type slow struct{}

func (slow) Resolve(ctx context.Context, _ entrypoint.Request) (entrypoint.Command, error) {
	<-ctx.Done()
	return entrypoint.Command{}, ctx.Err()
}

// TestSlowRegistry proves that the user reads what took so long, and not that a webhook did.
func TestSlowRegistry(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	d := &draft{pod: userPod(corev1.Container{Name: "a", Image: "x"})}
	if err := d.sequence(); err != nil {
		t.Fatal(err)
	}
	const want = `the container "a": its registry has not told the command of the image "x" in time: set command`
	if err := d.resolve(ctx, slow{}, "default"); err == nil || err.Error() != want {
		t.Errorf("the refusal is %v, want %s", err, want)
	}
}
