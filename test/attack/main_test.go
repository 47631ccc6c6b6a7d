//go:build e2e

// Package attack attacks taskflow as `make deploy-local` installs it, on the real node of test/cluster. hack/test.sh prepares both.
//
// Each file has one kind of attacker: their rights, and what they try. The doc comment of a test says what must hold. docs/security.md has a row
// for each test. A new attack is a test in the file of its attacker, and a row there.
//
// Tests that measure the operator's memory, its CPU time, or how fast it is for others don't run beside other tests.
package attack

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/taskflow/taskflow-operator/test/harness"
)

var cluster harness.Cluster

func TestMain(m *testing.M) {
	cluster = harness.Connect()
	os.Exit(m.Run())
}

// waited polls the check until it reports the end, for at most the patience, and returns how long that took. It is for waits that are
// longer than those of wait.For.
func waited(t *testing.T, patience time.Duration, what string, check func(ctx context.Context) (over bool, err error)) time.Duration {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		over, err := check(ctx)
		if err != nil && ctx.Err() == nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if over {
			return time.Since(began)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Errorf("after %s there is still no %s", patience, what)
			return time.Since(began)
		}
	}
}
