//go:build linux

package agent_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// graphStep is a step of a Pod with steps side by side, as a test writes it: "d=b,c" follows b and c.
type graphStep struct {
	name  string
	after []int
	stage int
}

// graph returns the steps of a text such as "a b=a c=a d=b,c".
func graph(text string) []graphStep {
	var steps []graphStep
	for word := range strings.FieldsSeq(text) {
		name, after, _ := strings.Cut(word, "=")
		step := graphStep{name: name, stage: 1}
		for i, other := range steps {
			if slices.Contains(strings.Split(after, ","), other.name) {
				step.after = append(step.after, i+1)
				step.stage = max(step.stage, other.stage+1)
			}
		}
		steps = append(steps, step)
	}
	return steps
}

// side returns the flags of step n of a graph, as the webhook writes them.
func (p *podinfo) side(runDir string, steps []graphStep, n int) contract.AgentFlags {
	p.t.Helper()
	step := steps[n-1]
	flags := p.sharing(runDir, step.stage)
	if n != step.stage {
		flags.Step = n
	}
	flags.After, flags.Work = step.after, len(steps)
	flags.Cancel = filepath.Join(p.dir, contract.CancelFile)
	return flags
}

// final returns the flags of the first final step behind a graph.
func (p *podinfo) final(runDir string, steps []graphStep) contract.AgentFlags {
	p.t.Helper()
	last, sinks := 0, []int{}
	for i, step := range steps {
		last = max(last, step.stage)
		if !slices.ContainsFunc(steps, func(other graphStep) bool { return slices.Contains(other.after, i+1) }) {
			sinks = append(sinks, i+1)
		}
	}
	flags := p.sharing(runDir, last+1)
	flags.Step, flags.After, flags.Work, flags.IsFinal = len(steps)+1, sinks, len(steps), true
	flags.Halt = filepath.Join(p.dir, contract.HaltFinallyFile)
	flags.Outcome = filepath.Join(p.dir, contract.OutcomeFile)
	return flags
}

// Steps hand over along the edges of the graph, without the controller: the order stays at 1. The steps b and c only end if both run at the same
// time. The agents start in the reverse order.
func TestHandOffInAGraph(t *testing.T) {
	for place, clone := range placements {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			steps := graph("a b=a c=a d=b,c e=a f=d,e")
			info, runDir := newPodinfo(t), newRunDir(t, len(steps)+1)
			info.write(order("1"))
			dir := t.TempDir()
			journal := filepath.Join(dir, "journal")
			meet := func(other, own string) string {
				return fmt.Sprintf(`mkfifo %s/%s 2>/dev/null; mkfifo %[1]s/%[3]s 2>/dev/null; `, dir, own, other) // either makes both
			}
			scripts := map[string]string{
				"b": meet("c", "b") + fmt.Sprintf(`echo here >%s/c; read line <%[1]s/b; `, dir),
				"c": meet("b", "c") + fmt.Sprintf(`read line <%s/c; echo here >%[1]s/b; `, dir),
			}
			flags := []contract.AgentFlags{info.final(runDir, steps)}
			flags[0].Command = shell("echo final $TASKFLOW_STATUS[$TASKFLOW_FAILED_STEP] >>" + journal)
			for n := len(steps); n >= 1; n-- {
				own := info.side(runDir, steps, n)
				name := steps[n-1].name
				own.Command = shell(fmt.Sprintf("echo begin %s >>%s; %secho end %[1]s >>%[2]s", name, journal, scripts[name]))
				flags = append(flags, own)
			}
			var processes []*process
			for _, own := range flags {
				processes = append(processes, container{args: own.Args(), clone: clone}.start(t))
			}
			for _, p := range processes {
				if diff := cmp.Diff(result{}, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
			lines := strings.Split(strings.TrimSpace(readFile(t, journal)), "\n")
			at := func(line string) int { return slices.Index(lines, line) }
			for _, step := range steps {
				for _, before := range step.after {
					if end, begin := at("end "+steps[before-1].name), at("begin "+step.name); end < 0 || end > begin {
						t.Errorf("step %s began before step %s ended: %q", step.name, steps[before-1].name, lines)
					}
				}
			}
			if got := lines[len(lines)-1]; got != "final Succeeded[]" {
				t.Errorf("the last line is %q", got)
			}
		})
	}
}

