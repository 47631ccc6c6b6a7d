//go:build linux

package agent_test

import (
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/agent"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// hastyLimit is how long an agent with the name agentHastyName waits for a halt.
const hastyLimit = 300 * time.Millisecond

func actAsAgentWithoutPatience() int {
	return actAs(func(args []string, signals agent.Signals, now func() time.Time, stderr io.Writer) int {
		return agent.RunWithHaltLimit(hastyLimit, args, signals, now, stderr)
	})
}

// A record that ends the sequence may be forged by the step's command, so it is only a claim. If it could end the later steps with 0, a Job could
// succeed whose steps have not run. So the next step waits for the controller's halt, and fails if none comes. If the step's agent replaces the
// claim by a record that releases the next step, the claim does not count. TestHandOffByTheRecord proves the same of the order.
func TestClaimOfTheEnd(t *testing.T) {
	const stop, goOn, wait = contract.AfterFailureStop, contract.AfterFailureContinue, contract.AfterFailureWait
	skipped := contract.Record{Reason: contract.ReasonSkipped, Message: "forged"}
	claims := map[string]struct {
		record contract.Record
		after  string
		says   string
	}{
		"failed":                      {contract.Record{ExitCode: 3}, stop, "step 1 failed with exit code 3"},
		"failed in a later release":   {contract.Record{ExitCode: 3, Reason: "Preempted"}, stop, "step 1 failed with exit code 3"},
		"cancelled, Continue":         {contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, goOn, "step 1 failed with exit code 143"},
		"skipped":                     {skipped, stop, "step 1 was skipped"},
		"skipped, Continue":           {skipped, goOn, "step 1 was skipped"},
		"skipped, although restarted": {skipped, wait, "step 1 was skipped"},
	}
	for name, tc := range claims {
		missing := tc.says + ", but the controller did not halt the sequence within 300ms"
		for what, then := range map[string]struct {
			happens func(info *podinfo, runDir string) // nil: nothing
			want    result
			record  contract.Record
		}{
			"no halt": {
				want:   result{Code: contract.ExitAgentFailure, Stderr: "agent: " + missing + "\n"},
				record: contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing, Message: missing},
			},
			"a halt": {
				happens: func(info *podinfo, _ string) { info.write(halted("1", haltReason)) },
				record:  contract.Record{Reason: contract.ReasonSkipped, Message: haltReason},
			},
			"another record": {
				happens: func(info *podinfo, runDir string) { writeRecord(info.t, runDir, 1, contract.Record{}) },
				want:    ran,
			},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 2)
				info.write(order("1"))
				writeRecord(t, runDir, 1, tc.record)
				flags := info.sharing(runDir, 2)
				flags.AfterFailure = tc.after
				c := container{args: flags.Args()}
				if then.happens == nil {
					c.program = agentHastyName
				}
				started := time.Now()
				p := c.start(t)
				if then.happens != nil {
					info.awaitRejection()
					then.happens(info, runDir)
				}
				if diff := cmp.Diff(then.want, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if took := time.Since(started); then.happens == nil && took < hastyLimit {
					t.Errorf("the step waited %v, want at least %v", took, hastyLimit)
				}
				checkRecords(t, then.record, flags)
			})
		}
	}
}

// If the predecessor has already waited for the halt, the step does not wait again: a Pod of twenty steps would need twenty minutes to end.
func TestClaimOfAPredecessorThatWaited(t *testing.T) {
	const message = "step 1 failed with exit code 3, but the controller did not halt the sequence within 1m0s"
	missing := contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing, Message: message}
	for _, after := range []string{contract.AfterFailureStop, contract.AfterFailureContinue} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 3)
			info.write(order("1"))
			writeRecord(t, runDir, 2, missing)
			flags := info.sharing(runDir, 3)
			flags.AfterFailure = after
			want := result{Code: contract.ExitAgentFailure, Stderr: "agent: " + message + "\n"}
			if diff := cmp.Diff(want, container{args: flags.Args()}.run(t)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(missing, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}
