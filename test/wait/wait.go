// Package wait polls for conditions in tests.
package wait

import (
	"context"
	"testing"
	"time"
)

const (
	// patience bounds each wait. What a test waits for takes seconds, but the machine may be busy.
	patience = 90 * time.Second
	// interval is the time between two checks.
	interval = 100 * time.Millisecond
	// worthMentioning is the duration from which the test's log mentions a wait.
	worthMentioning = 2 * time.Second
)

// For polls until the check passes. After patience, it fails the test with the last error.
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
		if missing == nil || ctx.Err() == nil { // otherwise the error may be only the end of the wait
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