// What the records of the other steps mean for a step: it runs, waits for the controller, or waits for the halt and fails without one.
func TestGateInAGraph(t *testing.T) {
	const runs, waits = "runs", "waits"
	claims := func(what string) string {
		return what + ", but the controller did not halt the sequence within " + hastyLimit.String()
	}
	one := 1
	var (
		ok        = contract.Record{}
		failed    = contract.Record{ExitCode: 3}
		passes    = contract.Record{ExitCode: 3, Passes: true}
		continues = contract.Record{CommandExitCode: &one, Passes: true}
		finished  = contract.Record{CommandExitCode: &one, Reason: contract.ReasonFinished}
		skipped   = contract.Record{Reason: contract.ReasonSkipped, Message: "why"}
		whenFalse = contract.Record{Reason: contract.ReasonWhenFalse}
		cancelled = contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}
		stopped   = contract.Record{ExitCode: 143, Reason: contract.ReasonStopped, Passes: true}
		missing   = contract.Record{ExitCode: 125, Reason: contract.ReasonHaltMissing, Message: "no halt came"}
		timedOut  = contract.Record{ExitCode: 124, Reason: contract.ReasonTimedOut}
		mayFail   = contract.Record{CommandExitCode: &one, Passes: true, Reason: contract.ReasonTimedOut}
		rule      = contract.Record{CommandExitCode: &one}
	)
	type records = map[int]contract.Record
	// Steps 1, 2 and 3 are side by side. The tested step 4 follows 1 and 2; the final step follows 3 and 4.
	tests := map[string]struct {
		records     records
		step, final string
	}{
		"nothing":                           {nil, waits, waits},
		"one predecessor succeeded":         {records{1: ok}, waits, waits},
		"both succeeded":                    {records{1: ok, 2: ok}, runs, waits},
		"all succeeded":                     {records{1: ok, 2: ok, 3: ok, 4: ok}, "", runs},
		"the sinks without the others":      {records{3: ok, 4: ok}, "", waits},
		"the other one":                     {records{3: ok}, waits, waits},
		"a rule: success":                   {records{1: rule, 2: ok, 3: rule, 4: rule}, "", runs},
		"a failure that passes":             {records{1: ok, 2: passes}, runs, waits},
		"a failure that passes, all":        {records{1: ok, 2: passes, 3: ok, 4: ok}, "", waits},
		"a failure of Continue":             {records{1: continues, 2: ok}, runs, waits},
		"a failure of Continue, all":        {records{1: continues, 2: mayFail, 3: ok, 4: continues}, "", runs},
		"a condition":                       {records{1: whenFalse, 2: ok}, runs, waits},
		"a condition, all":                  {records{1: ok, 2: whenFalse, 3: whenFalse, 4: ok}, "", runs},
		"a failure":                         {records{1: ok, 2: failed}, claims("step 2 failed with exit code 3"), waits},
		"a failure, and one runs":           {records{2: failed}, claims("step 2 failed with exit code 3"), waits},
		"a failure elsewhere":               {records{1: ok, 2: ok, 3: failed}, claims("step 3 failed with exit code 3"), waits},
		"a failure elsewhere, and one runs": {records{1: ok, 3: failed}, waits, waits},
		"a failure elsewhere that passes":   {records{1: ok, 2: ok, 3: passes}, runs, waits},
		"a timeout elsewhere":               {records{1: ok, 2: ok, 3: timedOut}, claims("step 3 failed with exit code 124"), waits},
		"a skip elsewhere":                  {records{1: ok, 2: ok, 3: skipped}, claims("step 3 was skipped"), waits},
		"a cancel elsewhere":                {records{1: ok, 2: ok, 3: cancelled}, claims("step 3 failed with exit code 143"), waits},
		"stopped elsewhere":                 {records{1: ok, 2: ok, 3: stopped}, runs, waits},
		"stopped":                           {records{1: ok, 2: stopped}, waits, waits},
		"no halt":                           {records{1: missing}, "no halt came", waits},
		"no halt elsewhere":                 {records{1: ok, 2: ok, 3: missing}, "no halt came", waits},
		"finished":                          {records{1: ok, 2: finished}, waits, waits},
		"finished elsewhere":                {records{1: ok, 2: ok, 3: finished}, waits, waits},
		"a later step":                      {records{1: ok, 2: ok, 5: failed}, runs, ""},
	}
	steps := graph("a b c d=a,b")
	for name, tc := range tests {
		for _, isFinal := range []bool{false, true} {
			want := tc.step
			if isFinal {
				want = tc.final
			}
			if want == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s/%t", name, isFinal), func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 5)
				info.write(order("1"))
				for n, record := range tc.records {
					writeRecord(t, runDir, n, record)
				}
				flags, released := info.side(runDir, steps, 4), "2"
				if isFinal {
					flags, released = info.final(runDir, steps), "3"
				}
				p := container{program: agentHastyName, args: late(flags).Args()}.start(t)
				switch want {
				case runs:
					if diff := cmp.Diff(result{Stdout: "1"}, p.wait()); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				case waits:
					info.awaitRejection()
					info.write(order(released))
					if diff := cmp.Diff(result{Stdout: released}, p.wait()); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				default:
					if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: "agent: " + want + "\n"}, p.wait()); diff != "" {
						t.Errorf("-want +got:\n%s", diff)
					}
				}
			})
		}
	}
}

// Behind a step that finished the sequence, a step waits for the halt without a limit: a good end must not become a failure because the operator is
// away.
func TestFinishedSequenceWaitsForTheHalt(t *testing.T) {
	t.Parallel()
	info, runDir := newPodinfo(t), newRunDir(t, 2)
	info.write(order("1"))
	writeRecord(t, runDir, 1, contract.Record{CommandExitCode: new(78), Reason: contract.ReasonFinished})
	flags := info.sharing(runDir, 2)
	p := container{program: agentHastyName, args: flags.Args()}.start(t)
	info.awaitRejection()
	start := time.Now()
	eventually(t, "the limit is over", func() bool { return time.Since(start) > 2*hastyLimit })
	const why = `step "a" finished the sequence with exit code 78`
	info.write(halted("1", why))
	if diff := cmp.Diff(result{}, p.wait()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	checkRecords(t, contract.Record{Reason: contract.ReasonSkipped, Message: why}, flags)
}
