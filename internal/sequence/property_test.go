package sequence_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// TestAgentsAndControllersAgree lets the agents of random plans run against a controller. Each decides by what it knows at the time: an agent
// by the records of other steps, of which some are lost, and by an old state of the order and the halt; the controller by old container
// statuses. Whatever comes first, no step starts before its predecessors passed, none runs twice, none is forgotten, and in the end both
// sides say the same of every step. Final steps run once the others are over, however those ended.
func TestAgentsAndControllersAgree(t *testing.T) {
	runs := 20000
	if testing.Short() {
		runs = 2000
	}
	seen := map[string]int{}
	for seed := range uint64(runs) {
		w := newWorld(seed)
		for range 40 * len(w.plan.Steps) {
			w.act(w.random.IntN(actions), w.random.IntN(len(w.plan.Steps)))
		}
		w.settle()
		w.check(seen)
		if len(w.problems) > 0 {
			t.Fatalf("seed %d: %s\nplan %+v\nhow the commands end %v, containers that die early %v\n%s",
				seed, strings.Join(w.problems, "; "), w.plan, w.ends, w.dies, strings.Join(w.log, "\n"))
		}
	}
	for _, outcome := range []string{"passed", "ended by a failure", "ended by an interruption", "skipped a step", "failed before its turn", "released by a record", "released by the order",
		"finished", "a condition did not hold", "failed at the end", "a final step released by a record", "a final step released by the order"} {
		if seen[outcome] < runs/100 {
			t.Errorf("only %d of %d runs have %q: they prove nothing about it", seen[outcome], runs, outcome)
		}
	}
}

const actions = 6

// world is a Pod, its agents and the controller.
type world struct {
	random   *rand.Rand
	plan     sequence.Plan
	ends     []sequence.State // how each command would end
	dies     []bool           // whether the container of a step dies before its command could start
	truth    []sequence.State // how each step is
	ran      []int            // how often each command ran
	records  []sequence.State // what agents left for their successors: Waiting if it is lost
	order    int              // the annotations of the Pod
	halted   bool
	projects []projected      // what each agent knows of them
	statuses []sequence.State // what the controller knows of the steps
	how      map[string]bool  // what has happened, for the count of cases
	problems []string
	log      []string
}

type projected struct {
	order  int
	halted bool
}

func newWorld(seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 1)), how: map[string]bool{}}
	steps := make([]sequence.Step, 1+w.random.IntN(6))
	work := 1 + w.random.IntN(len(steps))
	for i := range steps {
		steps[i].Name = string(rune('a' + i))
		steps[i].OnError = sequence.OnError(w.random.IntN(3))
		steps[i].IsFinal = i >= work
		for before := range min(i, work) {
			if w.random.IntN(i+1) == 0 || before == i-1 && w.random.IntN(2) == 0 {
				steps[i].After = append(steps[i].After, before)
			}
		}
		w.ends = append(w.ends, []sequence.State{
			sequence.Succeeded, sequence.Succeeded, sequence.Succeeded, sequence.Succeeded, sequence.Succeeded, sequence.WhenFalse,
			sequence.Failed, sequence.Failed, sequence.Interrupted, sequence.Finished,
		}[w.random.IntN(10)])
		w.dies = append(w.dies, w.random.IntN(12) == 0)
	}
	plan, err := sequence.NewPlan(steps)
	if err != nil {
		panic(err)
	}
	n := len(steps)
	w.plan, w.truth, w.ran, w.records = plan, make([]sequence.State, n), make([]int, n), make([]sequence.State, n)
	w.projects, w.statuses = make([]projected, n), make([]sequence.State, n)
	return w
}

// act lets one thing happen to step i, if it can.
func (w *world) act(action, i int) {
	switch action {
	case 0:
		w.agentLooks(i)
	case 1:
		if w.truth[i] == sequence.Running {
			w.end(i)
		}
	case 2:
		if w.dies[i] && w.truth[i] == sequence.Waiting {
			w.set(i, sequence.Failed, "dies before its command could start")
		}
	case 3: // the kubelet reports; of a container that runs, it can't tell whether its command does
		if w.truth[i] != sequence.Running {
			w.statuses[i] = w.truth[i]
		}
	case 4:
		w.controllerLooks()
	case 5: // the kubelet projects the annotations
		w.projects[i] = projected{w.order, w.halted}
	}
}

