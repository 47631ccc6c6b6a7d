//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// installPolicy installs a policy of config/policy for one namespace, and waits until it refuses the probe.
func installPolicy(t *testing.T, file, namespace string, probe func() error) {
	t.Helper()
	content, err := os.ReadFile("../../config/policy/" + file)
	if err != nil {
		t.Fatal(err)
	}
	installPolicyContent(t, content, namespace, probe)
}

func installPolicyContent(t *testing.T, content []byte, namespace string, probe func() error) {
	t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		unstructured.RemoveNestedField(object.Object, "spec", "matchConstraints", "namespaceSelector") // the binding selects the test's namespace instead
		if object.GetKind() == "ValidatingAdmissionPolicyBinding" {
			selector := map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": namespace}}
			if err := unstructured.SetNestedMap(object.Object, selector, "spec", "matchResources", "namespaceSelector"); err != nil {
				t.Fatal(err)
			}
		}
		cluster.Make(t, &object)
		t.Cleanup(func() {
			if err := cluster.Delete(context.WithoutCancel(t.Context()), &object); err != nil {
				t.Error(err)
			}
		})
	}
	wait.For(t, "the policy to be in force", func(context.Context) error {
		if err := probe(); err == nil {
			return errors.New("the probe was let through")
		}
		return nil
	})
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// TestAnnotationsAreTaskflows proves that only the operator can change taskflow's annotations and labels of a Pod, in each way that the API
// has, and that all other changes are accepted.
func TestAnnotationsAreTaskflows(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "pod",
			Labels:      map[string]string{contract.TaskLabel: "task", "own": "1"},
			Annotations: map[string]string{contract.StepsAnnotation: "a,b", contract.ScriptAnnotationPrefix + "2": "true", "own": "1"},
			OwnerReferences: []metav1.OwnerReference{{ // as the Task controller makes it
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "Task", Name: "task", UID: "task", Controller: new(true),
			}},
		},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{
			{Name: "a", Image: "a", Command: []string{"a"}}, {Name: "b", Image: "b", Command: []string{"b"}},
		}},
	}
	cluster.Make(t, pod)
	key := client.ObjectKeyFromObject(pod)
	if diff := cmp.Diff("1", pod.Annotations[contract.OrderAnnotation]); diff != "" {
		t.Fatalf("order (-want +got):\n%s", diff)
	}
	metadata := func(as client.Client, kind, name, value, subresource string) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"`+kind+`":{"`+name+`":`+value+`}}}`))
		if subresource != "" {
			return as.SubResource(subresource).Patch(t.Context(), pod.DeepCopy(), patch)
		}
		return as.Patch(t.Context(), pod.DeepCopy(), patch)
	}
	annotate := func(as client.Client, name, value, subresource string) error {
		return metadata(as, "annotations", name, value, subresource)
	}
	label := func(name, value string) error { return metadata(cluster, "labels", name, value, "") }
	probes := 1
	installPolicy(t, "annotations.yaml", namespace, func() error {
		probes++
		return annotate(cluster, contract.OrderAnnotation, strconv.Quote(strconv.Itoa(probes)), "")
	})
	if err := annotate(cluster.As(t, operator, "system:masters"), contract.OrderAnnotation, `"1"`, ""); err != nil {
		t.Fatal(err)
	}

	update := func(edit func(*corev1.Pod), write func(*corev1.Pod) error) error {
		var now corev1.Pod
		if err := cluster.Get(t.Context(), key, &now); err != nil {
			return err
		}
		edit(&now)
		return write(&now)
	}
	whole := func(pod *corev1.Pod) error { return cluster.Update(t.Context(), pod) }
	release := func(pod *corev1.Pod) { pod.Annotations[contract.OrderAnnotation] = "2" }
	apply := func(metadata string) error {
		patch := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pod","namespace":"` + namespace + `",` + metadata + `}}`
		return cluster.Patch(t.Context(), pod.DeepCopy(), client.RawPatch(types.ApplyPatchType, []byte(patch)), client.FieldOwner("user"), client.ForceOwnership)
	}
	bind := func(annotations, labels map[string]string) error {
		return cluster.SubResource("binding").Create(t.Context(), pod.DeepCopy(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod.Name, Annotations: annotations, Labels: labels},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "node"},
		})
	}
	ofAnnotation := func(key string) string {
		return "metadata.annotations: only taskflow changes " + key + ": leave it as it is"
	}
	ofLabel := func(key string) string {
		return "metadata.labels: " + key + " is fixed when the Pod is created: leave it as it is, or create another Pod"
	}
	const script = contract.ScriptAnnotationPrefix + "2"
	account := cluster.As(t, operator, "system:masters")
	for name, c := range map[string]struct {
		do      func() error
		refusal string
	}{
		"order":                        {func() error { return annotate(cluster, contract.OrderAnnotation, `"2"`, "") }, ofAnnotation(contract.OrderAnnotation)},
		"order, removed":               {func() error { return annotate(cluster, contract.OrderAnnotation, "null", "") }, ofAnnotation(contract.OrderAnnotation)},
		"order, by an update":          {func() error { return update(release, whole) }, ofAnnotation(contract.OrderAnnotation)},
		"order, applied":               {func() error { return apply(`"annotations":{"` + contract.OrderAnnotation + `":"2"}`) }, ofAnnotation(contract.OrderAnnotation)},
		"order, through the status":    {func() error { return annotate(cluster, contract.OrderAnnotation, `"2"`, "status") }, ofAnnotation(contract.OrderAnnotation)},
		"halt":                         {func() error { return annotate(cluster, contract.HaltAnnotation, `"stop"`, "") }, ofAnnotation(contract.HaltAnnotation)},
		"halt of the final steps":      {func() error { return annotate(cluster, contract.HaltFinallyAnnotation, `"stop"`, "") }, ofAnnotation(contract.HaltFinallyAnnotation)},
		"cancel":                       {func() error { return annotate(cluster, contract.CancelAnnotation, `"Cancelled"`, "") }, ofAnnotation(contract.CancelAnnotation)},
		"cancel, through the status":   {func() error { return annotate(cluster, contract.CancelAnnotation, `"Cancelled"`, "status") }, ofAnnotation(contract.CancelAnnotation)},
		"the outcome":                  {func() error { return annotate(cluster, contract.OutcomeAnnotation, `"{}"`, "") }, ofAnnotation(contract.OutcomeAnnotation)},
		"the outcome, by a binding":    {func() error { return bind(map[string]string{contract.OutcomeAnnotation: "{}"}, nil) }, ofAnnotation(contract.OutcomeAnnotation)},
		"the steps":                    {func() error { return annotate(cluster, contract.StepsAnnotation, `"b,a"`, "") }, ofAnnotation(contract.StepsAnnotation)},
		"a script":                     {func() error { return annotate(cluster, script, `"rm"`, "") }, ofAnnotation(script)},
		"order, through a binding":     {func() error { return bind(map[string]string{contract.OrderAnnotation: "2"}, nil) }, ofAnnotation(contract.OrderAnnotation)},
		"the label, removed":           {func() error { return label(contract.SequentialLabel, "null") }, ofLabel(contract.SequentialLabel)},
		"the label, changed":           {func() error { return label(contract.SequentialLabel, `"false"`) }, ofLabel(contract.SequentialLabel)},
		"the label, applied":           {func() error { return apply(`"labels":{"` + contract.SequentialLabel + `":"false"}`) }, ofLabel(contract.SequentialLabel)},
		"the label, through a binding": {func() error { return bind(nil, map[string]string{contract.SequentialLabel: "false"}) }, ofLabel(contract.SequentialLabel)},
		"the Task":                     {func() error { return label(contract.TaskLabel, `"other"`) }, ofLabel(contract.TaskLabel)},
		"the Task, through a binding":  {func() error { return bind(nil, map[string]string{contract.TaskLabel: "other"}) }, ofLabel(contract.TaskLabel)},
		"the options, added":           {func() error { return annotate(cluster, contract.OptionsAnnotation, `"{}"`, "") }, ofAnnotation(contract.OptionsAnnotation)},
		"two at once": {func() error {
			return apply(`"annotations":{"` + contract.OrderAnnotation + `":"2","` + contract.HaltAnnotation + `":"x"}`)
		}, ofAnnotation(contract.OrderAnnotation + ", " + contract.HaltAnnotation)},
		"one's own":                 {func() error { return annotate(cluster, "own", `"2"`, "") }, ""},
		"one's own, applied":        {func() error { return apply(`"labels":{"own":"2"},"annotations":{"own":"4"}`) }, ""},
		"one's own, and the status": {func() error { return annotate(cluster, "own", `"3"`, "status") }, ""},
		"order, as it is":           {func() error { return annotate(cluster, contract.OrderAnnotation, `"1"`, "") }, ""},
		"a binding":                 {func() error { return bind(nil, map[string]string{"topology.kubernetes.io/zone": "a"}) }, ""},
		"order, by the operator":    {func() error { return annotate(account, contract.OrderAnnotation, `"1"`, "") }, ""},
		"cancel, by the operator":   {func() error { return annotate(account, contract.CancelAnnotation, `""`, "") }, ""},
		"outcome, by the operator":  {func() error { return annotate(account, contract.OutcomeAnnotation, `""`, "") }, ""},
		"halt, by the operator":     {func() error { return annotate(account, contract.HaltAnnotation, `""`, "") }, ""},
		"a subresource that leaves it be": {func() error {
			return update(func(pod *corev1.Pod) {
				release(pod)
				pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					Name: "debug", Image: "busybox", ImagePullPolicy: corev1.PullIfNotPresent, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
				}}}
			}, func(pod *corev1.Pod) error {
				return cluster.SubResource("ephemeralcontainers").Update(t.Context(), pod)
			})
		}, ""},
		"another that leaves it be": {func() error {
			return update(release, func(pod *corev1.Pod) error { return cluster.SubResource("resize").Update(t.Context(), pod) })
		}, ""},
	} {
		err := c.do()
		refused := c.refusal != "" && apierrors.IsForbidden(err) && strings.Contains(err.Error(), c.refusal)
		if refused != (c.refusal != "") || err != nil && !refused {
			t.Errorf("%s: %v, want a refusal with %q", name, err, c.refusal)
		}
		var now corev1.Pod
		if err := cluster.Get(t.Context(), key, &now); err != nil {
			t.Fatal(err)
		}
		want := []string{"1", "a,b", "true", "true", "task"}
		got := []string{
			now.Annotations[contract.OrderAnnotation], now.Annotations[contract.StepsAnnotation], now.Annotations[script],
			now.Labels[contract.SequentialLabel], now.Labels[contract.TaskLabel],
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s: what the Pod has afterwards (-want +got):\n%s", name, diff)
		}
	}
}

