package graph_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/test/graph"
)

// diamond is a, then b and c side by side, then d.
var diamond = graph.Graph{
	{Name: "a"}, {Name: "b", After: []int{0}}, {Name: "c", After: []int{0}}, {Name: "d", After: []int{1, 2}},
}

func seconds(begin, end float64) graph.Span {
	const epoch = 1764510000 * time.Second
	second := float64(time.Second)
	return graph.Span{Begin: epoch + time.Duration(begin*second), End: epoch + time.Duration(end*second)}
}

// TestCheck proves that each kind of violation is reported, and that a run as it should be has none.
func TestCheck(t *testing.T) {
	tests := map[string]struct {
		spans map[string]graph.Span
		want  []string
	}{
		"as it should be": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(1.2, 3.4), "d": seconds(3.4, 4)},
		},
		"an edge that does not hold": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(1.2, 3.4), "d": seconds(3, 4)},
			want:  []string{"d began 400ms before its predecessor c had ended"},
		},
		"a step that began with its predecessor": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(0, 2), "d": seconds(3, 4)},
			want:  []string{"c began 1s before its predecessor a had ended"},
		},
		"independent steps one after another": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(3, 5), "d": seconds(5, 6)},
			want: []string{
				"b and c, which are independent, did not run side by side",
				"all took 6s, and the longest path 4s",
			},
		},
		"just in time": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(1, 3), "d": seconds(4.6, 5.6)},
		},
		"a step that began late": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": seconds(1, 3), "c": seconds(1, 3), "d": seconds(4.7, 5.7)},
			want:  []string{"all took 5.7s, and the longest path 4s"},
		},
		"steps that did not run": {
			spans: map[string]graph.Span{"a": seconds(0, 1), "b": {Begin: time.Hour}, "c": seconds(1, 3)},
			want:  []string{"b has not run from begin to end", "d has not run from begin to end"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, diamond.Check(test.spans)); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseMarks(t *testing.T) {
	tests := map[string]struct {
		marks string
		want  map[string]graph.Span
		fails bool
	}{
		"two steps": {
			marks: "begin a 1764510000.000001\nbegin b 1764510001.500000\nend a 1764510002.000000\n",
			want:  map[string]graph.Span{"a": {seconds(0, 0).Begin + time.Microsecond, seconds(0, 2).End}, "b": {Begin: seconds(1.5, 0).Begin}},
		},
		"nothing":                {marks: "", want: map[string]graph.Span{}},
		"a second beginning":     {marks: "begin a 1.0\nend a 2.0\nbegin a 3.0\n", fails: true},
		"a second end":           {marks: "begin a 1.0\nend a 2.0\nend a 3.0\n", fails: true},
		"an end and no begin":    {marks: "end a 2.0\n", fails: true},
		"a shell without clock":  {marks: "begin a \n", fails: true},
		"a clock in other words": {marks: "begin a now\n", fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := graph.ParseMarks(test.marks)
			if (err != nil) != test.fails {
				t.Fatalf("the error is %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRandom proves that the graphs of the tests on the node are valid and the same in each run, and that many steps have several predecessors.
func TestRandom(t *testing.T) {
	joins := 0
	for seed := range uint64(30) {
		g := graph.Random(seed)
		if diff := cmp.Diff(g, graph.Random(seed)); diff != "" {
			t.Errorf("seed %d makes two graphs:\n%s", seed, diff)
		}
		if len(g) < 4 || len(g) > 12 {
			t.Errorf("seed %d has %d steps", seed, len(g))
		}
		for i, step := range g {
			for _, before := range step.After {
				if before >= i {
					t.Errorf("seed %d: step %d follows step %d", seed, i, before)
				}
			}
			if len(step.After) > 1 {
				joins++
			}
		}
	}
	if joins < 30 {
		t.Errorf("%d steps have more than one predecessor", joins)
	}
}
