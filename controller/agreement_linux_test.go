package controller

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/agent"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestAgentAndControllerReadARecordAlike gives the same record to both sides: to the real agent of the second step as the record of the first
// one, and to the controller as the termination message of the first one's container. The rule itself is tested in package sequence; this
// proves that both sides ask it the same. An agent never releases what the controller doesn't, and may leave to the controller only what it
// can't tell itself.
func TestAgentAndControllerReadARecordAlike(t *testing.T) {
	// The agent waits for the controller's decision behind these: it can't know whether the Pod is terminating, or whether a step that says it
	// was skipped tells the truth.
	undecided := []string{contract.ReasonStopped, contract.ReasonTerminated, contract.ReasonSignaled}
	policies := map[string]struct {
		afterFailure string
		pod          []edit
	}{
		"Stop":      {contract.AfterFailureStop, nil},
		"Continue":  {contract.AfterFailureContinue, []edit{mayFail("a")}},
		"OnFailure": {contract.AfterFailureWait, []edit{restartPolicy(corev1.RestartPolicyOnFailure)}},
	}
	released := 0
	for _, reason := range []string{
		"", contract.ReasonSkipped, contract.ReasonTerminated, contract.ReasonStartError, contract.ReasonTimedOut, contract.ReasonCancelled,
		contract.ReasonStopped, contract.ReasonSignaled, contract.ReasonHaltMissing, contract.ReasonAgentError, "OfALaterRelease",
	} {
		for _, code := range []int32{0, 3, contract.ExitTimeout, contract.ExitAgentFailure, exitSIGTERM, exitSIGKILL} {
			for policy, p := range policies {
				now := time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC)
				record := contract.Record{FinishedAt: now, ExitCode: int(code), Reason: reason}
				byAgent := agentReleases(t, record, p.afterFailure)

				container := failedWith("a", code)
				container.State.Terminated.Message = record.Marshal()
				o := observe(sequential(append(p.pod, containers(container, running("b"), running("c")))...))
				byController := o.order >= 2

				what := fmt.Sprintf("reason %q, exit code %d, %s", reason, code, policy)
				isLeft := slices.Contains(undecided, reason) || reason == contract.ReasonSkipped && code == 0
				switch {
				case byAgent && !byController:
					t.Errorf("%s: the agent releases the next step, and the controller does not", what)
				case !byAgent && byController && !isLeft:
					t.Errorf("%s: the controller releases the next step, and the agent does not", what)
				}
				if byAgent {
					released++
				}
			}
		}
	}
	if released == 0 {
		t.Error("the agent released nothing: the test doesn't reach it")
	}
}

// agentReleases asks the agent of step 2, by the form of call that its startupProbe uses, whether the record of step 1 releases it.
func agentReleases(t *testing.T, record contract.Record, afterFailure string) bool {
	t.Helper()
	dir := t.TempDir()
	order, runDir := filepath.Join(dir, "order"), filepath.Join(dir, "run")
	err := os.MkdirAll(contract.StepDir(runDir, 1), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(contract.StepDir(runDir, 1), contract.RecordFile), []byte(record.Marshal()), 0o600)
	}
	if err == nil {
		err = os.WriteFile(order, []byte("1"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	flags := contract.AgentFlags{Wait: order, WaitContent: 2, Run: runDir, AfterFailure: afterFailure}
	return agent.Run(flags.StartedArgs(nil), agent.Signals{}, time.Now, io.Discard) == 0
}
