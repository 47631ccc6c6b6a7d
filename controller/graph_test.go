package controller

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// withOptions sets the options of the steps.
func withOptions(options contract.Options) edit {
	return annotated(contract.OptionsAnnotation, options.Marshal())
}

// recordedEnd returns a container that has ended and left the record.
func recordedEnd(name string, record contract.Record) corev1.ContainerStatus {
	if record.FinishedAt.IsZero() {
		record.FinishedAt = ended
	}
	reason := "Completed"
	if record.ExitCode != 0 {
		reason = "Error"
	}
	return exited(name, int32(record.ExitCode), reason, record.Marshal())
}

// TestBelieve proves that a record says more than the kubelet only as far as the options of its step permit it.
func TestBelieve(t *testing.T) {
	rules := func(then string) contract.StepOptions {
		return contract.StepOptions{ExitCodes: []contract.ExitCodeRule{{In: []int{7}, Then: then}}}
	}
	ran := func(record contract.Record) contract.Record {
		record.StartedAt = &started
		return record
	}
	failed7 := ran(contract.Record{CommandExitCode: new(7), Passes: true})
	cases := map[string]struct {
		options contract.StepOptions
		record  contract.Record
		want    string // state, reason, exit code, and the next order
	}{
		"continue":                            {contract.StepOptions{ContinueOnError: true}, failed7, "Failed Error 7 2"},
		"continue, timed out":                 {contract.StepOptions{ContinueOnError: true}, ran(contract.Record{CommandExitCode: new(124), Passes: true, Reason: contract.ReasonTimedOut}), "Failed TimedOut 124 2"},
		"continue, not permitted":             {contract.StepOptions{}, failed7, "Succeeded Completed 0 2"},
		"continue, but told to stop":          {contract.StepOptions{ContinueOnError: true}, ran(contract.Record{CommandExitCode: new(7), Passes: true, Reason: contract.ReasonCancelled}), "Succeeded Cancelled 0 2"},
		"continue, and the code is a success": {contract.StepOptions{ContinueOnError: true, ExitCodes: rules(contract.ThenSucceed).ExitCodes}, failed7, "Succeeded Completed 7 2"},
		"a rule: success":                     {rules(contract.ThenSucceed), ran(contract.Record{CommandExitCode: new(7)}), "Succeeded Completed 7 2"},
		"a rule: success, of another code":    {rules(contract.ThenSucceed), ran(contract.Record{CommandExitCode: new(8)}), "Succeeded Completed 0 2"},
		"a rule: finish":                      {rules(contract.ThenFinish), ran(contract.Record{CommandExitCode: new(7), Reason: contract.ReasonFinished}), "Succeeded Finished 7 1"},
		"a rule: finish, of another code":     {rules(contract.ThenFinish), ran(contract.Record{CommandExitCode: new(8), Reason: contract.ReasonFinished}), "Succeeded Completed 0 2"},
		"finish, not permitted":               {contract.StepOptions{}, ran(contract.Record{CommandExitCode: new(7), Reason: contract.ReasonFinished}), "Succeeded Completed 0 2"},
		"finish, and the container failed":    {rules(contract.ThenFinish), ran(contract.Record{ExitCode: 7, Reason: contract.ReasonFinished}), "Failed Error 7 1"},
		"a condition":                         {contract.StepOptions{When: []contract.Condition{{Step: "x"}}}, contract.Record{Reason: contract.ReasonWhenFalse}, "Skipped WhenFalse - 2"},
		"a condition, not permitted":          {contract.StepOptions{}, contract.Record{Reason: contract.ReasonWhenFalse}, "Succeeded Completed 0 2"},
		"a condition, and the command ran":    {contract.StepOptions{When: []contract.Condition{{Step: "x"}}}, ran(contract.Record{Reason: contract.ReasonWhenFalse}), "Succeeded Completed 0 2"},
		"fail at end":                         {contract.StepOptions{FailAtEnd: true}, ran(contract.Record{ExitCode: 7, Passes: true}), "Failed Error 7 2"},
		"fail at end, not permitted":          {contract.StepOptions{}, ran(contract.Record{ExitCode: 7, Passes: true}), "Failed Error 7 1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := observe(sequential(withOptions(contract.Options{"a": c.options}), containers(recordedEnd("a", c.record), running("b"), running("c"))))
			code := "-"
			if o.steps[0].ExitCode != nil {
				code = strconv.Itoa(int(*o.steps[0].ExitCode))
			}
			if diff := cmp.Diff(c.want, fmt.Sprintf("%s %s %s %d", o.steps[0].State, o.steps[0].Reason, code, o.order)); diff != "" {
				t.Errorf("the step and the order (-want +got):\n%s", diff)
			}
		})
	}
}

