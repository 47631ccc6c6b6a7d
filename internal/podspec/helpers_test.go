package podspec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	rfc6902 "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// testAgent is the agent that the tests put into Pods.
var testAgent = Agent{
	Image:      "example.com/taskflow/agent:1",
	PullPolicy: corev1.PullIfNotPresent,
	Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
	},
}

// taskPod returns the Pod of a Task with the containers as its steps, in their order.
func taskPod(containers ...corev1.Container) *corev1.Pod {
	var names []string
	for _, container := range containers {
		names = append(names, container.Name)
	}
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name:        "example",
			Labels:      map[string]string{contract.TaskLabel: "example"},
			Annotations: map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "Task", Name: "example", UID: "1", Controller: new(true),
			}},
		},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: containers},
	}
}

// step returns a container with a command.
func step(name string, mounts ...corev1.VolumeMount) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox:1.28", Command: []string{"sh", "-c"}, Args: []string{"echo " + name}, VolumeMounts: mounts}
}

func mount(name, path string) corev1.VolumeMount {
	return corev1.VolumeMount{Name: name, MountPath: path}
}

// outcome is the result of a Mutation.
type outcome struct {
	Patch     []byte
	Warnings  []string
	Rejection string
}

// mutateRaw runs a Mutation on a Pod: on the Pod of a Task as the operator, and on every other one as a user.
func mutateRaw(t *testing.T, raw []byte, known ...*v1alpha1.Task) outcome {
	t.Helper()
	m, err := mutation(t, raw, known...)
	if err != nil {
		return outcome{Rejection: err.Error()}
	}
	if len(m.Patch) == 0 {
		return outcome{Warnings: m.Warnings}
	}
	patch, err := m.Patch.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return outcome{Patch: patch, Warnings: m.Warnings}
}

func mutation(t *testing.T, raw []byte, known ...*v1alpha1.Task) (*Mutation, error) {
	t.Helper()
	pod := decodePod(t, raw)
	m, err := NewMutation(raw, pod, OwnerTask(pod) != "")
	if err != nil {
		return nil, err
	}
	var task *v1alpha1.Task
	if name, isNeeded := m.TaskName(); isNeeded {
		i := slices.IndexFunc(known, func(task *v1alpha1.Task) bool { return task.Name == name })
		if i < 0 {
			t.Fatalf("there is no Task %q", name)
		}
		task = known[i]
	}
	unresolved, err := m.Complete(task)
	if err != nil {
		return nil, err
	}
	commands := map[string]Command{}
	for _, container := range unresolved {
		commands[container.Name] = commandOf(container)
	}
	return m, m.Gate(testAgent, commands)
}

// commandOf returns the command of an image. The command of "pinned" is known for one digest only.
func commandOf(container *corev1.Container) Command {
	command := Command{Command: []string{"/entry", container.Image}, Args: container.Args}
	if container.Image == "pinned" {
		command.Image = "pinned@sha256:0"
	}
	return command
}

// admit does what the API server does with the outcome. It fails the test if the Pod is rejected.
func admit(t *testing.T, raw []byte, known ...*v1alpha1.Task) (admitted []byte, warnings []string) {
	t.Helper()
	got := mutateRaw(t, raw, known...)
	if got.Rejection != "" {
		t.Fatalf("the Pod was rejected: %s", got.Rejection)
	}
	return applyJSON(t, raw, got.Patch), got.Warnings
}

// assertUnchanged fails the test if a Mutation has anything to add to the Pod, or to say about it.
func assertUnchanged(t *testing.T, raw []byte) {
	t.Helper()
	if diff := cmp.Diff(outcome{}, mutateRaw(t, raw)); diff != "" {
		t.Errorf("the second mutation (-want +got):\n%s", diff)
	}
}

// gate applies the patch of gatePod to the Pod's own JSON, as the API server does.
func gate(t *testing.T, raw []byte) []byte {
	t.Helper()
	patch, err := gateRaw(t, raw)
	if err != nil {
		t.Fatalf("gatePod: %v", err)
	}
	return apply(t, raw, patch)
}

// gateTyped is gate for a Pod without unknown fields.
func gateTyped(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	return decodePod(t, gate(t, encode(t, pod)))
}

// gateRaw is gatePod for the JSON of a Pod. It fails the test if gatePod changes the Pod itself.
func gateRaw(t *testing.T, raw []byte) (jsonpatch.Patch, error) {
	t.Helper()
	pod := decodePod(t, raw)
	before := pod.DeepCopy()
	patch, err := gateWith(pod, testAgent)
	if diff := diff(before, pod); diff != "" {
		t.Errorf("gatePod changed its Pod (-before +after):\n%s", diff)
	}
	return patch, err
}

func gateWith(pod *corev1.Pod, agent Agent) (jsonpatch.Patch, error) {
	m := &Mutation{pod: pod}
	if err := m.gatePod(agent); err != nil {
		return nil, err
	}
	return m.Patch, nil
}

func assertNothingToAdd(t *testing.T, raw []byte) {
	t.Helper()
	patch, err := gateRaw(t, raw)
	if err != nil || len(patch) > 0 {
		t.Errorf("gatePod for %s = %v, %v, want nothing to add", raw, patch, err)
	}
}

func apply(t *testing.T, raw []byte, patch jsonpatch.Patch) []byte {
	t.Helper()
	content, err := patch.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return applyJSON(t, raw, content)
}

// applyJSON is apply for a patch in the form that the API server gets: none for a Pod that stays unchanged.
func applyJSON(t *testing.T, raw, content []byte) []byte {
	t.Helper()
	if len(content) == 0 {
		return raw
	}
	decoded, err := rfc6902.DecodePatch(content)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := decoded.Apply(raw)
	if err != nil {
		t.Fatalf("applying the patch %s to %s: %v", content, raw, err)
	}
	return patched
}

// fromYAML returns the JSON of a Pod in YAML.
func fromYAML(t *testing.T, manifest string) []byte {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decodePod(t *testing.T, raw []byte) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

// decode reads JSON with all its fields, and keeps the spelling of numbers.
func decode(t *testing.T, raw []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("decoding %s: %v", raw, err)
	}
	return value
}

// diff is cmp.Diff for thousands of values, nearly all of them equal.
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got)
}
