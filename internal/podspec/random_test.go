package podspec

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// randomPods is the number of Pods that TestGateRandomPods makes. The seed is fixed, so a failure is reproducible.
const randomPods = 2000

// TestGateRandomPods proves what must hold for every Pod, with many random Pods that have unknown fields at every level. Everything that
// was in the Pod remains in its place. The agents run the original commands in the order of the annotation. A second call adds nothing,
// even if another webhook changed the Pod in between.
func TestGateRandomPods(t *testing.T) {
	random := rand.New(rand.NewPCG(20, 26))
	for number := range randomPods {
		pod := randomPod(random)
		raw := withUnknownFields(t, random, encode(t, pod))
		mutated := gate(t, raw)

		if diff := diff(decode(t, raw), decode(t, unwrap(t, mutated, pod))); diff != "" {
			t.Errorf("what was there, after the patch (-want +got):\n%s", diff)
		}
		assertNothingToAdd(t, mutated)
		assertNothingToAdd(t, encode(t, touch(random, decodePod(t, mutated))))
		if t.Failed() {
			t.Fatalf("the above is of Pod %d: %s", number, raw)
		}
	}
}

// unwrap removes exactly what the webhook adds: from lists, only their last elements. It fails the test if any of that is missing.
func unwrap(t *testing.T, mutated []byte, original *corev1.Pod) []byte {
	t.Helper()
	document := decode(t, mutated).(map[string]any)
	annotations := document["metadata"].(map[string]any)["annotations"].(map[string]any)
	order := "1"
	if len(contract.ParseSteps(original.Annotations[contract.StepsAnnotation])) < len(original.Spec.Containers) {
		order = "0"
	}
	if diff := diff(order, annotations[contract.OrderAnnotation]); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
	delete(annotations, contract.OrderAnnotation)
	delete(document["metadata"].(map[string]any)["labels"].(map[string]any), contract.SequentialLabel)

	spec := document["spec"].(map[string]any)
	var init []string
	if original.Annotations[contract.DeliveryAnnotation] != contract.DeliveryImage {
		init = append(init, contract.AgentContainer)
	}
	cut(t, spec, "initContainers", len(original.Spec.InitContainers), init...)
	cut(t, spec, "volumes", len(original.Spec.Volumes), contract.BinVolume, contract.RunVolume, contract.PodInfoVolume)
	containers := spec["containers"].([]any)
	for number, name := range contract.ParseSteps(original.Annotations[contract.StepsAnnotation]) {
		i := slices.IndexFunc(original.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
		was, is := original.Spec.Containers[i], containers[i].(map[string]any)
		mounts := []string{contract.BinVolume, contract.PodInfoVolume, contract.RunVolume, contract.RunVolume}
		cut(t, is, "volumeMounts", len(was.VolumeMounts), mounts...)

		var args []string
		if err := json.Unmarshal(encode(t, is["args"]), &args); err != nil {
			t.Fatal(err)
		}
		flags, err := contract.ParseAgentFlags(args)
		if err != nil {
			t.Fatalf("ParseAgentFlags(%q): %v", args, err)
		}
		type told struct {
			Number  int
			Command []string
		}
		want := told{number + 1, slices.Concat(was.Command, was.Args)}
		if diff := diff(want, told{flags.WaitContent, flags.Command}); diff != "" {
			t.Errorf("what the agent of %q is told (-want +got):\n%s", name, diff)
		}
		is["command"], is["args"] = was.Command, was.Args
		if len(was.Args) == 0 {
			delete(is, "args")
		}
	}
	return encode(t, document)
}

// cut truncates a list to a length, and removes the list if it is empty. It fails the test if the removed elements don't have these names.
func cut(t *testing.T, object map[string]any, list string, length int, names ...string) {
	t.Helper()
	elements, _ := object[list].([]any)
	if len(elements) < length {
		t.Fatalf("%s has %d elements, and had %d", list, len(elements), length)
	}
	var got []string
	for _, element := range elements[length:] {
		got = append(got, fmt.Sprint(element.(map[string]any)["name"]))
	}
	if diff := diff(names, got); diff != "" {
		t.Errorf("what is added to %s (-want +got):\n%s", list, diff)
	}
	if object[list] = elements[:length]; length == 0 {
		delete(object, list)
	}
}

// randomPod returns a Pod that the webhook accepts.
func randomPod(random *rand.Rand) *corev1.Pod {
	var containers []corev1.Container
	for i := range 1 + random.IntN(4) {
		containers = append(containers, randomContainer(random, fmt.Sprintf("c%d", i)))
	}
	pod := taskPod(containers...)
	names := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+random.IntN(len(names))]
	pod.Annotations[contract.StepsAnnotation] = contract.FormatSteps(names)

	for i := range random.IntN(3) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, randomContainer(random, fmt.Sprintf("init%d", i)))
	}
	for i := range random.IntN(3) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprintf("volume%d", i)})
	}
	pod.Annotations["example.com/a~b"] = "c"
	if delivery := pick(random, "", contract.DeliveryInit, contract.DeliveryImage); delivery != "" {
		pod.Annotations[contract.DeliveryAnnotation] = delivery
	}
	return pod
}

