package podspec

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// TestEarlyMountsOfGraphs proves which mounts the agents check if steps run side by side: those that any step can replace that need not run later.
func TestEarlyMountsOfGraphs(t *testing.T) {
	whole := []corev1.VolumeMount{mount("s", "/s")}
	part := []corev1.VolumeMount{subPath("s", "/dist", "dist")}
	type mounts = map[string][]corev1.VolumeMount
	cases := map[string]struct {
		options contract.Options
		mounts  mounts   // of the steps a to d
		want    []string // the steps that check the mount
	}{
		"a chain: only later steps":   {nil, mounts{"b": whole, "a": part, "d": part}, []string{"d"}},
		"a sibling that stands later": {contract.Options{"c": {DependsOn: []string{"a"}}}, mounts{"b": part, "c": whole}, []string{"b"}},
		"a sibling that stands first": {contract.Options{"c": {DependsOn: []string{"a"}}}, mounts{"b": whole, "c": part}, []string{"c"}},
		"a successor":                 {contract.Options{"c": {DependsOn: []string{"a"}}, "d": {DependsOn: []string{"b"}}}, mounts{"b": part, "d": whole}, nil},
		"beside a successor's":        {contract.Options{"c": {DependsOn: []string{"a"}}, "d": {DependsOn: []string{"b"}}}, mounts{"c": part, "d": whole}, []string{"c"}},
		"all side by side": {
			contract.Options{"b": {DependsOn: []string{}}, "c": {DependsOn: []string{}}, "d": {DependsOn: []string{}}},
			mounts{"a": part, "b": part, "d": whole}, []string{"a", "b"},
		},
		"a final step":             {contract.Options{"c": {DependsOn: []string{}}, "d": {Finally: true}}, mounts{"b": whole, "d": part}, []string{"d"}},
		"behind all others":        {contract.Options{"c": {DependsOn: []string{}}, "d": {Finally: true}}, mounts{"a": part, "c": part, "d": whole}, nil},
		"a final step's successor": {contract.Options{"c": {Finally: true}, "d": {Finally: true}}, mounts{"c": part, "d": whole}, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := startPod(step("a", c.mounts["a"]...), step("b", c.mounts["b"]...), step("c", c.mounts["c"]...), step("d", c.mounts["d"]...))
			if c.options != nil {
				pod.Annotations[contract.OptionsAnnotation] = c.options.Marshal()
			}
			var got []string
			for _, container := range gateTyped(t, pod).Spec.Containers {
				flags, err := contract.ParseAgentFlags(container.Args)
				if err != nil {
					t.Fatal(err)
				}
				if len(flags.Mounts) > 0 {
					got = append(got, container.Name)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the steps that check (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAncestry compares ancestryOf with a walk along the edges, for random plans of more steps than a word of a bitset has bits.
func TestAncestry(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 26))
	for range 200 {
		count := 1 + random.IntN(150)
		names, options := make([]string, count), contract.Options{}
		finals := random.IntN(min(3, count))
		for i := range names {
			names[i] = fmt.Sprintf("s%d", i)
			o := contract.StepOptions{Finally: i >= count-finals}
			if !o.Finally && random.IntN(2) == 0 {
				o.DependsOn = []string{}
				for range min(i, random.IntN(4)) {
					if name := names[random.IntN(i)]; !slices.Contains(o.DependsOn, name) {
						o.DependsOn = append(o.DependsOn, name)
					}
				}
			}
			options[names[i]] = o
		}
		plan := Plan(names, options)
		got := ancestryOf(plan)
		for i := range plan.Steps {
			want := walk(plan, i)
			for j := range plan.Steps {
				if got[i].has(j) != want[j] {
					t.Fatalf("step %d before step %d: %t, want %t, of the plan %+v", j, i, got[i].has(j), want[j], plan)
				}
				if mayPrecede := j != i && !walk(plan, j)[i]; got.mayPrecede(j, i) != mayPrecede {
					t.Fatalf("step %d may precede step %d: %t, want %t, of the plan %+v", j, i, !mayPrecede, mayPrecede, plan)
				}
			}
			if count > 20 {
				break // the walk is slow
			}
		}
	}
}

// walk returns the steps that run before step i.
func walk(plan sequence.Plan, i int) map[int]bool {
	found := map[int]bool{}
	next := slices.Clone(plan.Steps[i].After)
	for len(next) > 0 {
		step := next[0]
		next = next[1:]
		if !found[step] {
			found[step] = true
			next = append(next, plan.Steps[step].After...)
		}
	}
	return found
}

// TestFirstOrder proves the first order of a Pod with several first steps: they share a stage, and wait for helpers like a single one.
func TestFirstOrder(t *testing.T) {
	for containers, want := range map[string]string{"a b c": "1", "a b c helper": "0"} {
		raw, _ := admit(t, fromYAML(t, listPod(containers, "[a, {name: b, dependsOn: []}, {name: c, dependsOn: []}]")))
		pod := decodePod(t, raw)
		if diff := cmp.Diff(want, pod.Annotations[contract.OrderAnnotation]); diff != "" {
			t.Errorf("the order of %s (-want +got):\n%s", containers, diff)
		}
		for _, container := range pod.Spec.Containers[:3] {
			if args := strings.Join(container.Args, " "); !strings.Contains(args, " --waitcontent 1 ") {
				t.Errorf("the stage of %s: %s", container.Name, args)
			}
		}
	}
}

// TestGateTwiceResets proves that the copy of a Pod that has run begins anew.
func TestGateTwiceResets(t *testing.T) {
	raw, _ := admit(t, fromYAML(t, listPod("a b", "[a, {name: b, finally: true}]")))
	pod := decodePod(t, raw)
	for _, key := range progressAnnotations {
		pod.Annotations[key] = "7"
	}
	raw, _ = admit(t, encode(t, pod))
	got := decodePod(t, raw).Annotations
	want := map[string]string{
		contract.OrderAnnotation: "1", contract.HaltAnnotation: "", contract.HaltFinallyAnnotation: "", contract.CancelAnnotation: "", contract.OutcomeAnnotation: "",
		contract.StepsAnnotation: "a,b", contract.OptionsAnnotation: `{"b":{"finally":true}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	assertUnchanged(t, raw)
}
