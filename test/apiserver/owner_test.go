//go:build apiserver

package apiserver

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestForgedOwnership proves that only the operator can create a Pod that counts as a Task's own. The webhook refuses other users, and so
// does the policy alone, at creation and at updates. A Task's Pod stays editable.
func TestForgedOwnership(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	task := echoTask(namespace, "served", "a", "b")
	task.Spec.Suspend = true
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to be suspended", harness.InPhase(v1alpha1.TaskSuspended))
	user := cluster.As(t, "mallory", "system:masters")
	create := func(as client.Client, in string, edits ...func(*corev1.Pod)) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: task.Name, Labels: map[string]string{contract.SequentialLabel: "true"}},
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{
				{Name: "a", Image: "a", Command: []string{"a"}}, {Name: "b", Image: "b", Command: []string{"b"}},
			}},
		}
		for _, edit := range edits {
			edit(pod)
		}
		return as.Create(t.Context(), pod, client.DryRunAll)
	}
	own := func(pod *corev1.Pod) {
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)}
	}
	mark := func(pod *corev1.Pod) {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.TaskUIDAnnotation, string(task.UID))
	}
	const owner = "metadata.ownerReferences: only taskflow creates the Pods of a Task"
	assertRefused := func(err error, want string) {
		t.Helper()
		if want == "" && err != nil || want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
	assertRefused(create(user, namespace), "")
	assertRefused(create(user, namespace, own), owner)
	assertRefused(create(user, namespace, mark), "metadata.annotations: only taskflow sets "+contract.TaskUIDAnnotation)

	// The webhook isn't called for this namespace, so the policy is alone.
	const unseen = "kube-system"
	probes := 0
	installPolicy(t, "ownership.yaml", unseen, func() error {
		probes++
		return create(user, unseen, own, func(pod *corev1.Pod) { pod.Name += strconv.Itoa(probes) })
	})
	assertRefused(create(user, unseen), "")
	assertRefused(create(user, unseen, own), owner)
	assertRefused(create(cluster.As(t, operator, "system:masters"), unseen, own), "")
	assertRefused(create(user, unseen, own, func(pod *corev1.Pod) { pod.OwnerReferences[0].Controller = nil }), "")
	assertRefused(create(user, unseen, own, func(pod *corev1.Pod) { pod.OwnerReferences[0].APIVersion = "example.com/v1" }), "")

	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: unseen, Name: "updated", Labels: map[string]string{contract.SequentialLabel: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
	}
	if err := user.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	update := func(as client.Client, edit func(*corev1.Pod)) error {
		t.Helper()
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
			t.Fatal(err)
		}
		edit(pod)
		return as.Update(t.Context(), pod)
	}
	relabel := func(value string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Labels["own"] = value }
	}
	assertRefused(update(user, own), owner)
	assertRefused(update(user, relabel("1")), "")
	assertRefused(update(cluster.As(t, operator, "system:masters"), own), "")
	assertRefused(update(user, relabel("2")), "")
	assertRefused(update(user, func(pod *corev1.Pod) { pod.OwnerReferences[0].UID = "another" }), owner)
	assertRefused(update(user, func(pod *corev1.Pod) { pod.OwnerReferences = nil }), "")
}