func (w *world) agentLooks(i int) {
	if w.truth[i] != sequence.Waiting {
		return
	}
	step := w.plan.Steps[i]
	predecessors := step.After
	if isFirstFinal := step.IsFinal && i == w.plan.Work(); isFirstFinal {
		predecessors = w.plan.Sinks()
	}
	var before, others []sequence.Step
	known := sequence.Records{Order: w.projects[i].order, Halted: w.projects[i].halted}
	for _, p := range predecessors {
		before = append(before, sequence.Step{OnError: w.plan.Steps[p].OnError, IsFinal: w.plan.Steps[p].IsFinal})
		known.States = append(known.States, w.records[p])
	}
	for other := range w.plan.Work() {
		if i <= w.plan.Work() && other != i && !slices.Contains(predecessors, other) {
			others = append(others, sequence.Step{OnError: w.plan.Steps[other].OnError})
			known.States = append(known.States, w.records[other])
		}
	}
	known.States = append(known.States, sequence.Waiting)
	verdicts := sequence.Decide(sequence.Behind(before, others, sequence.Step{Stage: step.Stage, IsFinal: step.IsFinal}), known).Verdicts
	switch verdict := verdicts[len(verdicts)-1]; {
	case verdict == sequence.Run && step.IsFinal && !w.workIsOver():
		w.problems = append(w.problems, fmt.Sprintf("final step %s starts early", step.Name))
	case verdict == sequence.Run && i == w.plan.Work() && known.Order < step.Stage && !w.succeeded():
		w.problems = append(w.problems, fmt.Sprintf("final step %s can't tell how the others ended", step.Name))
	case verdict == sequence.Run && w.dies[i]:
		w.set(i, sequence.Failed, "can't start its command")
	case verdict == sequence.Run && w.ends[i] == sequence.WhenFalse:
		w.end(i)
	case verdict == sequence.Run:
		w.ran[i]++
		if by := "a record"; step.IsFinal {
			if known.Order >= step.Stage {
				by = "the order"
			}
			w.how["a final step released by "+by] = true
		}
		w.how["released by a record"] = w.how["released by a record"] || known.Order < step.Stage
		w.how["released by the order"] = w.how["released by the order"] || known.Order >= step.Stage && len(step.After) > 0
		if !w.mayRun(i) || len(step.After) == 0 && w.order == 0 {
			w.problems = append(w.problems, fmt.Sprintf("step %s starts early", step.Name))
		}
		w.set(i, sequence.Running, "starts")
	case verdict == sequence.Skip && known.Halted: // a record alone is no proof that the sequence has ended
		w.set(i, sequence.Skipped, "is skipped")
	}
}

// mayRun is the rule once more, without the code that it tests: all steps before this one passed, each in its turn.
func (w *world) mayRun(i int) bool {
	if w.plan.Steps[i].IsFinal {
		return w.workIsOver()
	}
	for _, before := range w.plan.Steps[i].After {
		state := w.truth[before]
		passed := state == sequence.Succeeded || state == sequence.WhenFalse || state == sequence.Failed && w.plan.Steps[before].OnError != sequence.Stop
		if !passed || !w.mayRun(before) {
			return false
		}
	}
	return true
}

// succeeded reports whether no step that is not final makes the sequence fail.
func (w *world) succeeded() bool {
	for i, state := range w.truth[:w.plan.Work()] {
		if state != sequence.Succeeded && state != sequence.WhenFalse && (state != sequence.Failed || w.plan.Steps[i].OnError != sequence.Continue) {
			return false
		}
	}
	return true
}

// passed counts the steps that passed, once more without the code that it tests.
func (w *world) passed() int {
	count := 0
	for i, state := range w.truth {
		step := w.plan.Steps[i]
		switch {
		case !w.mayRun(i):
		case state == sequence.Succeeded, state == sequence.WhenFalse, state == sequence.Failed && step.OnError != sequence.Stop:
			count++
		case step.IsFinal && (state == sequence.Failed || state == sequence.Finished):
			count++
		}
	}
	return count
}

// workIsOver reports whether all steps that are not final have ended or were skipped.
func (w *world) workIsOver() bool {
	return !slices.ContainsFunc(w.truth[:w.plan.Work()], func(s sequence.State) bool { return s == sequence.Waiting || s == sequence.Running })
}

func (w *world) end(i int) {
	w.set(i, w.ends[i], "ends")
	if w.random.IntN(5) == 0 {
		return // its record is lost
	}
	w.records[i] = w.ends[i]
	if w.ends[i] == sequence.Interrupted {
		w.records[i] = sequence.Running // its successors can't tell who stopped it
	}
}

