package controller

import (
	"fmt"
	"io"
	"maps"
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
	onFailure := []edit{restartPolicy(corev1.RestartPolicyOnFailure)}
	mayFail, failsAtEnd := contract.StepOptions{ContinueOnError: true}, contract.StepOptions{FailAtEnd: true}
	policies := map[string]struct {
		afterFailure string
		options      contract.StepOptions
		pod          []edit
		asWritten    func(contract.Record) contract.Record // by an agent whose step has the policy
	}{
		"Stop":                   {contract.AfterFailureStop, contract.StepOptions{}, nil, asIs},
		"Continue":               {contract.AfterFailureContinue, mayFail, nil, asIs},
		"OnFailure":              {contract.AfterFailureWait, contract.StepOptions{}, onFailure, asIs},
		"Continue, by record":    {contract.AfterFailureStop, mayFail, nil, continues},
		"FailAtEnd":              {contract.AfterFailureStop, failsAtEnd, nil, passes},
		"Succeed":                {contract.AfterFailureStop, contract.StepOptions{}, nil, succeeds},
		"Succeed with OnFailure": {contract.AfterFailureWait, contract.StepOptions{}, onFailure, succeeds},
	}
	released := 0
	for _, reason := range []string{
		"", contract.ReasonSkipped, contract.ReasonTerminated, contract.ReasonStartError, contract.ReasonTimedOut, contract.ReasonCancelled,
		contract.ReasonStopped, contract.ReasonSignaled, contract.ReasonHaltMissing, contract.ReasonAgentError, contract.ReasonWhenFalse,
		contract.ReasonFinished, contract.ReasonInputInvalid, contract.ReasonOutputInvalid, "OfALaterRelease",
	} {
		for _, code := range []int32{0, 3, contract.ExitTimeout, contract.ExitAgentFailure, exitSIGTERM, exitSIGKILL} {
			for policy, p := range policies {
				now := time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC)
				record := p.asWritten(contract.Record{FinishedAt: now, ExitCode: int(code), Reason: reason})
				byAgent := agentReleases(t, record, p.afterFailure)

				container := recorded("a", record)
				options := permit(record, p.options)
				o := observe(sequential(append(p.pod, annotated(contract.OptionsAnnotation, contract.Options{"a": options}.Marshal()),
					containers(container, running("b"), running("c")))...))
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

func asIs(record contract.Record) contract.Record { return record }

// passes returns the record of a step with onError: FailAtEnd.
func passes(record contract.Record) contract.Record {
	if record.Reason == contract.ReasonFinished {
		return succeeds(record)
	}
	record.Passes = record.ExitCode != 0 && !contract.IsInterrupted(record.Reason) && record.Reason != contract.ReasonSignaled
	return record
}

// continues returns the record of a step with onError: Continue.
func continues(record contract.Record) contract.Record {
	if record = passes(record); record.Passes {
		record.CommandExitCode, record.ExitCode = new(record.ExitCode), 0
	}
	return record
}

// succeeds returns the record of a step with a rule for its exit code.
func succeeds(record contract.Record) contract.Record {
	if record.ExitCode != 0 && record.Reason == "" || record.Reason == contract.ReasonFinished {
		record.CommandExitCode, record.ExitCode = new(record.ExitCode), 0
	}
	return record
}

// permit returns options with which the controller believes the record: that a condition did not hold, and what the exit code means.
func permit(record contract.Record, options contract.StepOptions) contract.StepOptions {
	switch {
	case record.Reason == contract.ReasonWhenFalse:
		options.When = []contract.Condition{{Step: "z", Of: contract.OfState, In: []string{contract.Succeeded}}}
	case record.Reason == contract.ReasonFinished:
		options.ExitCodes = []contract.ExitCodeRule{{In: []int{record.Code()}, Then: contract.ThenFinish}}
	case record.CommandExitCode != nil && !record.Passes:
		options.ExitCodes = []contract.ExitCodeRule{{In: []int{record.Code()}, Then: contract.ThenSucceed}}
	}
	return options
}

// recorded returns a container that has ended with the record as its termination message.
func recorded(name string, record contract.Record) corev1.ContainerStatus {
	return exited(name, int32(record.ExitCode), "Error", record.Marshal())
}

// TestAgentAndControllerReadAGraphAlike does the same for steps side by side: the tested step follows one of two steps, and the record of either may
// end the sequence.
func TestAgentAndControllerReadAGraphAlike(t *testing.T) {
	two := 2
	records := map[string]contract.Record{
		"succeeded":        {},
		"failed":           {ExitCode: 3},
		"passes":           {ExitCode: 3, Passes: true},
		"Continue":         {CommandExitCode: &two, Passes: true},
		"a rule":           {CommandExitCode: &two},
		"finished":         {CommandExitCode: &two, Reason: contract.ReasonFinished},
		"a condition":      {Reason: contract.ReasonWhenFalse},
		"timed out":        {ExitCode: contract.ExitTimeout, Reason: contract.ReasonTimedOut},
		"cancelled":        {ExitCode: int(exitSIGTERM), Reason: contract.ReasonCancelled},
		"no halt":          {ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonHaltMissing},
		"invalid outputs":  {ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonOutputInvalid},
		"an input missing": {ExitCode: contract.ExitAgentFailure, Reason: contract.ReasonInputInvalid},
	}
	options := contract.Options{"b": {DependsOn: []string{}}, "c": {DependsOn: []string{"a"}}}
	released := 0
	for before, a := range records {
		for beside, b := range records {
			a.FinishedAt, b.FinishedAt = ended, ended
			// What the steps' onError is follows from their records.
			all := maps.Clone(options)
			for name, record := range map[string]contract.Record{"a": a, "b": b} {
				own := permit(record, all[name])
				own.FailAtEnd, own.ContinueOnError = record.Passes && record.ExitCode != 0, record.Passes && record.ExitCode == 0
				all[name] = own
			}
			o := observe(sequential(annotated(contract.OptionsAnnotation, all.Marshal()), containers(recorded("a", a), recorded("b", b), running("c"))))
			byController := o.turns[2] && o.halt == ""

			flags := contract.AgentFlags{WaitContent: 2, Step: 3, After: []int{1}, Work: 3, AfterFailure: contract.AfterFailureStop}
			byAgent := agentOpens(t, flags, a, b)
			if byAgent != byController {
				t.Errorf("the step before: %s, the step beside it: %s: the agent says %t, and the controller says %t (%s)", before, beside, byAgent, byController, o.halt)
			}
			if byAgent {
				released++
			}
		}
	}
	if released == 0 {
		t.Error("the agent released nothing: the test doesn't reach it")
	}
}

// agentReleases asks the agent of step 2 whether the record of step 1 releases it.
func agentReleases(t *testing.T, record contract.Record, afterFailure string) bool {
	t.Helper()
	return agentOpens(t, contract.AgentFlags{WaitContent: 2, AfterFailure: afterFailure}, record)
}

// agentOpens asks the agent of a step, by the form of call that its startupProbe uses, whether the records of the first steps release it.
func agentOpens(t *testing.T, flags contract.AgentFlags, records ...contract.Record) bool {
	t.Helper()
	dir := t.TempDir()
	flags.Wait, flags.Run = filepath.Join(dir, "order"), filepath.Join(dir, "run")
	err := os.WriteFile(flags.Wait, []byte("1"), 0o600)
	for i, record := range records {
		own := contract.StepDir(flags.Run, i+1)
		if err == nil {
			err = os.MkdirAll(own, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(own, contract.RecordFile), []byte(record.Marshal()), 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return agent.Run(flags.StartedArgs(nil), agent.Signals{}, time.Now, io.Discard) == 0
}
