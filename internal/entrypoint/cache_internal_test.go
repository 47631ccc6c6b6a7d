package entrypoint

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	testingclock "k8s.io/utils/clock/testing"
)

// TestExpiring proves that a cache respects its bounds of entries and bytes, drops the least recently used entry first, and never returns an
// expired one.
func TestExpiring(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	c := newExpiring[string, int](clock, 3, 100)
	for _, step := range []struct {
		name  string
		do    func()
		want  []string // from a to f
		bytes int
	}{
		{"full", func() { c.add("a", 1, 10, time.Minute); c.add("b", 2, 10, time.Hour); c.add("c", 3, 10, time.Hour) }, []string{"a", "b", "c"}, 30},
		{"one too many", func() { c.add("d", 4, 10, time.Hour) }, []string{"b", "c", "d"}, 30},
		{"too many bytes", func() { c.get("b"); c.add("e", 5, 85, time.Hour) }, []string{"b", "e"}, 95},
		{"more than there may be", func() { c.add("f", 6, 101, time.Hour) }, []string{"b", "e"}, 95},
		{"another value", func() { c.add("e", 7, 5, time.Minute) }, []string{"b", "e"}, 15},
		{"over its time", func() { clock.SetTime(clock.Now().Add(2 * time.Minute)) }, []string{"b"}, 10},
		{"dropped", func() { c.drop("b"); c.drop("unknown") }, nil, 0},
	} {
		step.do()
		var got []string
		for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
			if _, ok := c.get(key); ok {
				got = append(got, key)
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" || c.bytes != step.bytes || c.entries.Len() != len(step.want) {
			t.Errorf("%s: %d entries of %d bytes, want %d (-want +got):\n%s", step.name, c.entries.Len(), c.bytes, step.bytes, diff)
		}
	}
}
