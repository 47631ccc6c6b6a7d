package controller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestTransitions proves which events a Task gets: one for each change, and a warning if it needs attention.
func TestTransitions(t *testing.T) {
	unschedulable := func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodPending
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"}}
	}
	var (
		aRuns    = mirrored(containers(running("a"), running("b"), running("c")))
		bRuns    = mirrored(order("2"), containers(succeeded("a"), running("b"), running("c")))
		bFailed  = mirrored(order("2"), containers(succeeded("a"), failedWith("b", 3), running("c")))
		bMissing = mirrored(containers(running("a"), waiting("b", "ImagePullBackOff", "back-off"), running("c")))
		complete = mirrored(order("3"), containers(succeeded("a"), succeeded("b"), succeeded("c")))
	)
	const (
		podCreated = `Normal PodCreated CreatePod: created the Pod "example"`
		resumed    = "Normal Resumed Suspend: spec.suspend is false"
		aStarted   = `Normal StepStarted RunSteps: step "a" started`
		aEnded     = `Normal StepSucceeded RunSteps: step "a" succeeded`
		bStarted   = `Normal StepStarted RunSteps: step "b" started`
		bEnded     = `Normal StepSucceeded RunSteps: step "b" succeeded`
		cEnded     = `Normal StepSucceeded RunSteps: step "c" succeeded`
		allEnded   = "Normal Complete RunSteps: all steps succeeded"
		stepFailed = `Warning StepFailed RunSteps: step "b" failed with exit code 3`
	)
	cases := map[string]struct {
		before []bring
		after  bring
		want   []string
	}{
		"new":               {nil, func(*next) {}, nil},
		"suspended":         {nil, suspended, []string{"Normal Suspended Suspend: spec.suspend is true: set it to false to run the Task"}},
		"still suspended":   {[]bring{suspended}, suspended, nil},
		"refused":           {nil, refused, []string{"Warning PodRefused RunSteps: exceeded quota"}},
		"still refused":     {[]bring{refused}, refused, nil},
		"resumed, refused":  {[]bring{suspended}, refused, []string{resumed, "Warning PodRefused RunSteps: exceeded quota"}},
		"refused otherwise": {[]bring{refused}, func(n *next) { n.waiting("PodRefused", "no permission") }, []string{"Warning PodRefused RunSteps: no permission"}},
		"waits for another reason with the same words": {
			[]bring{refused},
			func(n *next) { n.waiting("EntrypointUnresolved", "exceeded quota") },
			[]string{"Warning EntrypointUnresolved RunSteps: exceeded quota"},
		},

		"the Pod is made":                 {nil, mirrored(phase("")), []string{podCreated}},
		"the Pod is made after a wait":    {[]bring{refused}, mirrored(phase("")), []string{podCreated}},
		"the Pod is made after a suspend": {[]bring{suspended}, mirrored(phase("")), []string{podCreated, resumed}},
		"the Pod is made and goes wrong":  {nil, mirrored(unschedulable), []string{podCreated, "Warning Unschedulable RunSteps: the Pod is unschedulable: 0/1 nodes"}},
		"no node takes the Pod":           {[]bring{mirrored(phase(""))}, mirrored(unschedulable), []string{"Warning Unschedulable RunSteps: the Pod is unschedulable: 0/1 nodes"}},
		"still none":                      {[]bring{mirrored(unschedulable)}, mirrored(unschedulable), nil},
		"a node took it":                  {[]bring{mirrored(unschedulable)}, aRuns, []string{aStarted}},
		"a step runs":                     {[]bring{mirrored(phase(""))}, aRuns, []string{aStarted}},
		"the next step runs":              {[]bring{aRuns}, bRuns, []string{aEnded, bStarted}},
		"a later step's image is missing": {[]bring{aRuns}, bMissing, nil},
		"the next step's image is missing": {
			[]bring{bMissing},
			mirrored(order("2"), containers(succeeded("a"), waiting("b", "ImagePullBackOff", "back-off"), running("c"))),
			[]string{aEnded, `Warning ImagePullBackOff RunSteps: container "b" cannot start: back-off`},
		},

		"complete":                {[]bring{bRuns}, complete, []string{bEnded, cEnded, allEnded}},
		"still complete":          {[]bring{complete}, complete, nil},
		"complete at first sight": {nil, complete, []string{podCreated, aEnded, bEnded, cEnded, allEnded}},
		"a step failed":           {[]bring{bRuns}, bFailed, []string{stepFailed}},
		"still failed":            {[]bring{bFailed}, bFailed, nil},
		"failed, after a wait":    {[]bring{bRuns, mirrored(unschedulable)}, bFailed, []string{aEnded, stepFailed}},
		"the Pod was deleted":     {[]bring{aRuns}, gone, []string{`Warning PodDeleted RunSteps: the Pod "example" was deleted before all steps had ended`}},
		"failed without a Pod":    {[]bring{suspended}, conflict, []string{resumed, "Warning PodNameConflict RunSteps: a Pod of the name exists"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := statusAfter(c.before...)
			_, n := after(append(slices.Clip(c.before), c.after)...)
			var got []string
			for _, e := range n.transitions(before) {
				got = append(got, fmt.Sprintf("%s %s %s: %s", e.kind, e.reason, e.action, e.note))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHistory proves that each event of a step is emitted once, also by an operator that starts while the Pod runs: it assumes that the
// previous operator reported what the annotations or the end of the Pod show.
func TestHistory(t *testing.T) {
	another := func(pod *corev1.Pod) { pod.UID = "another" }
	const (
		aStarted = `step "a" started`
		aEnded   = `step "a" succeeded`
		bStarted = `step "b" started`
		bEnded   = `step "b" succeeded`
		bFailed  = `step "b" failed with exit code 3`
	)
	fresh := sequential(phase(corev1.PodPending))
	aRuns := sequential(containers(running("a"), running("b"), running("c")))
	bRuns := sequential(order("2"), containers(succeeded("a"), running("b"), running("c")))
	cases := map[string]struct {
		pods []*corev1.Pod
		want []string
	}{
		"from the first on": {[]*corev1.Pod{fresh, aRuns, aRuns, bRuns, bRuns}, []string{aStarted, aEnded, bStarted}},
		"to a failure": {
			[]*corev1.Pod{fresh, aRuns, bRuns, sequential(order("2"), containers(succeeded("a"), failedWith("b", 3), running("c")))},
			[]string{aStarted, aEnded, bStarted, bFailed},
		},
		"to the end, which no annotation tells of": {
			[]*corev1.Pod{bRuns, sequential(order("2"), phase(corev1.PodFailed), containers(succeeded("a"), failedWith("b", 3), succeeded("c")))},
			[]string{bFailed},
		},
		"a new operator, and the first step runs":                     {[]*corev1.Pod{aRuns}, []string{aStarted}},
		"a new operator, and a step runs that was released before it": {[]*corev1.Pod{bRuns, bRuns}, nil},
		"a new operator, and a step has ended since": {
			[]*corev1.Pod{sequential(order("2"), containers(succeeded("a"), succeeded("b"), running("c")))}, []string{bEnded, `step "c" started`},
		},
		"a new operator, and the Pod has ended": {
			[]*corev1.Pod{sequential(order("3"), phase(corev1.PodSucceeded), containers(succeeded("a"), succeeded("b"), succeeded("c")))}, nil,
		},
		"a new operator, and the Pod has ended with its first order, as a short one does that was told of": {
			[]*corev1.Pod{sequential(phase(corev1.PodSucceeded), containers(succeeded("a"), succeeded("b"), succeeded("c")))}, nil,
		},
		"another Pod of the name": {
			[]*corev1.Pod{fresh, aRuns, sequential(another, phase(corev1.PodPending)), sequential(another, containers(running("a"), running("b"), running("c")))},
			[]string{aStarted, aStarted},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var h history
			var got []string
			for _, pod := range c.pods {
				seen := observe(pod)
				for _, e := range stepEvents(h.next(pod, seen), seen) {
					got = append(got, e.note)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the events (-want +got):\n%s", diff)
			}
			h.Delete(types.NamespacedName{Namespace: "default", Name: "example"})
			for _, known := range h.Range {
				t.Errorf("it remembers a Pod that is gone: %v", known)
			}
		})
	}
}