func (w *world) controllerLooks() {
	d := sequence.Decide(w.plan, sequence.Records{States: w.statuses, Order: w.order, Halted: w.halted})
	// Of a container that runs, the controller can't tell whether its agent was released before it saw the halt.
	runs := slices.ContainsFunc(w.statuses[:w.plan.Work()], func(s sequence.State) bool { return s == sequence.Waiting || s == sequence.Running })
	switch {
	case w.halted && (runs || d.Order <= w.plan.Steps[w.plan.Work()-1].Stage):
	case d.EndedBy != sequence.None && w.halted:
		w.order = max(w.order, d.Order)
		w.log = append(w.log, fmt.Sprintf("the controller releases the final stage %d", d.Order))
	case d.EndedBy != sequence.None:
		w.halted = true
		w.log = append(w.log, "the controller halts the sequence")
	case d.Order > w.order:
		w.order = d.Order
		w.log = append(w.log, fmt.Sprintf("the controller releases stage %d", d.Order))
	}
}

func (w *world) set(i int, state sequence.State, what string) {
	w.truth[i] = state
	w.log = append(w.log, fmt.Sprintf("step %s %s: %d", w.plan.Steps[i].Name, what, state))
}

// settle lets everything happen that can, until nothing changes.
func (w *world) settle() {
	for before := ""; ; {
		for action := range actions {
			for i := range w.truth {
				w.act(action, i)
			}
		}
		now := fmt.Sprintf("%v %v %v %v %v %v", w.truth, w.records, w.order, w.halted, w.projects, w.statuses)
		if now == before {
			return
		}
		before = now
	}
}

func (w *world) check(seen map[string]int) {
	problem := func(format string, args ...any) { w.problems = append(w.problems, fmt.Sprintf(format, args...)) }
	ended := -1
	for i, state := range w.truth {
		step := w.plan.Steps[i]
		if w.ran[i] > 1 {
			problem("step %s ran %d times", step.Name, w.ran[i])
		}
		isEnd := state == sequence.Failed && step.OnError == sequence.Stop || state == sequence.Interrupted || state == sequence.Finished
		if isEnd && !step.IsFinal && w.mayRun(i) {
			ended = max(ended, i)
		}
	}
	for i, state := range w.truth {
		step := w.plan.Steps[i]
		switch {
		case state == sequence.Waiting, state == sequence.Running:
			problem("step %s is forgotten", step.Name)
		case state == sequence.Skipped && (ended < 0 || step.IsFinal):
			problem("step %s was skipped, and nothing ended the sequence", step.Name)
		case (ended < 0 || step.IsFinal) && w.ran[i] == 0 && !w.dies[i] && state != sequence.WhenFalse:
			problem("step %s never ran", step.Name)
		}
	}
	if ended >= 0 && !w.halted {
		problem("the controller didn't notice the end")
	}
	known := sequence.Records{States: w.truth, Order: w.order, Halted: w.halted}
	agents := sequence.Decide(w.plan, known)
	known.States = w.statuses
	controller := sequence.Decide(w.plan, known)
	if diff := cmp.Diff(agents, controller); diff != "" {
		problem("agents and the controller disagree: %s", diff)
	}
	if want := w.passed(); !controller.IsOver || !controller.WorkIsOver || (controller.EndedBy == sequence.None) != (ended < 0) || controller.Passed != want {
		problem("the outcome is wrong: %+v; %d passed", controller, want)
	}

	w.how["passed"] = ended < 0
	w.how["failed at the end"] = ended < 0 && controller.FailedBy != sequence.None && !w.plan.Steps[controller.FailedBy].IsFinal
	w.how["a condition did not hold"] = slices.Contains(w.truth, sequence.WhenFalse)
	w.how["skipped a step"] = slices.Contains(w.truth, sequence.Skipped)
	if ended >= 0 {
		w.how["ended by a failure"] = w.truth[ended] == sequence.Failed
		w.how["finished"] = w.truth[ended] == sequence.Finished && controller.FailedBy == sequence.None
		w.how["ended by an interruption"] = w.truth[ended] == sequence.Interrupted
	}
	w.how["failed before its turn"] = slices.ContainsFunc(w.log, func(line string) bool { return strings.Contains(line, "dies before") })
	for what, happened := range w.how {
		if happened {
			seen[what]++
		}
	}
}
