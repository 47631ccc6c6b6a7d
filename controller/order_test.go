package controller

import (
	"encoding/json"
	"testing"

	rfc6902 "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/contract"
)

// TestOrderPatch proves which annotations a Pod has after the patch, and that there is no patch where nothing is to be done.
func TestOrderPatch(t *testing.T) {
	type annotations struct{ Order, Halt string }
	cases := map[string]struct {
		pod  *corev1.Pod
		want sequence
		then annotations
		none bool
	}{
		"nothing to do":                 {pod: sequential(), want: sequence{order: 1}, then: annotations{"1", ""}, none: true},
		"nothing to do, after a halt":   {pod: sequential(order("2"), halt("why")), want: sequence{order: 2, halt: "why"}, then: annotations{"2", "why"}, none: true},
		"nothing to do, halt is empty":  {pod: sequential(halt("")), want: sequence{order: 1}, then: annotations{"1", ""}, none: true},
		"the next step":                 {pod: sequential(), want: sequence{order: 2}, then: annotations{"2", ""}},
		"two steps at once":             {pod: sequential(order("9")), want: sequence{order: 11}, then: annotations{"11", ""}},
		"a halt":                        {pod: sequential(), want: sequence{order: 1, halt: `step "a" failed`}, then: annotations{"1", `step "a" failed`}},
		"a halt in the place of none":   {pod: sequential(halt("")), want: sequence{order: 1, halt: "why"}, then: annotations{"1", "why"}},
		"a step and a halt":             {pod: sequential(), want: sequence{order: 2, halt: "why"}, then: annotations{"2", "why"}},
		"an order that is no number":    {pod: sequential(order("x")), want: sequence{order: 1}, then: annotations{"1", ""}},
		"an order in another spelling":  {pod: sequential(order("01")), want: sequence{order: 1}, then: annotations{"1", ""}},
		"a halt that needs an escape":   {pod: sequential(), want: sequence{order: 1, halt: "a/~\"\n\u2028<>"}, then: annotations{"1", "a/~\"\n\u2028<>"}},
		"a halt, the order isn't there": {pod: sequential(order("")), want: sequence{order: 0, halt: "why"}, then: annotations{"0", "why"}},
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

// TestOrderPatchOfAnotherPod proves that a patch which was made from an old state of the Pod, or from a Pod of the same name before,
// does nothing.
func TestOrderPatchOfAnotherPod(t *testing.T) {
	cases := map[string]edit{
		"another Pod of the name":      func(pod *corev1.Pod) { pod.UID = "another" },
		"the order is another by now":  order("2"),
		"the order is gone":            func(pod *corev1.Pod) { delete(pod.Annotations, contract.OrderAnnotation) },
		"all annotations are gone":     func(pod *corev1.Pod) { pod.Annotations = nil },
		"the same order, written else": order("01"),
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			for _, want := range []sequence{{order: 2}, {order: 1, halt: "why"}} {
				if got, err := applyOrderPatch(t, sequential(), sequential(change), want); err == nil {
					t.Errorf("the patch for %+v applies: %v", want, got.Annotations)
				}
			}
		})
	}
}

// applyOrderPatch applies the patch that is made from one Pod to another.
func applyOrderPatch(t *testing.T, from, to *corev1.Pod, want sequence) (*corev1.Pod, error) {
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

// TestIsSequential proves which Pods are looked at: those that the webhook has been at, and no others with a task label.
func TestIsSequential(t *testing.T) {
	cases := map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"the webhook's":      {sequential(), true},
		"after a halt":       {sequential(halt("why")), true},
		"order is no number": {sequential(order("x")), true},
		"no order":           {sequential(order("")), false},
		"no steps":           {sequential(annotated(contract.StepsAnnotation, "")), false},
		"no annotations":     {&corev1.Pod{}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := isSequential(c.pod); got != c.want {
				t.Errorf("isSequential = %t, want %t", got, c.want)
			}
		})
	}
}
