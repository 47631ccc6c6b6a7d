package controller

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// TestStripPodKeepsWhatIsRead proves that the controllers decide the same about a Pod from the cache as about the Pod itself, in any state.
func TestStripPodKeepsWhatIsRead(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for number := range 2000 {
		pod := randomPod(t, random)
		cached := strip(t, pod)
		seen := observe(pod)
		if diff := cmp.Diff(seen, observe(cached), cmp.AllowUnexported(observation{})); diff != "" {
			t.Errorf("observe (-Pod +cached):\n%s", diff)
		}
		status := func(pod *corev1.Pod) view {
			return viewOf(statusAfter(func(n *next) { look(n, pod, lookedAt) }))
		}
		if diff := cmp.Diff(status(pod), status(cached)); diff != "" {
			t.Errorf("the status (-Pod +cached):\n%s", diff)
		}
		if diff := cmp.Diff(orderPatch(pod, seen), orderPatch(cached, seen)); diff != "" {
			t.Errorf("the patch (-Pod +cached):\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("the above is of Pod %d: %s", number, pod)
		}
	}
}

// TestStripPod proves what is kept of a Pod, and that nothing is that grows with the Pod.
func TestStripPod(t *testing.T) {
	meta := metav1.ObjectMeta{
		Name:              "example",
		Namespace:         "default",
		UID:               "pod",
		ResourceVersion:   "7",
		CreationTimestamp: metav1.Time{Time: created},
		DeletionTimestamp: &metav1.Time{Time: lookedAt},
		OwnerReferences:   []metav1.OwnerReference{{Kind: "Task", Name: "example", UID: "task", Controller: new(true)}},
	}
	want := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: *meta.DeepCopy(),
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure},
		Status: corev1.PodStatus{
			Phase:                 corev1.PodRunning,
			Reason:                "Evicted",
			Message:               "no space",
			Conditions:            []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse}},
			InitContainerStatuses: []corev1.ContainerStatus{running("init")},
			ContainerStatuses:     []corev1.ContainerStatus{running("a"), exited("b", 1, "Error", ""), waiting("c", "ErrImagePull", "")},
		},
	}
	want.Annotations = map[string]string{
		"taskflow.practice.com/order": "1", "taskflow.practice.com/halt": "why", "taskflow.practice.com/steps": "a",
		"taskflow.practice.com/handoff": "controller",
	}
	pod := want.DeepCopy()
	pod.Annotations["example.com/large"] = "text"
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	pod.Labels = map[string]string{contract.TaskLabel: "example", "team": "x"}
	pod.Finalizers = []string{"example.com/mine"}
	pod.Spec.Containers = []corev1.Container{{Name: "a"}}
	mountsAgent(want)
	pod.Spec.Volumes = slices.Concat([]corev1.Volume{{Name: "work"}}, want.Spec.Volumes, []corev1.Volume{{Name: contract.RunVolume}})
	pod.Spec.NodeName, want.Spec.NodeName = "node", "node"
	pod.Status.Conditions = append(pod.Status.Conditions,
		corev1.PodCondition{Type: corev1.PodReady}, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse})
	pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, exited("ended", 0, "Completed", ""))
	for i := range pod.Status.ContainerStatuses {
		container := &pod.Status.ContainerStatuses[i]
		container.Image, container.ImageID = "busybox", "busybox@sha256:0"
		want.Status.ContainerStatuses[i].ImageID, want.Status.ContainerStatuses[i].RestartCount = container.ImageID, 3
		container.ContainerID, container.RestartCount = "containerd://0", 3
		container.VolumeMounts = []corev1.VolumeMountStatus{{Name: "work"}}
	}
	pod.Status.ContainerStatuses[1].State.Terminated.ContainerID = "containerd://0"
	want.Status.ContainerStatuses[2].Image = "busybox"
	pod.Status.PodIP, pod.Status.QOSClass = "10.0.0.1", corev1.PodQOSBestEffort
	before := pod.DeepCopy()

	got := strip(t, pod)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stripPod (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, pod); diff != "" {
		t.Errorf("stripPod changed its Pod (-before +after):\n%s", diff)
	}
	// The cache may pass it a stripped Pod.
	if diff := cmp.Diff(got, strip(t, got)); diff != "" {
		t.Errorf("stripPod of what is stripped (-once +twice):\n%s", diff)
	}
}

// TestStripPodLeavesTombstones proves that other objects pass unchanged: the cache passes a tombstone if it missed a deletion.
func TestStripPodLeavesTombstones(t *testing.T) {
	tombstone := cache.DeletedFinalStateUnknown{Key: "default/example"}
	got, err := stripPod(tombstone)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(tombstone), got); diff != "" {
		t.Errorf("stripPod (-want +got):\n%s", diff)
	}
}

func strip(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	stripped, err := stripPod(pod)
	if err != nil {
		t.Fatal(err)
	}
	return stripped.(*corev1.Pod)
}

