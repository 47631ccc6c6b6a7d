//go:build apiserver

package apiserver

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestPolicyCost proves that the policy on taskflow's annotations costs nothing at an update of other Pods, and that its cost for a
// sequential Pod doesn't grow with the number of annotations and labels. A policy that iterates over them made each of these updates take
// more than ten seconds.
func TestPolicyCost(t *testing.T) {
	const many = 40_000
	manyKeys := func(prefix string) map[string]string {
		keys := make(map[string]string, many)
		for i := range many {
			keys[prefix+strconv.Itoa(i)] = ""
		}
		return keys
	}
	cases := map[string]*corev1.Pod{
		"a foreign Pod":                      {ObjectMeta: metav1.ObjectMeta{Name: "foreign", Annotations: manyKeys("")}},
		"a foreign Pod with labels":          {ObjectMeta: metav1.ObjectMeta{Name: "foreign-labels", Labels: manyKeys("l")}},
		"a sequential Pod":                   {ObjectMeta: metav1.ObjectMeta{Name: "sequential", Labels: sequentialLabel(), Annotations: manyKeys("")}},
		"a sequential Pod with labels":       {ObjectMeta: metav1.ObjectMeta{Name: "sequential-labels", Labels: manyKeys("l")}},
		"a sequential Pod of the usual kind": {ObjectMeta: metav1.ObjectMeta{Name: "usual", Labels: sequentialLabel()}},
		"a foreign Pod of the usual kind":    {ObjectMeta: metav1.ObjectMeta{Name: "usual-foreign"}},
	}
	cases["a sequential Pod with labels"].Labels[contract.SequentialLabel] = "true"
	namespace := cluster.NewNamespace(t, "privileged")
	for name, pod := range cases {
		pod.Namespace = namespace
		pod.Spec = corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a", Command: []string{"a"}}}}
		if err := cluster.Create(t.Context(), pod); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	update := func(pod *corev1.Pod) time.Duration {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"0":"%d"}}}`, time.Now().UnixNano())
		began := time.Now()
		if err := cluster.Patch(t.Context(), pod.DeepCopy(), client.RawPatch(types.MergePatchType, patch)); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	median := func(pod *corev1.Pod) time.Duration {
		const rounds = 3
		var took []time.Duration
		for range rounds {
			took = append(took, update(pod))
		}
		slices.Sort(took)
		return took[rounds/2]
	}
	without := map[string]time.Duration{}
	for name, pod := range cases {
		without[name] = median(pod)
	}
	probes := 1
	installPolicy(t, "annotations.yaml", namespace, func() error {
		probes++
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}}}`, contract.OrderAnnotation, probes)
		return cluster.Patch(t.Context(), cases["a sequential Pod of the usual kind"].DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	})
	for name, pod := range cases {
		with := median(pod)
		t.Logf("%s: an update took %v without the policy, and %v with it", name, without[name], with)
		// The machine may be busy. Iterating over the keys takes far longer than that.
		if limit := 3*without[name] + 2*time.Second; with > limit {
			t.Errorf("%s: an update took %v with the policy and %v without it, want at most %v", name, with, without[name], limit)
		}
	}
}
