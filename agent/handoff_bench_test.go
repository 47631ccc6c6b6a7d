//go:build linux

package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// BenchmarkFanOut measures how far apart the commands of ten steps start that follow the same step: the time from the first start to the last one, as
// the median of all rounds. The clock is the one of file times, which advances every 4 ms on most machines.
//
//	go test ./agent -run '^$' -bench FanOut -benchtime 20x
func BenchmarkFanOut(b *testing.B) {
	const successors = 10
	var spreads []time.Duration
	for b.Loop() {
		runDir, dir := b.TempDir(), b.TempDir()
		order := filepath.Join(dir, contract.OrderFile)
		if err := os.WriteFile(order, []byte("1"), 0o600); err != nil {
			b.Fatal(err)
		}
		var agents []*exec.Cmd
		for n := 1; n <= 1+successors; n++ {
			if err := os.Mkdir(contract.StepDir(runDir, n), 0o700); err != nil {
				b.Fatal(err)
			}
			flags := contract.AgentFlags{
				Wait: order, WaitContent: 2, Run: runDir, TerminationLog: filepath.Join(dir, "log"),
				Step: n, After: []int{1}, Work: 1 + successors, Command: []string{"true"},
			}
			if n == 1 {
				flags.WaitContent, flags.After, flags.Command = 1, nil, []string{"sleep", "0.5"} // until the others wait
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
		var starts []time.Time
		for n := 2; n <= 1+successors; n++ {
			mark, err := os.Stat(filepath.Join(contract.StepDir(runDir, n), contract.StartedFile))
			if err != nil {
				b.Fatal(err)
			}
			starts = append(starts, mark.ModTime())
		}
		slices.SortFunc(starts, time.Time.Compare)
		spreads = append(spreads, starts[successors-1].Sub(starts[0]))
	}
	slices.Sort(spreads)
	b.ReportMetric(float64(spreads[len(spreads)/2].Microseconds())/1000, "ms/spread")
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
