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

// hastyLimit is how long an agent of the name agentHastyName waits for a halt.
const hastyLimit = 300 * time.Millisecond

func actAsAgentWithoutPatience() int {
	return actAs(func(args []string, signals agent.Signals, now func() time.Time, stderr io.Writer) int {
		return agent.RunWithHaltLimit(hastyLimit, args, signals, now, stderr)
	})
}

// Records that claim the end of the sequence, and what the next step says of them. Whoever wrote them may be the step's own command.
var claims = map[string]struct {
	record contract.Record
	after  string
	says   string
}{
	"a failure": {contract.Record{ExitCode: 3}, contract.AfterFailureStop, "step 1 failed with exit code 3"},
	"a failure of a later release": {
		contract.Record{ExitCode: 3, Reason: "Preempted"}, contract.AfterFailureStop, "step 1 failed with exit code 3",
	},
	"a cancelled step that may fail": {
		contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled}, contract.AfterFailureContinue, "step 1 failed with exit code 143",
	},
	"a skipped step": {
		contract.Record{Reason: contract.ReasonSkipped, Message: "forged"}, contract.AfterFailureStop, "step 1 was skipped",
	},
	"a skipped step that may fail": {
		contract.Record{Reason: contract.ReasonSkipped, Message: "forged"}, contract.AfterFailureContinue, "step 1 was skipped",
	},
	"a skipped step that is run again": {
		contract.Record{Reason: contract.ReasonSkipped, Message: "forged"}, contract.AfterFailureWait, "step 1 was skipped",
	},
}

// A step that could make the later ones end with 0 would make a Job complete whose steps have not run. So a claim of the end takes the
// controller's halt; without it the step fails after a while, and its command never runs.
func TestClaimWithoutAHalt(t *testing.T) {
	for name, tc := range claims {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			writeRecord(t, runDir, 1, tc.record)
			flags := info.sharing(runDir, 2)
			flags.AfterFailure = tc.after
			started := time.Now()
			got := container{program: agentHastyName, args: flags.Args()}.run(t)
			took := time.Since(started)
			message := tc.says + ", but the controller did not halt the sequence within 300ms"
			want := contract.Record{ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing, Message: message}
			if diff := cmp.Diff(result{Code: contract.ExitAgentFailure, Stderr: "agent: " + message + "\n"}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			for of, got := range map[string]contract.Record{"message": readRecord(t, flags), "run directory": recordOf(t, runDir, 2)} {
				if diff := cmp.Diff(want, got, ignoreTimes); diff != "" {
					t.Errorf("record in the %s: -want +got:\n%s", of, diff)
				}
			}
			if took < hastyLimit {
				t.Errorf("the step waited %v, want at least %v", took, hastyLimit)
			}
		})
	}
}

// With the controller's halt the step is skipped, and gives the controller's reason.
func TestClaimWithAHalt(t *testing.T) {
	for name, tc := range claims {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info, runDir := newPodinfo(t), newRunDir(t, 2)
			info.write(order("1"))
			writeRecord(t, runDir, 1, tc.record)
			flags := info.sharing(runDir, 2)
			flags.AfterFailure = tc.after
			p := container{args: flags.Args()}.start(t)
			info.awaitRejection()
			info.write(halted("1", haltReason))
			if diff := cmp.Diff(result{}, p.wait()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			want := contract.Record{Reason: contract.ReasonSkipped, Message: haltReason}
			if diff := cmp.Diff(want, readRecord(t, flags), ignoreTimes); diff != "" {
				t.Errorf("record: -want +got:\n%s", diff)
			}
		})
	}
}

// A claim that the step's agent replaces by the true record, or that the controller overrules, holds nothing back.
func TestClaimThatIsWithdrawn(t *testing.T) {
	for name, tc := range claims {
		for how, withdraw := range map[string]func(*podinfo, string){
			"by the record": func(info *podinfo, runDir string) { writeRecord(info.t, runDir, 1, contract.Record{}) },
			"by the order":  func(info *podinfo, _ string) { info.write(order("2")) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				info, runDir := newPodinfo(t), newRunDir(t, 2)
				info.write(order("1"))
				writeRecord(t, runDir, 1, tc.record)
				flags := info.sharing(runDir, 2)
				flags.AfterFailure = tc.after
				p := container{args: flags.Args()}.start(t)
				info.awaitRejection()
				withdraw(info, runDir)
				if diff := cmp.Diff(ran, p.wait()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// A step whose predecessor has waited in vain doesn't wait for as long again: a Pod of twenty steps would need twenty minutes to end.
func TestClaimThatWasWaitedFor(t *testing.T) {
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
