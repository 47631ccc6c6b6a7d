package controller

import (
	"encoding/json"
	"testing"

	rfc6902 "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestOrderPatch proves which annotations a Pod has after the patch, and that there is no patch where nothing is to be done.
func TestOrderPatch(t *testing.T) {
	type annotations struct{ Order, Halt string }
	cases := map[string]struct {
		pod  *corev1.Pod
		want observation
		then annotations
		none bool
	}{
		"nothing to do":                 {pod: sequential(), want: observation{order: 1}, then: annotations{"1", ""}, none: true},
		"nothing to do, after a halt":   {pod: sequential(order("2"), halt("why")), want: observation{order: 2, halt: "why"}, then: annotations{"2", "why"}, none: true},
		"nothing to do, halt is empty":  {pod: sequential(halt("")), want: observation{order: 1}, then: annotations{"1", ""}, none: true},
		"the next step":                 {pod: sequential(), want: observation{order: 2}, then: annotations{"2", ""}},
		"two steps at once":             {pod: sequential(order("9")), want: observation{order: 11}, then: annotations{"11", ""}},
		"a halt":                        {pod: sequential(), want: observation{order: 1, halt: `step "a" failed`}, then: annotations{"1", `step "a" failed`}},
		"a halt in the place of none":   {pod: sequential(halt("")), want: observation{order: 1, halt: "why"}, then: annotations{"1", "why"}},
		"a step and a halt":             {pod: sequential(), want: observation{order: 2, halt: "why"}, then: annotations{"2", "why"}},
		"an order that is no number":    {pod: sequential(order("x")), want: observation{order: 1}, then: annotations{"1", ""}},
		"an order in another spelling":  {pod: sequential(order("01")), want: observation{order: 1}, then: annotations{"1", ""}},
		"a halt that needs an escape":   {pod: sequential(), want: observation{order: 1, halt: "a/~\"\n\u2028<>"}, then: annotations{"1", "a/~\"\n\u2028<>"}},
		"a halt, the order isn't there": {pod: sequential(order("")), want: observation{order: 0, halt: "why"}, then: annotations{"0", "why"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			patch := orderPatch(c.pod, c.want)
			if none := len(patch) == 0; none != c.none {
				t.Errorf("the patch is %v", patch)
			}
			want := c.pod.DeepCopy()
			order(c.then.Order)(want)
			if c.then.Halt != "" {
				halt(c.then.Halt)(want)
			}
			got, err := applyOrderPatch(t, c.pod, c.pod, c.want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the Pod after the patch (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodIsEnded proves when a Pod that was halted is ended by its deadline: when it would otherwise try without end to start a container, and
// nothing of it runs any more.
func TestPodIsEnded(t *testing.T) {
	stuckInit := func(pod *corev1.Pod) {
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{waiting(contract.AgentContainer, "ImagePullBackOff", "back-off")}
	}
	deadline := func(seconds int64) edit {
		return func(pod *corev1.Pod) { pod.Spec.ActiveDeadlineSeconds = &seconds }
	}
	stuckB := containers(succeeded("a"), waiting("b", "ImagePullBackOff", "back-off"), skipped("c"))
	cases := map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"a step can't start, the others have ended":    {sequential(halt("why"), stuckB), true},
		"no step can start":                            {sequential(halt("why"), containers(waiting("a", "ErrImagePull", ""), waiting("b", "ErrImagePull", ""), waiting("c", "ErrImagePull", ""))), true},
		"an init container can't start":                {sequential(halt("why"), stuckInit, containers(waiting("a", "PodInitializing", ""), waiting("b", "PodInitializing", ""), waiting("c", "PodInitializing", ""))), true},
		"it has a later deadline":                      {sequential(halt("why"), stuckB, deadline(3600)), true},
		"it is ended already":                          {sequential(halt("why"), stuckB, deadline(1)), false},
		"it was not halted":                            {sequential(order("2"), stuckB), false},
		"a step still runs":                            {sequential(halt("why"), containers(running("a"), waiting("b", "ImagePullBackOff", ""), skipped("c"))), false},
		"a step is being created":                      {sequential(halt("why"), containers(waiting("a", "ContainerCreating", ""), waiting("b", "ImagePullBackOff", ""), skipped("c"))), false},
		"all have ended by themselves":                 {sequential(halt("why"), containers(failedWith("a", 1), skipped("b"), skipped("c"))), false},
		"what can't start is no step, the steps run":   {sequential(halt("why"), containers(running("a"), running("b"), running("c"), waiting("proxy", "ImagePullBackOff", ""))), false},
		"what can't start is no step, the steps ended": {sequential(halt("why"), containers(failedWith("a", 1), skipped("b"), skipped("c"), waiting("proxy", "ImagePullBackOff", ""))), true},
		"nothing is known of it":                       {sequential(halt("why")), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			patch := orderPatch(c.pod, observe(c.pod))
			if got := len(patch) > 0; got != c.want {
				t.Fatalf("the patch is %v", patch)
			}
			got, err := applyOrderPatch(t, c.pod, c.pod, observe(c.pod))
			if err != nil {
				t.Fatal(err)
			}
			want := c.pod.DeepCopy()
			if c.want {
				want.Spec.ActiveDeadlineSeconds = new(int64(1))
			}
			if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
				t.Errorf("the Pod after the patch (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOrderPatchOfAnotherPod proves that a patch which was made from an old state of the Pod, or from a Pod of the same name before,
// does nothing.
func TestOrderPatchOfAnotherPod(t *testing.T) {
	cases := map[string]edit{
		"another Pod of the name":      func(pod *corev1.Pod) { pod.UID = "another" },
		"the order is another by now":  order("2"),
		"the order is gone":            func(pod *corev1.Pod) { delete(pod.Annotations, contract.OrderAnnotation) },
		"all annotations are gone":     func(pod *corev1.Pod) { pod.Annotations = nil },
		"the same order, written else": order("01"),
		"it is halted by now":          halt("mine"),
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			for _, want := range []observation{{order: 2}, {order: 1, halt: "why"}} {
				if got, err := applyOrderPatch(t, sequential(), sequential(change), want); err == nil {
					t.Errorf("the patch for %+v applies: %v", want, got.Annotations)
				}
			}
		})
	}
}

// applyOrderPatch applies the patch that is made from one Pod to another.
func applyOrderPatch(t *testing.T, from, to *corev1.Pod, want observation) (*corev1.Pod, error) {
	t.Helper()
	content, err := orderPatch(from, want).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	patch, err := rfc6902.DecodePatch(content)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply(raw)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := json.Unmarshal(patched, &pod); err != nil {
		t.Fatal(err)
	}
	pod.CreationTimestamp.Time = pod.CreationTimestamp.UTC() // JSON has no location
	return &pod, nil
}
