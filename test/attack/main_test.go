//go:build e2e

// Package attack attacks taskflow as installed by `make deploy-local`, on the real node of test/cluster. hack/test.sh prepares both.
//
// Each file is one kind of attacker: what the attacker may do, and what they try. The doc comment of a test says what must hold. docs/security.md
// has a row for each test. A new attack is a test in the file of its attacker and a row there.
//
// Tests that look at the operator's memory or processor, or at how fast it is for others, don't run beside other tests.
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

// waited calls check until it says that all is over, for at most so long. It is for what takes longer than wait.For waits.
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
