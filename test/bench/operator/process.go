package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one that this program has started.
type process struct {
	name string
	pid  int
}

// stop ends what start has started.
type stop func() error

// start runs a program until it is stopped. What it says is in a file, whose end is part of the error that failed is called with where it ends
// by itself: an operator does that where it can't renew its Lease for ten seconds.
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
			failed(fmt.Errorf("%s has ended by itself (%w): %s", name, err, said[max(0, len(said)-1000):]))
		}
	}()
	return process{name: name, pid: command.Process.Pid}, func() error {
		stopping.Store(true)
		err := command.Process.Signal(syscall.SIGTERM)
		<-ended
		if errors.Is(err, os.ErrProcessDone) {
			return nil // it has been told
		}
		return err
	}, nil
}

// children are the processes that others have started for this one: envtest's etcd and API server.
func children() ([]process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, file := range files {
		stat, err := readStat(file)
		if err == nil && stat.parent == os.Getpid() { // else it is gone by now
			all = append(all, process{name: stat.name, pid: stat.pid})
		}
	}
	return all, nil
}

type stat struct {
	pid    int
	name   string
	parent int
	cpu    time.Duration
}

// clockTick is the unit of times in /proc/*/stat: USER_HZ, which is 100 on all platforms that Go knows.
const clockTick = time.Second / 100

// readStat reads what proc(5) says in /proc/PID/stat.
func readStat(file string) (stat, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return stat{}, err
	}
	before, after, ok := bytes.Cut(content, []byte(" ("))
	end := bytes.LastIndexByte(after, ')')
	if !ok || end < 0 {
		return stat{}, fmt.Errorf("%s: %s", file, content)
	}
	const parent, userTime, systemTime = 1, 11, 12 // after the name, from 0
	fields := strings.Fields(string(after[end+1:]))
	number := func(text string) int {
		n, parseErr := strconv.Atoi(text)
		if parseErr != nil {
			err = fmt.Errorf("%s: %w", file, parseErr)
		}
		return n
	}
	s := stat{
		pid:    number(string(before)),
		name:   string(after[:end]),
		parent: number(fields[parent]),
		cpu:    time.Duration(number(fields[userTime])+number(fields[systemTime])) * clockTick,
	}
	return s, err
}

// cpu is the processor time that the process has used.
func (p process) cpu() (time.Duration, error) {
	s, err := readStat(fmt.Sprintf("/proc/%d/stat", p.pid))
	return s.cpu, err
}

// memory is how much is resident now, and the most that was since forgetPeak, in bytes.
func (p process) memory() (now, peak int64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(content)) {
		for field, value := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &peak} {
			if rest, ok := strings.CutPrefix(line, field); ok {
				kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				if err != nil {
					return 0, 0, err
				}
				*value = kilobytes << 10
			}
		}
	}
	return now, peak, nil
}

// forgetPeak lets the peak of memory begin with what is resident now (proc(5), clear_refs).
func (p process) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}
