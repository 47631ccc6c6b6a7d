//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// editor returns a client of a user with the ClusterRole edit in the namespace.
func editor(t *testing.T, namespace string) client.Client {
	t.Helper()
	return cluster.WithClusterRole(t, namespace, "edit")
}

// TestEditorCannotReleaseSteps proves that a user who may edit everything in a namespace can't change what releases the steps of a Pod
// there, neither at its creation nor later: no step runs before its turn.
func TestEditorCannotReleaseSteps(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	user := editor(t, namespace)
	task, journal := pausingTask(t, namespace, "held", 2)
	task.Spec.Template.Metadata.Annotations = map[string]string{contract.HandoffAnnotation: contract.HandoffController}
	if err := user.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	awaitFirstStep(t, task)
	key := client.ObjectKeyFromObject(task)

	const release = `{"metadata":{"annotations":{"` + contract.OrderAnnotation + `":"2"}}}`
	get := func() *corev1.Pod {
		var pod corev1.Pod
		if err := user.Get(t.Context(), key, &pod); err != nil {
			t.Fatal(err)
		}
		return &pod
	}
	patch := func(kind types.PatchType, content string, options ...client.PatchOption) error {
		return user.Patch(t.Context(), get(), client.RawPatch(kind, []byte(content)), options...)
	}
	through := func(subresource string) error {
		return user.SubResource(subresource).Patch(t.Context(), get(), client.RawPatch(types.MergePatchType, []byte(release)))
	}
	const ofAnnotations, ofLabels = "metadata.annotations: only taskflow changes ", " is fixed when the Pod is created"
	const noRight = "cannot " // the API server's words
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a patch":             {patch(types.MergePatchType, release), ofAnnotations},
		"a strategic patch":   {patch(types.StrategicMergePatchType, release), ofAnnotations},
		"halt":                {patch(types.MergePatchType, strings.ReplaceAll(release, contract.OrderAnnotation, contract.HaltAnnotation)), ofAnnotations},
		"a label":             {patch(types.MergePatchType, `{"metadata":{"labels":{"`+contract.SequentialLabel+`":null}}}`), ofLabels},
		"the other label":     {patch(types.MergePatchType, `{"metadata":{"labels":{"`+contract.TaskLabel+`":"other"}}}`), ofLabels},
		"status":              {through("status"), noRight},
		"ephemeralcontainers": {through("ephemeralcontainers"), noRight},
		"resize":              {through("resize"), noRight},
		"apply":               {patch(types.ApplyPatchType, `{"apiVersion":"v1","kind":"Pod",`+release[1:], client.FieldOwner("editor"), client.ForceOwnership), ofAnnotations},
		"update": {func() error {
			pod := get()
			pod.Annotations[contract.OrderAnnotation] = "2"
			return user.Update(t.Context(), pod)
		}(), ofAnnotations},
		"binding": {user.SubResource("binding").Create(t.Context(), get(), &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: task.Name, Annotations: map[string]string{contract.OrderAnnotation: "2"}},
			Target:     corev1.ObjectReference{Kind: "Node", Name: "localhost"},
		}), noRight},
		"a Pod that is created so": {func() error {
			pod := labelledPod(namespace)
			pod.Annotations = map[string]string{contract.OrderAnnotation: "2"}
			return user.Create(t.Context(), pod)
		}(), "only taskflow sets " + contract.OrderAnnotation + ": remove it"},
		"a Task that is created so": {func() error {
			preset := harness.NewTask(namespace, "preset", harness.Shell("first", "true"))
			preset.Spec.Template = &v1alpha1.PodTemplate{Metadata: metav1.ObjectMeta{Annotations: map[string]string{contract.OrderAnnotation: "2"}}}
			return user.Create(t.Context(), preset)
		}(), "template.metadata.annotations: " + contract.OrderAnnotation + " is set by taskflow: remove it"},
		"the status of the Task": {user.Status().Patch(t.Context(), task.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"order":2}}`))), noRight},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, c.err, c.want)
		}
	}

	if diff := cmp.Diff("1", get().Annotations[contract.OrderAnnotation]); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if spans := readJournal(t, journal); len(spans) != 1 {
		t.Errorf("the second step has begun: %v", spans)
	}
	resume(t, journal)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if wrong := disorder(readJournal(t, journal), 2); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
}

// TestEditorCannotReachTheNode proves that no name of an image makes the operator send a request to its node or to a cloud's metadata,
// regardless of how the address is written, in a Task or in a Pod.
func TestEditorCannotReachTheNode(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := editor(t, namespace)
	const blocked = "has a loopback, link-local or metadata address"
	for image, want := range map[string]string{
		"169.254.169.254/latest/meta-data:v1":    blocked,
		"169.254.169.254:80/latest/meta-data:v1": blocked,
		"127.0.0.1:8081/healthz:v1":              blocked,
		"localhost:8081/healthz:v1":              blocked,
		"100.100.100.200/latest/meta-data:v1":    blocked,
		"0.0.0.0:8081/healthz:v1":                blocked,
		// Some programs read these as addresses. The operator reads them as names that don't exist.
		"2852039166:80/latest/meta-data:v1":  "cannot be resolved",
		"0xa9fea9fe:80/latest/meta-data:v1":  "cannot be resolved",
		"[::ffff:169.254.169.254]:80/app:v1": blocked,
		"[fe80::1]:80/app:v1":                blocked,
	} {
		pod := labelledPod(namespace)
		pod.Spec.Containers[0].Command, pod.Spec.Containers[0].Image = nil, image
		err := user.Create(t.Context(), pod)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a Pod with the image %s: %v, want a refusal with %q", image, err, want)
		}
	}
	task := harness.NewTask(namespace, "reaches-out", corev1.Container{Name: "only", Image: "169.254.169.254/latest/meta-data:v1"})
	if err := user.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	status := cluster.AwaitTask(t, task, "the Task to wait", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonEntrypointUnresolved
	})
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonEntrypointUnresolved, blocked)
	wantNoPod(t, task)
}
