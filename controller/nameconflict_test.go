package controller

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestForgedPod proves that a Pod with an owner reference to a Task belongs to it only if the operator has recorded or marked the Pod, or an
// earlier release has recorded it. Other Pods leave the Task as it is, or conflict with the name of its Pod.
func TestForgedPod(t *testing.T) {
	unmarked := func(pod *corev1.Pod) { delete(pod.Annotations, contract.TaskUIDAnnotation) }
	unlabelled := func(pod *corev1.Pod) { delete(pod.Labels, contract.SequentialLabel) }
	markedForAnother := annotated(contract.TaskUIDAnnotation, "another")
	allSucceeded := []edit{owned, onNode, phase(corev1.PodSucceeded), containers(succeeded("a"), succeeded("b"), succeeded("c"))}
	suspend := func(task *v1alpha1.Task) { task.Spec.Suspend = true }
	recorded := func(uid string) func(*v1alpha1.Task) {
		return func(task *v1alpha1.Task) {
			hasPod(task)
			task.Status.PodUID = "pod"
			if uid != "" {
				task.Status.PodUID = "another"
			}
		}
	}
	formerTask := func(pod *corev1.Pod) { pod.OwnerReferences[0].UID = "former" }
	anotherKind := func(pod *corev1.Pod) {
		formerTask(pod)
		pod.OwnerReferences[0].APIVersion = "example.com/v1"
	}
	const conflict = `Failed PodNameConflict`
	cases := map[string]struct {
		task   func(*v1alpha1.Task)
		edit   edit
		hidden bool // from the cache
		want   string
	}{
		"forged for a suspended Task":                      {suspend, unmarked, false, "Suspended "},
		"forged for a suspended Task, the cache is behind": {suspend, unmarked, true, "Suspended "},
		"forged for a suspended Task with another's mark":  {suspend, markedForAnother, false, "Suspended "},
		"forged before the Task's own":                     {nil, unmarked, false, conflict},
		"forged before, the cache is behind":               {nil, unmarked, true, conflict},
		"forged with the mark, out of the webhook's sight": {nil, unlabelled, true, conflict},
		"an unlabelled Pod that the Task owns":             {nil, func(pod *corev1.Pod) { pod.Labels, pod.Annotations = nil, nil }, true, conflict},
		"a former Task's":                                  {nil, formerTask, false, "Pending "},
		"of another kind Task":                             {nil, anotherKind, false, conflict},
		"forged after the Task's own was deleted":          {recorded("another"), func(*corev1.Pod) {}, false, conflict},
		"the operator's, recorded":                         {recorded(""), func(*corev1.Pod) {}, false, "Succeeded "},
		"the operator's, the status was lost":              {nil, func(*corev1.Pod) {}, false, "Succeeded "},
		"the operator's, the status and cache were lost":   {nil, func(*corev1.Pod) {}, true, "Succeeded "},
		"an earlier release's":                             {hasPod, unmarked, false, "Succeeded "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(c.task), sequential(append(allSucceeded, c.edit)...))
			w.cached = func(*corev1.Pod) bool { return !c.hidden }
			if _, err := w.reconcile(); (err != nil) != (c.want == "Pending ") { // it is retried
				t.Fatal(err)
			}
			status := w.task().Status
			got := string(status.Phase) + " "
			if failed := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed); failed != nil {
				got += failed.Reason
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the Task (-want +got):\n%s", diff)
			}
			if own := status.Phase == v1alpha1.TaskSucceeded; own && status.PodUID != "pod" {
				t.Errorf("status.podUID is %q", status.PodUID)
			}
		})
	}
}

// TestPodIsMarked proves that the Task controller marks the Pod that it creates, and records its UID.
func TestPodIsMarked(t *testing.T) {
	w := newWorld(t, exampleTask(nil))
	if _, err := w.reconcile(); err != nil {
		t.Fatal(err)
	}
	pod := w.pod("example")
	if diff := cmp.Diff("task", pod.Annotations[contract.TaskUIDAnnotation]); diff != "" {
		t.Errorf("the mark (-want +got):\n%s", diff)
	}
	if got := w.task().Status; got.PodUID != pod.UID || got.PodName != "example" {
		t.Errorf("the status has the Pod %q with UID %q, want %q", got.PodName, got.PodUID, pod.UID)
	}
}
