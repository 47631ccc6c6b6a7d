// Package graph makes random graphs of steps, and checks by the marks of the steps whether they ran as their graph requires.
package graph

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Step is a step of a graph.
type Step struct {
	Name string
	// After are the indexes of the predecessors, each lower than the step's own.
	After []int
	// Length is how long the step sleeps.
	Length time.Duration
}

// Graph is steps in the order of their list.
type Graph []Step

// Random returns the graph of the seed: from 4 to 12 steps. If they ran one after another, Check would tell.
func Random(seed uint64) Graph {
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // the same graph in each run
	for {
		if g := candidate(random); len(g.Check(g.oneAfterAnother())) > 0 {
			return g
		}
	}
}

func candidate(random *rand.Rand) Graph {
	const least, most = 4, 12
	g := make(Graph, least+random.IntN(most-least+1))
	for i := range g {
		g[i] = Step{Name: fmt.Sprintf("step-%d", i+1), Length: time.Duration(5+random.IntN(20)) * 100 * time.Millisecond}
		before := random.Perm(i)
		g[i].After = before[:min(i, random.IntN(4))] // some have none
		slices.Sort(g[i].After)
	}
	return g
}

// oneAfterAnother returns the spans of a run without any steps side by side.
func (g Graph) oneAfterAnother() map[string]Span {
	spans := map[string]Span{}
	now := time.Hour
	for _, step := range g {
		spans[step.Name] = Span{now, now + step.Length}
		now += step.Length
	}
	return spans
}

// DependsOn returns the names of the predecessors of step i. They are never nil, which would mean the step before it.
func (g Graph) DependsOn(i int) []string {
	names := []string{}
	for _, before := range g[i].After {
		names = append(names, g[before].Name)
	}
	return names
}

// Span is when a step began and ended, since the epoch. 0: never.
type Span struct{ Begin, End time.Duration }

// ParseMarks parses lines such as "begin step-1 1764510000.123456" into a span for each step. It returns an error for a line that is none, and for
// a second one of the same kind.
func ParseMarks(marks string) (map[string]Span, error) {
	spans := map[string]Span{}
	for line := range strings.Lines(marks) {
		var what, step, seconds string
		if _, err := fmt.Sscan(line, &what, &step, &seconds); err != nil {
			return nil, fmt.Errorf("mark %q: %w", line, err)
		}
		at, err := time.ParseDuration(seconds + "s")
		if err != nil {
			return nil, fmt.Errorf("mark %q: %w", line, err)
		}
		s := spans[step]
		switch {
		case what == "begin" && s == Span{}:
			s.Begin = at
		case what == "end" && s.Begin != 0 && s.End == 0:
			s.End = at
		default:
			return nil, fmt.Errorf("mark %q is the second one, or has no beginning", line)
		}
		spans[step] = s
	}
	return spans, nil
}

// The bounds of a run. The whole may take as long as the longest path, a share of it and a fixed time more.
const (
	moreThanPath = 0.15
	fixed        = time.Second
	// overlapping steps would overlap by at least this time if no step began late.
	overlapping = time.Second
)

// Check returns the violations of the graph: a step that did not run, an edge that did not hold, two independent steps that did not overlap
// although they should have, and a whole that took too long. What should have been follows from how long each step took.
func (g Graph) Check(spans map[string]Span) []string {
	var wrong []string
	for _, step := range g {
		if s := spans[step.Name]; s.End == 0 {
			wrong = append(wrong, step.Name+" has not run from begin to end")
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	for _, step := range g {
		for _, before := range step.After {
			if early := spans[g[before].Name].End - spans[step.Name].Begin; early > 0 {
				wrong = append(wrong, fmt.Sprintf("%s began %s before its predecessor %s had ended", step.Name, early, g[before].Name))
			}
		}
	}
	ideal := g.ideal(spans)
	for _, pair := range overlaps(ideal, overlapping) {
		a, b := g[pair[0]].Name, g[pair[1]].Name
		if overlap(spans[a], spans[b]) <= 0 {
			wrong = append(wrong, fmt.Sprintf("%s and %s, which are independent, did not run side by side", a, b))
		}
	}
	longest, took := end(ideal), end(values(spans))-begin(values(spans))
	if most := longest + time.Duration(moreThanPath*float64(longest)) + fixed; took > most {
		wrong = append(wrong, fmt.Sprintf("all took %s, and the longest path %s", took, longest))
	}
	return wrong
}

// Overlapping returns how many pairs of independent steps ran at the same time.
func (g Graph) Overlapping(spans map[string]Span) int {
	all := make([]Span, len(g))
	for i, step := range g {
		all[i] = spans[step.Name]
	}
	return len(overlaps(all, 1))
}

// ideal returns the spans of the steps if each began as soon as its predecessors had ended, from 0.
func (g Graph) ideal(spans map[string]Span) []Span {
	ideal := make([]Span, len(g))
	for i, step := range g {
		for _, before := range step.After {
			ideal[i].Begin = max(ideal[i].Begin, ideal[before].End)
		}
		s := spans[step.Name]
		ideal[i].End = ideal[i].Begin + s.End - s.Begin
	}
	return ideal
}

// overlaps returns the pairs of spans that overlap by at least this time.
func overlaps(spans []Span, least time.Duration) [][2]int {
	var pairs [][2]int
	for i := range spans {
		for j := range i {
			if overlap(spans[i], spans[j]) >= least {
				pairs = append(pairs, [2]int{j, i})
			}
		}
	}
	return pairs
}

func overlap(a, b Span) time.Duration { return min(a.End, b.End) - max(a.Begin, b.Begin) }

func begin(spans []Span) time.Duration {
	return slices.MinFunc(spans, func(a, b Span) int { return int(a.Begin - b.Begin) }).Begin
}

func end(spans []Span) time.Duration {
	return slices.MaxFunc(spans, func(a, b Span) int { return int(a.End - b.End) }).End
}

func values(spans map[string]Span) []Span {
	all := make([]Span, 0, len(spans))
	for _, s := range spans {
		all = append(all, s)
	}
	return all
}