// TestCacheOptions proves which Pods the cache asks the API server for.
func TestCacheOptions(t *testing.T) {
	for object, options := range CacheOptions().ByObject {
		if _, ok := object.(*corev1.Pod); !ok {
			continue
		}
		for _, c := range []struct {
			labels labels.Set
			want   bool
		}{
			{labels.Set{"taskflow.practice.com/sequential": "true"}, true},
			{labels.Set{"taskflow.practice.com/sequential": "true", "taskflow.practice.com/task": "example", "team": "x"}, true},
			{labels.Set{"taskflow.practice.com/sequential": "false"}, false},
			{labels.Set{"team": "x"}, false},
			{nil, false},
		} {
			if got := options.Label.Matches(c.labels); got != c.want {
				t.Errorf("a Pod with the labels %v: cached is %t, want %t", c.labels, got, c.want)
			}
		}
		return
	}
	t.Error("the cache has no options for Pods")
}

// TestStripTaskKeepsWhatIsRead proves that the controller decides the same about a Task from the cache as about the Task itself, whether or not
// the Pod exists.
func TestStripTaskKeepsWhatIsRead(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	stripped := 0
	for number := range 2000 {
		before, after := randomPod(t, random), randomPod(t, random)
		if random.IntN(4) > 0 { // else a user has changed the annotation
			after.Annotations[contract.StepsAnnotation] = before.Annotations[contract.StepsAnnotation]
		}
		task := newTask()
		task.Spec.Cancel, task.Spec.BackoffLimit = random.IntN(4) == 0, random.Int32N(2)
		for _, name := range contract.ParseSteps(before.Annotations[contract.StepsAnnotation]) {
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: corev1.Container{Name: name}})
		}
		first := statusOf(task, 0)
		look(first, before, lookedAt)
		task.Status = first.TaskStatus
		cached := task.DeepCopy()
		if _, err := stripTask(cached); err != nil {
			t.Fatal(err)
		}
		if !podspec.IsWhole(cached) {
			stripped++
		}
		for name, bring := range map[string]bring{
			"its Pod": func(n *next) { look(n, after, lookedAt) },
			"no Pod":  gone,
		} {
			var seen [2]*next
			for i, task := range []*v1alpha1.Task{task, cached} {
				seen[i] = statusOf(task, 0)
				bring(seen[i])
			}
			if diff := cmp.Diff(seen[0].TaskStatus, seen[1].TaskStatus, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); diff != "" {
				t.Fatalf("the status after %s (-Task +cached), of the Pods %d, %s and %s:\n%s", name, number, before, after, diff)
			}
		}
	}
	if stripped < 1000 {
		t.Errorf("%d Tasks were stripped: too few to prove anything", stripped)
	}
}

// TestStripTask proves what is dropped of a Task, and that the rest is kept.
func TestStripTask(t *testing.T) {
	whole := newTask(corev1.Container{Name: "a"}, corev1.Container{Name: "b"})
	whole.Spec.Template, whole.Spec.Sidecars = &v1alpha1.PodTemplate{}, []corev1.Container{{Name: "c"}}
	whole.Spec.Timeout, whole.Spec.BackoffLimit, whole.Spec.TTLSecondsAfterFinished = &metav1.Duration{Duration: 1}, 2, new(int32(3))
	for name, c := range map[string]struct {
		status v1alpha1.TaskStatus
		whole  bool
	}{
		"without a Pod":        {v1alpha1.TaskStatus{Steps: []v1alpha1.StepStatus{{Name: "a"}, {Name: "b"}}}, true},
		"with a Pod":           {v1alpha1.TaskStatus{PodName: "example", Steps: []v1alpha1.StepStatus{{Name: "a"}, {Name: "b"}}}, false},
		"ended without a Pod":  {v1alpha1.TaskStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionFailed, Status: metav1.ConditionTrue}}}, false},
		"a large one":          {v1alpha1.TaskStatus{}, false},
		"an unexpected status": {v1alpha1.TaskStatus{PodName: "example", Steps: []v1alpha1.StepStatus{{Name: "a"}}}, true},
	} {
		want := whole.DeepCopy()
		want.Status = c.status
		task := want.DeepCopy()
		task.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		task.Annotations, task.Labels = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}, map[string]string{"team": "x"}
		task.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
		if name == "a large one" {
			task.Spec.Template.Spec.Tolerations = make([]corev1.Toleration, 1000)
		}
		if !c.whole {
			want.Spec.Steps, want.Spec.Sidecars, want.Spec.Template = nil, nil, nil
		}
		got, err := stripTask(task)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Errorf("stripTask, %s (-want +got):\n%s", name, diff)
		}
		if got := podspec.IsWhole(task); got != c.whole {
			t.Errorf("IsWhole, %s, is %t", name, got)
		}
	}
	tombstone := cache.DeletedFinalStateUnknown{Key: "default/example"}
	if got, err := stripTask(tombstone); err != nil || got != tombstone {
		t.Errorf("stripTask of a tombstone = %v, %v", got, err)
	}
}
