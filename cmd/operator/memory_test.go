package main

import (
	"errors"
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/google/go-cmp/cmp"
)

// TestTuneMemory proves that garbage is collected later only if the container has a memory limit, and more often near two fifths of it.
func TestTuneMemory(t *testing.T) {
	type settings struct {
		Percent int
		Bound   int64
		Failed  bool
	}
	unchanged := settings{Percent: 100, Bound: math.MaxInt64}
	failing := func(err error) memlimit.Provider { return func() (uint64, error) { return 0, err } }
	for name, c := range map[string]struct {
		limit memlimit.Provider
		gogc  string
		want  settings
	}{
		"a limit":           {limit: memlimit.Limit(500_000_000), want: settings{Percent: gcPercent, Bound: 200_000_000}},
		"a limit, and GOGC": {limit: memlimit.Limit(500_000_000), gogc: "100", want: settings{Percent: 100, Bound: 200_000_000}},
		"no limit":          {limit: failing(memlimit.ErrNoLimit), want: unchanged},
		"unknown":           {limit: failing(errors.New("no cgroup")), want: settings{Percent: 100, Bound: math.MaxInt64, Failed: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.gogc != "" {
				t.Setenv("GOGC", c.gogc)
			}
			percent, bound := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
			err := tuneMemory(c.limit)
			got := settings{Percent: debug.SetGCPercent(percent), Bound: debug.SetMemoryLimit(bound), Failed: err != nil}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what the garbage collector has been told (-want +got):\n%s", diff)
			}
		})
	}
}
