package podspec

import (
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// Plan returns the plan of the steps of these names. Options from which no plan follows count as none: each step follows the one before it, and
// every failure ends the sequence.
func Plan(names []string, options contract.Options) sequence.Plan {
	plan := sequence.Chain(names)
	isChain := true
	for i, name := range names {
		o := options[name]
		plan.Steps[i].OnError = onError(o)
		isChain = isChain && o.DependsOn == nil && !o.Finally
	}
	if isChain {
		return plan
	}
	indexes := make(map[string]int, len(names))
	for i, name := range names {
		step, o := &plan.Steps[i], options[name]
		step.IsFinal = o.Finally
		if o.DependsOn != nil {
			step.After = nil
		}
		for _, before := range o.DependsOn {
			index, isEarlier := indexes[before]
			if !isEarlier {
				return sequence.Chain(names)
			}
			step.After = append(step.After, index)
		}
		indexes[name] = i
	}
	plan, err := sequence.NewPlan(plan.Steps)
	if err != nil {
		return sequence.Chain(names)
	}
	return plan
}

// ancestry holds, for each step of a plan, the steps that run before it in any case: its predecessors, theirs, and so on.
type ancestry []bitset

type bitset []uint64

func (b bitset) add(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

func ancestryOf(plan sequence.Plan) ancestry {
	all := make(ancestry, len(plan.Steps))
	for i, step := range plan.Steps {
		all[i] = make(bitset, (len(plan.Steps)+63)/64)
		for _, before := range step.After {
			for word, bits := range all[before] {
				all[i][word] |= bits
			}
			all[i].add(before)
		}
	}
	return all
}

// mayPrecede reports whether step j may run before step i, or beside it: it is another step that does not follow step i.
func (a ancestry) mayPrecede(j, i int) bool { return j != i && !a[j].has(i) }

func onError(o contract.StepOptions) sequence.OnError {
	switch {
	case o.ContinueOnError:
		return sequence.Continue
	case o.FailAtEnd:
		return sequence.FailAtEnd
	}
	return sequence.Stop
}
