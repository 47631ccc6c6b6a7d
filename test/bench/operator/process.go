package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// process is a program that runs for this benchmark.
type process struct {
	name string
	pid  int
}

// stop ends a program, or removes what it needed.
type stop func() error

// start runs a program until stop is called. Its output goes to a file. If the program exits by itself, start calls failed with an error
// that has the end of that output. For example, an operator exits if it can't renew its Lease for ten seconds.
func start(dir, path string, failed context.CancelCauseFunc, environment []string, args ...string) (process, stop, error) {
	name := filepath.Base(path)
	file, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		return process{}, nil, err
	}
	defer file.Close()
	command := exec.Command(path, args...) //nolint:noctx // stop ends it
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = file, file
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return process{}, nil, err
	}
	var stopping atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := command.Wait()
		if !stopping.Load() {
			said, _ := os.ReadFile(file.Name())
			failed(fmt.Errorf("%s exited by itself (%w): %s", name, err, said[max(0, len(said)-1000):]))
		}
	}()
	return process{name: name, pid: command.Process.Pid}, func() error {
		stopping.Store(true)
		err := command.Process.Signal(syscall.SIGTERM)
		<-ended
		if errors.Is(err, os.ErrProcessDone) {
			return nil // failed has the error
		}
		return err
	}, nil
}

// children returns the processes that envtest started for this program: etcd and the API server.
func children() ([]process, error) {
	running, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var all []process
	for _, p := range running {
		stat, err := p.Stat()
		if err == nil && stat.PPID == os.Getpid() { // an error means that it has exited
			all = append(all, process{name: stat.Comm, pid: p.PID})
		}
	}
	return all, nil
}

// cpu returns the processor time that the process has used, in steps of 10 ms.
func (p process) cpu() (time.Duration, error) {
	running, err := procfs.NewProc(p.pid)
	if err != nil {
		return 0, err
	}
	stat, err := running.Stat()
	return seconds(stat.CPUTime()), err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// stolen returns the time for which CPUs had something to run and the hypervisor didn't run them, in steps of 10 ms. It is the sum for all
// CPUs, since the start of the machine.
func stolen() (time.Duration, error) {
	kernel, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	stat, err := kernel.Stat()
	return seconds(stat.CPUTotal.Steal), err
}

// memory returns the resident memory, and its peak since forgetPeak, in bytes.
func (p process) memory() (now, peak uint64, err error) {
	running, err := procfs.NewProc(p.pid)
	if err != nil {
		return 0, 0, err
	}
	status, err := running.NewStatus()
	return status.VmRSS, status.VmHWM, err
}

// forgetPeak resets the peak to the memory that is resident now (proc(5), clear_refs).
func (p process) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}
