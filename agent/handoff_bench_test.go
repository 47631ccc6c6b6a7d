//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// BenchmarkHandOff measures the time from the end of one step to the end of the next one, whose command is true. The agents are processes of
// this machine that share a run directory, without containers and without a kubelet.
//
//	go test ./agent -run '^$' -bench HandOff -count 10
func BenchmarkHandOff(b *testing.B) {
	const steps = 20
	var sum time.Duration
	hops := 0
	for b.Loop() {
		runDir, dir := b.TempDir(), b.TempDir()
		flags := contract.AgentFlags{
			Wait:           filepath.Join(dir, contract.OrderFile),
			Run:            runDir,
			TerminationLog: filepath.Join(dir, "log"),
		}
		if err := os.WriteFile(flags.Wait, []byte("1"), 0o600); err != nil {
			b.Fatal(err)
		}
		var agents []*exec.Cmd
		for n := 1; n <= steps; n++ {
			if err := os.Mkdir(contract.StepDir(runDir, n), 0o700); err != nil {
				b.Fatal(err)
			}
			flags.WaitContent, flags.Command = n, []string{"true"}
			if n == 1 {
				flags.Command = []string{"sleep", "1"} // until the others wait
			}
			agent := exec.Command(filepath.Join(programs, agentName), flags.Args()...)
			if err := agent.Start(); err != nil {
				b.Fatal(err)
			}
			agents = append(agents, agent)
		}
		for _, agent := range agents {
			if err := agent.Wait(); err != nil {
				b.Fatal(err)
			}
		}
		sum += ended(b, runDir, steps).Sub(ended(b, runDir, 1))
		hops += steps - 1
	}
	b.ReportMetric(float64(sum.Microseconds())/1000/float64(hops), "ms/hop")
	b.ReportMetric(0, "ns/op") // it would include the sleep of the first step
}

func ended(b *testing.B, runDir string, step int) time.Time {
	b.Helper()
	content, err := os.ReadFile(filepath.Join(contract.StepDir(runDir, step), contract.RecordFile))
	if err != nil {
		b.Fatal(err)
	}
	record, ok := contract.ParseRecord(string(content))
	if !ok {
		b.Fatalf("step %d has written %q, want a record", step, content)
	}
	return record.FinishedAt
}
