package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/test/bench/report"
)

// TestWriteGoals proves that a goal is met at its bound and on the right side of it, and missed on the other side.
func TestWriteGoals(t *testing.T) {
	var text strings.Builder
	err := report.WriteGoals(&text, []report.Goal{
		report.AtMost("size", 2.5, 3, " MB"),
		report.AtMost("ratio", 1.151, 1.15, "×"),
		report.AtLeast("rate", 100, 100, ""),
		report.AtLeast("slowness", 2.4, 2.5, "×"),
		report.AtLeast("speed", 30, 2.5, "×"),
		report.Within("hop", 5*time.Millisecond, 5*time.Millisecond),
		report.Within("hop", 5100*time.Microsecond, 5*time.Millisecond),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `
| goal | | measured | |
|---|---|---|---|
| size | at most 3 MB | 2.5 MB | met |
| ratio | at most 1.15× | 1.151× | **missed** |
| rate | at least 100 | 100 | met |
| slowness | at least 2.5× | 2.4× | **missed** |
| speed | at least 2.5× | 30× | met |
| hop | at most 5 ms | 5 ms | met |
| hop | at most 5 ms | 5.1 ms | **missed** |
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestQuantile(t *testing.T) {
	measured := []int{40, 10, 30, 20, 50}
	for q, want := range map[float64]int{0: 10, 0.5: 30, 0.9: 50, 1: 50} {
		if got := report.Quantile(measured, q); got != want {
			t.Errorf("Quantile(%v) = %d, want %d", q, got, want)
		}
	}
	if diff := cmp.Diff([]int{40, 10, 30, 20, 50}, measured); diff != "" {
		t.Errorf("Quantile sorted its argument: -want +got:\n%s", diff)
	}
}

func TestRatio(t *testing.T) {
	of, to := []time.Duration{30, 10, 20}, []time.Duration{10}
	if got := report.Ratio(of, to); got != 2 {
		t.Errorf("Ratio = %v, want 2", got)
	}
}
