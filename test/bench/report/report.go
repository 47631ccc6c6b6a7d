// Package report has what the parts of the benchmarks' report share: the format of numbers, and the goals.
package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Quantile returns a quantile of at least one measured value: 0 is the least, 0.5 the median, 1 the greatest.
func Quantile[T cmp.Ordered](measured []T, q float64) T {
	sorted := slices.Sorted(slices.Values(measured))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// Milliseconds formats a duration.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", inMilliseconds(d))
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Goal is a bound for a measured value.
type Goal struct {
	what     string
	measured float64
	bound    float64
	atLeast  bool
	unit     string // with the space before it
}

// AtMost returns a goal that is met unless the value is above the bound.
func AtMost(what string, measured, bound float64, unit string) Goal {
	return Goal{what: what, measured: measured, bound: bound, unit: unit}
}

// AtLeast returns a goal that is met unless the value is below the bound.
func AtLeast(what string, measured, bound float64, unit string) Goal {
	return Goal{what: what, measured: measured, bound: bound, unit: unit, atLeast: true}
}

// Within returns a goal that is met by a duration of at most the bound.
func Within(what string, measured, bound time.Duration) Goal {
	return AtMost(what, inMilliseconds(measured), inMilliseconds(bound), " ms")
}

// Ratio returns the ratio of two medians.
func Ratio(of, to []time.Duration) float64 {
	return Quantile(of, 0.5).Seconds() / Quantile(to, 0.5).Seconds()
}

// missed marks a goal that isn't met. hack/bench.sh looks for it.
const missed = "**missed**"

func (g Goal) verdict() string {
	if g.measured == g.bound || g.measured > g.bound == g.atLeast {
		return "met"
	}
	return missed
}

func (g Goal) limit() string {
	if g.atLeast {
		return "at least " + g.value(g.bound)
	}
	return "at most " + g.value(g.bound)
}

// value formats v with its unit and at most three decimals.
func (g Goal) value(v float64) string {
	return strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".") + g.unit
}

// WriteGoals writes a table of the goals and their results.
func WriteGoals(w io.Writer, goals []Goal) error {
	var text strings.Builder
	text.WriteString("\n| goal | | measured | |\n|---|---|---|---|\n")
	for _, g := range goals {
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", g.what, g.limit(), g.value(g.measured), g.verdict())
	}
	_, err := io.WriteString(w, text.String())
	return err
}
