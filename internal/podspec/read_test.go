package podspec

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestIsGated proves which Pods the controllers handle: those with steps and an order.
func TestIsGated(t *testing.T) {
	cases := map[string]struct {
		annotations map[string]string
		want        bool
	}{
		"steps and an order":           {map[string]string{contract.StepsAnnotation: "a,b", contract.OrderAnnotation: "1"}, true},
		"a halt":                       {map[string]string{contract.StepsAnnotation: "a,b", contract.OrderAnnotation: "1", contract.HaltAnnotation: "x"}, true},
		"an order that isn't a number": {map[string]string{contract.StepsAnnotation: "a,b", contract.OrderAnnotation: "x"}, true},
		"no order":                     {map[string]string{contract.StepsAnnotation: "a,b"}, false},
		"no steps":                     {map[string]string{contract.OrderAnnotation: "1"}, false},
		"nothing but a label":          {nil, false},
		"an empty list of steps":       {map[string]string{contract.StepsAnnotation: "", contract.OrderAnnotation: "1"}, false},
	}
	for name, c := range cases {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{contract.TaskLabel: "x"}, Annotations: c.annotations}}
		if got := IsGated(pod); got != c.want {
			t.Errorf("%s: IsGated = %t, want %t", name, got, c.want)
		}
	}
}

// TestOwnerTask proves that OwnerTask returns only a controller of the kind Task, in any version of its group.
func TestOwnerTask(t *testing.T) {
	owner := func(apiVersion, kind string, isController bool) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "x", Controller: &isController}}
	}
	cases := map[string]struct {
		owners []metav1.OwnerReference
		want   string
	}{
		"a Task":                           {owner("api.practice.com/v1alpha1", "Task", true), "x"},
		"a Task of a later version":        {owner("api.practice.com/v1", "Task", true), "x"},
		"a Task that isn't the controller": {owner("api.practice.com/v1alpha1", "Task", false), ""},
		"another group's Task":             {owner("api.practice.com.example.com/v1", "Task", true), ""},
		"a Job":                            {owner("batch/v1", "Job", true), ""},
		"nothing":                          {nil, ""},
	}
	for name, c := range cases {
		if got := OwnerTask(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{OwnerReferences: c.owners}}); got != c.want {
			t.Errorf("%s: OwnerTask = %q, want %q", name, got, c.want)
		}
	}
}