// TestUnmutatedPodsAreRefused proves that a Pod with a label of taskflow's is refused if the webhook hasn't mutated it, for example because
// its configuration was deleted, and that other Pods aren't affected.
func TestUnmutatedPodsAreRefused(t *testing.T) {
	// The webhook isn't called for this namespace, as if its configuration were gone.
	const namespace, sequential = "taskflow-system", contract.SequentialLabel
	err := cluster.Create(t.Context(), namespaceNamed(namespace))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	createAs := func(user client.Client, labels, annotations map[string]string, edits ...func(*corev1.Pod)) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "pod-", Labels: labels, Annotations: annotations},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}, {Name: "b", Image: "b"}}},
		}
		for _, edit := range edits {
			edit(pod)
		}
		return user.Create(t.Context(), pod, client.DryRunAll)
	}
	create := func(labels, annotations map[string]string, edits ...func(*corev1.Pod)) error {
		return createAs(cluster, labels, annotations, edits...)
	}
	kubelet, mirror := cluster.As(t, "system:node:a", "system:nodes", "system:masters"), map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	onNode := func(pod *corev1.Pod) { pod.Spec.NodeName, pod.Spec.AutomountServiceAccountToken = "a", new(false) }
	wrapped := func(pod *corev1.Pod) { pod.Spec.Containers[1].Command = []string{contract.AgentPath} }
	inFront := func(pod *corev1.Pod) { // as another webhook does
		pod.Spec.Containers[1].Command, pod.Spec.Containers[1].Args = []string{"/env"}, []string{contract.AgentPath}
	}
	init := func(name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Spec.InitContainers = []corev1.Container{{Name: name, Image: "agent"}} }
	}
	volume := func(source corev1.VolumeSource) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.Volumes = []corev1.Volume{{Name: contract.BinVolume, VolumeSource: source}}
		}
	}
	image := volume(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "agent"}})
	agent := init(contract.AgentContainer)
	unmutated := map[string]string{sequential: "true"}
	named := map[string]string{contract.TaskLabel: "task"}
	installPolicy(t, "unmutated.yaml", namespace, func() error { return create(unmutated, nil) })

	const unseen, lost = "the webhook hasn't made it sequential", "this Pod has lost taskflow's agent"
	both := func(pod *corev1.Pod) { wrapped(pod); pod.Spec.Containers[0].Command = []string{contract.AgentPath} }
	annotations := func(order, steps string) map[string]string {
		return map[string]string{contract.OrderAnnotation: order, contract.StepsAnnotation: steps}
	}
	order := annotations("1", "b")
	halted := annotations("1", "b")
	halted[contract.HaltAnnotation] = "Cancelled"
	got := map[string]string{}
	want := map[string]string{}
	for name, c := range map[string]struct {
		err     error
		refused string
	}{
		"not at all":               {create(unmutated, nil), unseen},
		"names a Task":             {create(named, nil), unseen},
		"names one, and says no":   {create(map[string]string{contract.TaskLabel: "task", sequential: "false"}, nil), unseen},
		"no agent":                 {create(unmutated, order), unseen},
		"an agent that isn't used": {create(unmutated, order, agent), unseen},
		"no order":                 {create(unmutated, annotations("", "b"), agent, wrapped), unseen},
		"no order, by image":       {create(unmutated, annotations("", "b"), image, wrapped), unseen},
		"mutated":                  {create(unmutated, order, agent, wrapped), ""},
		"mutated, by image":        {create(unmutated, order, image, wrapped), ""},
		"mutated, with a helper":   {create(unmutated, annotations("0", "b"), agent, wrapped), ""},
		"another webhook's, too":   {create(unmutated, order, image, inFront), ""},
		"all steps":                {create(unmutated, annotations("1", "b,a"), agent, both), ""},
		"a step without its agent": {create(unmutated, annotations("1", "b,a"), agent, wrapped), unseen},
		"no steps":                 {create(unmutated, map[string]string{contract.OrderAnnotation: "1"}, agent), unseen},
		"one that has run":         {create(unmutated, annotations("2", "b,a"), agent, both), unseen},
		"one that was halted":      {create(unmutated, halted, agent, wrapped), unseen},
		"another container":        {create(unmutated, order, init("agent"), wrapped), lost},
		// An API server without image volumes drops the field: Kubernetes 1.30, or a later one with the feature off.
		"an image that isn't known":   {create(unmutated, order, volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), wrapped), lost},
		"an image that was taken out": {create(unmutated, order, wrapped), lost},
		"says no":                     {create(map[string]string{sequential: "false"}, nil), ""},
		"no label":                    {create(nil, nil), ""},
		"another label":               {create(map[string]string{"app": "a"}, nil), ""},
		"a kubelet's own Pod":         {createAs(kubelet, unmutated, mirror, onNode), ""},
		"says it's a kubelet's own":   {create(unmutated, mirror, onNode), unseen},
	} {
		got[name] = ""
		for _, refusal := range []string{unseen, lost} {
			if apierrors.IsForbidden(c.err) && strings.Contains(c.err.Error(), refusal) {
				got[name] += refusal
			}
		}
		want[name] = c.refused
		if c.err != nil && got[name] == "" && name != "a kubelet's own Pod" { // it would need a static Pod on a node
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}