func randomContainer(random *rand.Rand, name string) corev1.Container {
	container := corev1.Container{Name: name, Command: []string{randomWord(random)}}
	for range random.IntN(3) {
		container.Command = append(container.Command, randomWord(random))
	}
	for range random.IntN(4) {
		container.Args = append(container.Args, randomWord(random))
	}
	for range random.IntN(3) {
		path := pick(random, "/work", "/etc", "/etc/podinfo", "/etc/podinfo/x", "/etc/podinfo2", "/taskflow2", "data")
		container.VolumeMounts = append(container.VolumeMounts, mount("work", path))
	}
	container.TerminationMessagePath = pick(random, "", "/dev/termination-log", "/tmp/log")
	container.TerminationMessagePolicy = pick(random, "", corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	return container
}

func randomWord(random *rand.Rand) string {
	return pick(random, "sh", "-c", "", "--", "--command", "--wait", "--halt=x", "install", "echo $(A) $$", "a\nb", `"<&>"`, "ä\u2028", contract.AgentPath)
}

func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

// withUnknownFields adds fields that the linked API types don't know to objects at every level.
func withUnknownFields(t *testing.T, random *rand.Rand, raw []byte) []byte {
	t.Helper()
	var visit func(value any, ofStrings bool)
	visit = func(value any, ofStrings bool) {
		switch value := value.(type) {
		case []any:
			for _, element := range value {
				visit(element, false)
			}
		case map[string]any:
			for key, member := range value {
				visit(member, key == "labels" || key == "annotations")
			}
			switch random.IntN(3) {
			case 0:
				value["unknown~/field"] = "kept"
			case 1:
				if !ofStrings {
					value["unknownField"] = map[string]any{"number": json.Number("12345678901234567890.10"), "list": []any{nil, true}}
				}
			}
		}
	}
	document := decode(t, raw)
	visit(document, false)
	return encode(t, document)
}

// touch does what other webhooks do between two calls: it adds containers, volumes and mounts anywhere, and puts another program before a
// command.
func touch(random *rand.Rand, pod *corev1.Pod) *corev1.Pod {
	for i := range random.IntN(3) {
		added := corev1.Container{Name: fmt.Sprintf("added%d", i)}
		pod.Spec.Containers = insertAnywhere(random, pod.Spec.Containers, added)
		pod.Spec.InitContainers = insertAnywhere(random, pod.Spec.InitContainers, added)
		pod.Spec.Volumes = insertAnywhere(random, pod.Spec.Volumes, corev1.Volume{Name: added.Name})
	}
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		if random.IntN(2) == 0 {
			container.VolumeMounts = insertAnywhere(random, container.VolumeMounts, mount("added0", "/etc"))
		}
		if random.IntN(3) == 0 {
			container.Command, container.Args = []string{"/front"}, slices.Concat(container.Command, container.Args)
		}
	}
	return pod
}

func insertAnywhere[T any](random *rand.Rand, list []T, element T) []T {
	return slices.Insert(list, random.IntN(len(list)+1), element)
}
