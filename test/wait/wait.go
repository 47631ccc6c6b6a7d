// Package wait lets tests wait for what happens elsewhere, by looking again and again.
package wait

import (
	"context"
	"testing"
	"time"
)

const (
	// patience is how long a test waits for what should take seconds at most: the machine may be busy.
	patience = 90 * time.Second
	// interval is how often it looks.
	interval = 100 * time.Millisecond
	// worthMentioning is a time that the log of a test tells of.
	worthMentioning = 2 * time.Second
)

// For polls until the check passes, and fails the test with what was missing when that takes too long.
func For(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var missing error
	for {
		err := check(ctx)
		if missing == nil || ctx.Err() == nil { // else it may tell of nothing but the end of the wait
			missing = err
		}
		if err == nil {
			if took := time.Since(began); took > worthMentioning {
				t.Logf("waited %s for %s", took.Round(interval), what)
			}
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v", patience, what, missing)
		}
	}
}