// TestObserveGraph proves the next order, halt and outcome for a Pod with the steps a, then b and c side by side, then d, and the final steps e and f.
func TestObserveGraph(t *testing.T) {
	options := contract.Options{
		"b": {DependsOn: []string{"a"}}, "c": {DependsOn: []string{"a"}}, "d": {DependsOn: []string{"b", "c"}}, "e": {Finally: true}, "f": {Finally: true},
	}
	at := func(seconds int, record contract.Record) contract.Record {
		record.FinishedAt, record.StartedAt = created.Add(time.Duration(seconds)*time.Second), &started
		return record
	}
	fail := func(name string, seconds int) corev1.ContainerStatus {
		return recordedEnd(name, at(seconds, contract.Record{ExitCode: 3}))
	}
	ok := func(name string, seconds int) corev1.ContainerStatus {
		return recordedEnd(name, at(seconds, contract.Record{}))
	}
	missing := recordedEnd("b", contract.Record{FinishedAt: ended, ExitCode: 125, Reason: contract.ReasonHaltMissing})
	run := running
	const failedB, failedC = `step "b" failed with exit code 3`, `step "c" failed with exit code 3`
	type seen struct {
		States        string
		Done          int
		Next, Failed  string
		Order         int
		Halt, Outcome string
		IsOver, End   bool
	}
	cases := map[string]struct {
		edits []edit
		want  seen
	}{
		"two run": {
			[]edit{containers(ok("a", 3), run("b"), run("c"), run("d"), run("e"), run("f"))},
			seen{"Succeeded Running Running Waiting Waiting Waiting", 1, "b", "", 2, "", "", false, false},
		},
		"one is faster": {
			[]edit{order("2"), containers(ok("a", 3), ok("b", 4), run("c"), run("d"), run("e"), run("f"))},
			seen{"Succeeded Succeeded Running Waiting Waiting Waiting", 2, "c", "", 2, "", "", false, false},
		},
		"one fails: the other runs to its end, and nothing else starts": {
			[]edit{order("2"), containers(ok("a", 3), fail("b", 4), run("c"), run("d"), run("e"), run("f"))},
			seen{"Succeeded Failed Running Skipped Waiting Waiting", 1, "b", "b", 2, failedB, `{"steps":{"1":"Succeeded 0","2":"Failed 3","4":"Skipped -1"}}`, false, false},
		},
		"both fail: the first counts": {
			[]edit{order("2"), containers(ok("a", 3), fail("b", 9), fail("c", 4), run("d"), run("e"), run("f"))},
			seen{"Succeeded Failed Failed Skipped Waiting Waiting", 1, "b", "c", 2, failedC, `{"steps":{"1":"Succeeded 0","2":"Failed 3","3":"Failed 3","4":"Skipped -1"}}`, false, false},
		},
		"the container of a skipped step has not ended: final steps wait": {
			[]edit{order("2"), halt(failedB), containers(ok("a", 3), fail("b", 4), ok("c", 5), run("d"), run("e"), run("f"))},
			seen{"Succeeded Failed Succeeded Skipped Waiting Waiting", 2, "b", "b", 2, failedB, "", false, false},
		},
		"the container of a skipped step is being created: final steps wait": {
			[]edit{order("2"), halt(failedB), containers(ok("a", 3), fail("b", 4), ok("c", 5), waiting("d", "ContainerCreating", ""), run("e"), run("f"))},
			seen{"Succeeded Failed Succeeded Skipped Waiting Waiting", 2, "b", "b", 2, failedB, "", false, false},
		},
		"the container of a skipped step can't start: final steps don't wait": {
			[]edit{order("2"), halt(failedB), containers(ok("a", 3), fail("b", 4), ok("c", 5), waiting("d", "ImagePullBackOff", ""), run("e"), run("f"))},
			seen{
				"Succeeded Failed Succeeded Skipped Waiting Waiting", 2, "e", "b", 4, failedB,
				`{"status":"Failed","failedStep":"b","steps":{"1":"Succeeded 0","2":"Failed 3","3":"Succeeded 0","4":"Skipped -1"}}`, false, false,
			},
		},
		"a step waits for the halt because of its sibling": {
			[]edit{withOptions(contract.Options{"b": {DependsOn: []string{}}, "c": {DependsOn: []string{"a"}}, "d": {DependsOn: []string{"b", "c"}}, "e": {Finally: true}, "f": {Finally: true}}),
				containers(ok("a", 5), fail("b", 4), run("c"), run("d"), run("e"), run("f"))},
			seen{"Succeeded Failed Skipped Skipped Waiting Waiting", 1, "b", "b", 1, failedB, `{"steps":{"1":"Succeeded 0","2":"Failed 3","3":"Skipped -1","4":"Skipped -1"}}`, false, false},
		},
		"a step has waited for the halt in vain": {
			[]edit{order("2"), containers(ok("a", 3), missing, fail("c", 4), run("d"), run("e"), run("f"))},
			seen{"Succeeded Skipped Failed Skipped Waiting Waiting", 1, "b", "c", 2, failedC, `{"steps":{"1":"Succeeded 0","2":"Skipped -1","3":"Failed 3","4":"Skipped -1"}}`, false, false},
		},
		"a step lies that it was skipped, and the sequence is halted later": {
			[]edit{
				order("4"), halt("why"), annotated(contract.OutcomeAnnotation, `{"status":"Failed","steps":{"1":"Succeeded 0","2":"Succeeded 0"}}`),
				containers(ok("a", 3), skipped("b"), skipped("c"), skipped("d"), run("e"), run("f")),
			},
			seen{"Succeeded Succeeded Skipped Skipped Running Waiting", 2, "e", "", 4, "why", "", false, false},
		},
		"all succeed, and the agents are ahead": {
			[]edit{order("2"), containers(ok("a", 3), ok("b", 4), ok("c", 4), ok("d", 5), run("e"), run("f"))},
			seen{
				"Succeeded Succeeded Succeeded Succeeded Running Waiting", 4, "e", "", 4, "",
				`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Succeeded 0","3":"Succeeded 0","4":"Succeeded 0"}}`, false, false,
			},
		},
		"a final step has failed: the next one follows, and the outcome stays": {
			[]edit{
				order("4"), annotated(contract.OutcomeAnnotation, `{"status":"Succeeded"}`),
				containers(ok("a", 3), ok("b", 4), ok("c", 4), ok("d", 5), fail("e", 6), run("f")),
			},
			seen{
				"Succeeded Succeeded Succeeded Succeeded Failed Running", 4, "f", "e", 5, "",
				`{"status":"Succeeded","steps":{"1":"Succeeded 0","2":"Succeeded 0","3":"Succeeded 0","4":"Succeeded 0","5":"Failed 3"}}`, false, false,
			},
		},
		"all has ended": {
			[]edit{order("5"), halt(failedB), containers(ok("a", 3), fail("b", 4), ok("c", 4), skipped("d"), ok("e", 6), ok("f", 7))},
			seen{"Succeeded Failed Succeeded Skipped Succeeded Succeeded", 4, "", "b", 5, failedB, "", true, false},
		},
		"a final step can't start: the Pod is not ended": {
			[]edit{order("4"), halt(failedB), containers(ok("a", 3), fail("b", 4), ok("c", 4), skipped("d"), waiting("e", "ImagePullBackOff", ""), run("f"))},
			seen{"Succeeded Failed Succeeded Skipped Waiting Waiting", 2, "e", "b", 4, failedB, "", false, false},
		},
		"a step can't start, and the final steps have ended: the Pod is ended": {
			[]edit{order("5"), halt(failedB), containers(ok("a", 3), fail("b", 4), waiting("c", "ImagePullBackOff", ""), skipped("d"), ok("e", 6), ok("f", 7))},
			seen{"Succeeded Failed Skipped Skipped Succeeded Succeeded", 3, "", "b", 5, failedB, "", true, true},
		},
		"the Pod is deleted: no final step": {
			[]edit{order("2"), halt(failedB), deleted, containers(ok("a", 3), fail("b", 4), ok("c", 4), skipped("d"), run("e"), run("f"))},
			seen{"Succeeded Failed Succeeded Skipped Waiting Waiting", 2, "e", "b", 2, failedB, "", false, false},
		},
		"the final steps are halted": {
			[]edit{order("4"), halt("why"), annotated(contract.HaltFinallyAnnotation, "why"), containers(ok("a", 3), fail("b", 4), ok("c", 4), skipped("d"), skipped("e"), run("f"))},
			seen{"Succeeded Failed Succeeded Skipped Skipped Skipped", 2, "", "b", 4, "why", "", false, false},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			edits := append([]edit{annotated(contract.StepsAnnotation, "a,b,c,d,e,f"), withOptions(options)}, c.edits...)
			o := observe(sequential(edits...))
			nameOf := func(i int) string {
				if i < 0 {
					return ""
				}
				return o.steps[i].Name
			}
			got := seen{states(o.steps), o.done, nameOf(o.next), nameOf(o.failed), o.order, o.halt, o.outcome, o.isOver, o.end}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEndBefore proves from which end the hand-off to a step counts.
func TestEndBefore(t *testing.T) {
	at := func(seconds int) *metav1.MicroTime {
		return &metav1.MicroTime{Time: created.Add(time.Duration(seconds) * time.Second)}
	}
	chain := []v1alpha1.StepStatus{{Name: "a", FinishedAt: at(1)}, {Name: "b", FinishedAt: at(2)}, {Name: "c"}}
	graph := []v1alpha1.StepStatus{
		{Name: "a", Stage: 1, FinishedAt: at(1)}, {Name: "b", Stage: 1, FinishedAt: at(9)}, {Name: "c", Stage: 1, FinishedAt: at(5)},
		{Name: "d", Stage: 2, DependsOn: []string{"a", "c"}, FinishedAt: at(7)}, {Name: "e", Stage: 3},
	}
	cases := map[string]struct {
		steps []v1alpha1.StepStatus
		step  int
		want  *metav1.MicroTime
	}{
		"the first of a chain":             {chain, 0, nil},
		"the last of a chain":              {chain, 2, at(2)},
		"without predecessors":             {graph, 1, nil},
		"the last predecessor":             {graph, 3, at(5)},
		"a final step: the last of others": {graph, 4, at(9)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, endBefore(c.steps, c.step)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
