package sequence_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/sequence"
)

var (
	states = map[string]sequence.State{
		"-": sequence.Waiting, "runs": sequence.Running, "ok": sequence.Succeeded,
		"failed": sequence.Failed, "interrupted": sequence.Interrupted, "skipped": sequence.Skipped,
		"finished": sequence.Finished, "false": sequence.WhenFalse,
	}
	verdicts = map[sequence.Verdict]string{sequence.Wait: "wait", sequence.Run: "run", sequence.Skip: "skip", sequence.Begun: "·"}
)

// chain returns the chain of the named steps. One whose name ends in "?" may fail.
func chain(t *testing.T, names string) sequence.Plan {
	t.Helper()
	plan := sequence.Chain(strings.Fields(names))
	for i := range plan.Steps {
		if strings.HasSuffix(plan.Steps[i].Name, "?") {
			plan.Steps[i].OnError = sequence.Continue
		}
	}
	return plan
}

// fan is a, then b and c side by side, then d.
func fan(t *testing.T, name func(string) sequence.OnError) sequence.Plan {
	t.Helper()
	plan, err := sequence.NewPlan([]sequence.Step{
		{Name: "a", OnError: name("a")},
		{Name: "b", After: []int{0}, OnError: name("b")},
		{Name: "c", After: []int{0}, OnError: name("c")},
		{Name: "d", After: []int{1, 2}, OnError: name("d")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// checkDecision compares what follows from the states of a plan with the verdicts in words and the rest of the decision.
func checkDecision(t *testing.T, plan sequence.Plan, stateWords string, known sequence.Records, verdictWords string, want sequence.Decision) {
	t.Helper()
	for word := range strings.FieldsSeq(stateWords) {
		known.States = append(known.States, states[word])
	}
	got := sequence.Decide(plan, known)
	var words []string
	for _, verdict := range got.Verdicts {
		words = append(words, verdicts[verdict])
	}
	if diff := cmp.Diff(verdictWords, strings.Join(words, " ")); diff != "" {
		t.Errorf("verdicts: -want +got:\n%s", diff)
	}
	got.Verdicts = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestDecide is the decision table: one row per case, in the words of the package's documentation.
func TestDecide(t *testing.T) {
	stop := func(string) sequence.OnError { return sequence.Stop }
	cMayFail := func(name string) sequence.OnError {
		if name == "c" {
			return sequence.Continue
		}
		return sequence.Stop
	}
	line, lenient := chain(t, "a b c"), chain(t, "a b? c")
	tests := []struct {
		name     string
		plan     sequence.Plan
		states   string
		order    int
		halted   bool
		verdicts string
		passed   int
		endedBy  int
		next     int
		over     bool
	}{
		{"nothing is released: the first step waits for the order", line, "- - -", 0, false, "wait wait wait", 0, sequence.None, 1, false},
		{"the order releases the first step", line, "- - -", 1, false, "run wait wait", 0, sequence.None, 1, false},
		{"a step runs: its successor waits", line, "runs - -", 1, false, "· wait wait", 0, sequence.None, 1, false},
		{"a step succeeded: its successor runs, although the order says 1", line, "ok - -", 1, false, "· run wait", 1, sequence.None, 2, false},
		{"the order is ahead of the records", line, "- - -", 2, false, "run run wait", 0, sequence.None, 1, false},
		{"all steps succeeded", line, "ok ok ok", 3, false, "· · ·", 3, sequence.None, 3, true},
		{"a step failed", line, "ok failed -", 2, false, "· · skip", 1, 1, 2, true},
		{"a step failed that may fail", lenient, "ok failed -", 2, false, "· · run", 2, sequence.None, 3, false},
		{"a step was interrupted that may fail", lenient, "ok interrupted -", 2, false, "· · skip", 1, 1, 2, true},
		{"a step was skipped that may fail", lenient, "ok skipped -", 2, false, "· · skip", 1, 1, 2, true},
		{"the order overrules a record that ended the sequence", line, "ok skipped -", 3, false, "· · run", 1, 1, 2, false},
		{"halted before the first step", line, "- - -", 0, true, "skip skip skip", 0, sequence.None, 1, true},
		{"halted while a step runs", line, "ok runs -", 2, true, "· · skip", 1, sequence.None, 2, false},
		{"a halt is stronger than the order", line, "ok ok -", 3, true, "· · skip", 2, sequence.None, 3, true},
		{"a step failed before its turn: the running one goes on", line, "runs failed -", 1, false, "· · wait", 0, sequence.None, 1, false},
		{"its turn came: the failure counts", line, "ok failed -", 1, false, "· · skip", 1, 1, 2, true},
		{"a step succeeded before its turn: nothing follows", line, "runs ok -", 1, false, "· · wait", 0, sequence.None, 1, false},

		{"side by side: both run", fan(t, stop), "ok - - -", 1, false, "· run run wait", 1, sequence.None, 2, false},
		{"the join waits for the slower one", fan(t, stop), "ok ok runs -", 2, false, "· · · wait", 2, sequence.None, 2, false},
		{"the join runs", fan(t, stop), "ok ok ok -", 2, false, "· · · run", 3, sequence.None, 3, false},
		{"one of two failed: the other runs to its end", fan(t, stop), "ok failed runs -", 2, false, "· · · skip", 1, 1, 2, false},
		{"one of two failed: the other one doesn't start", fan(t, stop), "ok failed - -", 1, false, "· · skip skip", 1, 1, 2, true},
		{"one of two failed and may fail", fan(t, cMayFail), "ok ok failed -", 2, false, "· · · run", 3, sequence.None, 3, false},
		{"no steps", sequence.Plan{}, "", 0, false, "", 0, sequence.None, 0, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			known := sequence.Records{Order: tc.order, Halted: tc.halted}
			want := sequence.Decision{Passed: tc.passed, EndedBy: tc.endedBy, FailedBy: tc.endedBy, Order: tc.next, WorkIsOver: tc.over, IsOver: tc.over}
			checkDecision(t, tc.plan, tc.states, known, tc.verdicts, want)
		})
	}
}

// TestDecideFinally is the decision table of a plan with final steps: a, then b and c side by side, then d and e, which are final. If a failure
// of b is allowed, its name is "b?", and "b!" if the sequence fails at the end.
func TestDecideFinally(t *testing.T) {
	tests := []struct {
		name          string
		b             string
		states        string
		order         int
		halted        bool
		finallyHalted bool
		verdicts      string
		passed        int
		endedBy       int
		failedBy      int
		next          int
		workOver      bool
		over          bool
	}{
		{name: "the final steps wait", b: "b", states: "ok runs ok - -", order: 2, verdicts: "· · · wait wait", passed: 2, next: 2},
		{name: "all others succeeded", b: "b", states: "ok ok ok - -", order: 2, verdicts: "· · · run wait", passed: 3, next: 3, workOver: true},
		{name: "the second follows the first", b: "b", states: "ok ok ok ok -", order: 2, verdicts: "· · · · run", passed: 4, next: 4, workOver: true},
		{name: "the second follows the first, although it failed", b: "b", states: "ok ok ok failed -", order: 3, verdicts: "· · · · run", passed: 4, failedBy: 4, next: 4, workOver: true},
		{name: "all succeeded", b: "b", states: "ok ok ok ok ok", order: 4, verdicts: "· · · · ·", passed: 5, next: 4, workOver: true, over: true},
		{name: "a final step failed", b: "b", states: "ok ok ok ok failed", order: 4, verdicts: "· · · · ·", passed: 5, failedBy: 5, next: 4, workOver: true, over: true},
		{name: "a step failed, and another runs", b: "b", states: "ok failed runs - -", order: 2, halted: true, verdicts: "· · · wait wait", passed: 1, endedBy: 2, failedBy: 2, next: 2},
		{name: "a step failed: the first final step waits for the order", b: "b", states: "ok failed ok - -", order: 2, halted: true, verdicts: "· · · wait wait", passed: 2, endedBy: 2, failedBy: 2, next: 3, workOver: true},
		{name: "a step failed: the order releases the first final step", b: "b", states: "ok failed ok - -", order: 3, halted: true, verdicts: "· · · run wait", passed: 2, endedBy: 2, failedBy: 2, next: 3, workOver: true},
		{name: "a step failed: the second follows the first", b: "b", states: "ok failed ok ok -", order: 3, halted: true, verdicts: "· · · · run", passed: 3, endedBy: 2, failedBy: 2, next: 4, workOver: true},
		{name: "a failure is allowed", b: "b?", states: "ok failed ok - -", order: 2, verdicts: "· · · run wait", passed: 3, next: 3, workOver: true},
		{name: "a failure that counts at the end: the first final step waits for the order", b: "b!", states: "ok failed ok - -", order: 2, verdicts: "· · · wait wait", passed: 3, failedBy: 2, next: 3, workOver: true},
		{name: "a failure that counts at the end, and a final step failed", b: "b!", states: "ok failed ok failed ok", order: 4, verdicts: "· · · · ·", passed: 5, failedBy: 2, next: 4, workOver: true, over: true},
		{name: "a condition did not hold", b: "b", states: "ok false ok - -", order: 2, verdicts: "· · · run wait", passed: 3, next: 3, workOver: true},
		{name: "a step finished the sequence, and another runs", b: "b", states: "ok finished runs - -", order: 2, halted: true, verdicts: "· · · wait wait", passed: 1, endedBy: 2, next: 2},
		{name: "a step finished the sequence", b: "b", states: "finished - - - -", order: 1, verdicts: "· skip skip wait wait", endedBy: 1, next: 3, workOver: true},
		{name: "a step finished the sequence, and the other one failed", b: "b", states: "ok finished failed - -", order: 2, halted: true, verdicts: "· · · wait wait", passed: 1, endedBy: 2, failedBy: 3, next: 3, workOver: true},
		{name: "a step failed, and one before it in the list was skipped", b: "b", states: "ok skipped failed - -", order: 2, halted: true, verdicts: "· · · wait wait", passed: 1, endedBy: 3, failedBy: 3, next: 3, workOver: true},
		{name: "halted before the first step: final steps run", b: "b", states: "- - - - -", halted: true, verdicts: "skip skip skip wait wait", next: 3, workOver: true},
		{name: "halted, and a step was interrupted", b: "b", states: "ok interrupted ok - -", order: 3, halted: true, verdicts: "· · · run wait", passed: 2, endedBy: 2, failedBy: 2, next: 3, workOver: true},
		{name: "the final steps are halted, too", b: "b", states: "ok interrupted ok - -", order: 2, halted: true, finallyHalted: true, verdicts: "· · · skip skip", passed: 2, endedBy: 2, failedBy: 2, next: 2, workOver: true, over: true},
		{name: "a final step was interrupted: the next waits for the order", b: "b", states: "ok ok ok interrupted -", order: 3, verdicts: "· · · · wait", passed: 3, failedBy: 4, next: 4, workOver: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			onError := map[string]sequence.OnError{"b?": sequence.Continue, "b!": sequence.FailAtEnd}[tc.b]
			plan, err := sequence.NewPlan([]sequence.Step{
				{Name: "a"}, {Name: "b", After: []int{0}, OnError: onError}, {Name: "c", After: []int{0}}, {Name: "d", IsFinal: true}, {Name: "e", IsFinal: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			known := sequence.Records{Order: tc.order, Halted: tc.halted, FinallyHalted: tc.finallyHalted}
			want := sequence.Decision{
				Passed: tc.passed, EndedBy: tc.endedBy - 1, FailedBy: tc.failedBy - 1, Order: tc.next, WorkIsOver: tc.workOver, IsOver: tc.over,
			}
			checkDecision(t, plan, tc.states, known, tc.verdicts, want)
		})
	}
}

func TestNewPlan(t *testing.T) {
	tests := map[string]struct {
		steps  []sequence.Step
		stages []int
		err    string
	}{
		"a chain":                     {[]sequence.Step{{}, {After: []int{0}}, {After: []int{1}}}, []int{1, 2, 3}, ""},
		"side by side":                {[]sequence.Step{{}, {}, {After: []int{0, 1}}}, []int{1, 1, 2}, ""},
		"the longest way counts":      {[]sequence.Step{{}, {After: []int{0}}, {After: []int{0, 1}}}, []int{1, 2, 3}, ""},
		"a step that follows itself":  {[]sequence.Step{{Name: "a", After: []int{0}}}, nil, `step "a" must follow steps that stand before it in the list`},
		"a step that follows a later": {[]sequence.Step{{Name: "a", After: []int{1}}, {}}, nil, `step "a" must follow steps that stand before it in the list`},
		"final steps":                 {[]sequence.Step{{}, {}, {IsFinal: true}, {IsFinal: true}}, []int{1, 1, 2, 3}, ""},
		"a final step in the middle":  {[]sequence.Step{{}, {IsFinal: true}, {Name: "b"}}, nil, `step "b" must stand before all final steps in the list`},
		"no such step":                {[]sequence.Step{{Name: "a", After: []int{-1}}}, nil, `step "a" must follow steps that stand before it in the list`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			plan, err := sequence.NewPlan(tc.steps)
			if err != nil || tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Fatalf("got the error %v, want %q", err, tc.err)
				}
				return
			}
			var stages []int
			for _, step := range plan.Steps {
				stages = append(stages, step.Stage)
			}
			if diff := cmp.Diff(tc.stages, stages); diff != "" {
				t.Errorf("stages: -want +got:\n%s", diff)
			}
		})
	}
}

func TestShapeOfPlan(t *testing.T) {
	type shape struct {
		IsChain bool
		Work    int
		Sinks   []int
	}
	tests := map[string]struct {
		steps []sequence.Step
		want  shape
	}{
		"a chain":                   {[]sequence.Step{{}, {After: []int{0}}, {After: []int{1}}}, shape{true, 3, []int{2}}},
		"a chain with a final step": {[]sequence.Step{{}, {After: []int{0}}, {IsFinal: true}}, shape{true, 2, []int{1}}},
		"two first steps":           {[]sequence.Step{{}, {}}, shape{false, 2, []int{0, 1}}},
		"side by side":              {[]sequence.Step{{}, {After: []int{0}}, {After: []int{0}}, {After: []int{1, 2}}, {IsFinal: true}}, shape{false, 4, []int{3}}},
		"an edge more":              {[]sequence.Step{{}, {After: []int{0}}, {After: []int{0, 1}}}, shape{false, 3, []int{2}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			plan, err := sequence.NewPlan(tc.steps)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, shape{plan.IsChain(), plan.Work(), plan.Sinks()}); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
