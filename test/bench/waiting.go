package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// agents is the cost of the agents of one Pod while their steps wait, and of one agent that starts a command.
type agents struct {
	size          uint64          // size of the program in bytes
	resident, own []uint64        // bytes for each agent: all resident memory, and the part that no file backs
	cpu           []time.Duration // of each agent, in waitingTime
	// alone and behind are the times from the start of a program to its first output: the command alone, and behind an agent whose gate is
	// open.
	alone, behind []time.Duration
}

const (
	waitingTime = 10 * time.Second
	starts      = 100
)

// measureAgents measures the agents of a Pod whose first step runs while the others wait. The node is this machine.
func (b *bench) measureAgents(ctx context.Context, steps int) (*agents, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := b.nextName()
	var a *agents
	looked := make(chan error, 1)
	go func() {
		var err error
		a, err = lookAtAgents(ctx, name, steps-1)
		looked <- err
	}()
	_, err := b.run(ctx,
		func(meta metav1.ObjectMeta) client.Object {
			t := task(meta, work{steps: steps, command: "true"}, nil)
			// Longer than the other containers take to start and to be measured.
			t.Spec.Steps[0].Command = []string{"sleep", strconv.Itoa(15 + steps/2)}
			return t
		},
		func(*corev1.Pod) error { return nil })
	if err != nil {
		cancel()
	}
	return a, errors.Join(err, <-looked)
}

// lookAtAgents waits until so many steps of the Pod wait, and measures their agents.
func lookAtAgents(ctx context.Context, pod string, count int) (*agents, error) {
	var pids []int
	for len(pids) < count {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d agents wait, not %d: %w", len(pids), count, ctx.Err())
		case <-time.After(time.Second):
		}
		var err error
		if pids, err = waitingAgents(pod); err != nil {
			return nil, err
		}
	}

	time.Sleep(time.Second) // the last agent may not have reached its gate yet
	a := &agents{}
	before := make([]time.Duration, len(pids))
	for i, pid := range pids {
		agent, err := procfs.NewProc(pid)
		if err != nil {
			return nil, err
		}
		status, err := agent.NewStatus()
		if err != nil {
			return nil, err
		}
		a.resident = append(a.resident, status.VmRSS)
		a.own = append(a.own, status.RssAnon)
		if before[i], err = cpuTime(pid); err != nil {
			return nil, err
		}
	}
	time.Sleep(waitingTime)
	for i, pid := range pids {
		after, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		a.cpu = append(a.cpu, after-before[i])
	}
	return a, a.start(ctx, pids[0])
}

// waitingAgents returns the PIDs of the agents of a Pod that have no child. The environment of their containers has the Pod's name.
func waitingAgents(pod string) ([]int, error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range processes {
		// A process whose files can't be read has ended.
		argv, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environment, _ := os.ReadFile(filepath.Join(dir, "environ"))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(string(argv), contract.AgentTitle+" ") || !strings.Contains("\x00"+string(environment), "\x00HOSTNAME="+pod+"\x00") {
			continue
		}
		children, _ := filepath.Glob(filepath.Join(dir, "task/*/children"))
		busy := false
		for _, file := range children {
			content, _ := os.ReadFile(file)
			busy = busy || len(content) > 0
		}
		if !busy {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// cpuTime returns the CPU time of all threads from the scheduler's statistics, in nanoseconds (Documentation/scheduler/sched-stats.rst).
// The times of proc_pid_stat(5) have a resolution of a hundredth of a second.
func cpuTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range threads {
		content, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		var running time.Duration
		if _, err := fmt.Sscan(string(content), &running); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += running
	}
	return sum, nil
}

// start measures how long the agent of that process takes to start a command, on the host and without the kubelet.
func (a *agents) start(ctx context.Context, pid int) error {
	dir, err := os.MkdirTemp("", "bench-agent-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return err
	}
	a.size = uint64(len(program))
	agent, order := filepath.Join(dir, "agent"), filepath.Join(dir, contract.OrderFile)
	if err := os.WriteFile(agent, program, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(order, []byte("1"), 0o600); err != nil {
		return err
	}
	command := []string{"/bin/echo"}
	flags := contract.AgentFlags{Wait: order, WaitContent: 1, TerminationLog: filepath.Join(dir, "log"), Command: command}
	for range starts {
		took, err := firstSign(ctx, command)
		if err != nil {
			return err
		}
		a.alone = append(a.alone, took)
		if took, err = firstSign(ctx, append([]string{agent}, flags.Args()...)); err != nil {
			return err
		}
		a.behind = append(a.behind, took)
	}
	return nil
}

// firstSign returns the time until a program's first output.
func firstSign(ctx context.Context, argv []string) (time.Duration, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	output, err := command.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := command.Start(); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(output, make([]byte, 1))
	took := time.Since(start)
	return took, errors.Join(err, command.Wait())
}
