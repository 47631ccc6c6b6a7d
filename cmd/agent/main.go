//go:build linux

// Command agent runs one step of a sequential Pod. docs/agent.md describes what it does.
package main

import (
	"os"
	"runtime"
	"time"

	"github.com/taskflow/taskflow-operator/agent"
)

func main() {
	signals := agent.Notify()
	// A second thread would have to wait for the CPU of a busy node at each wake-up of a hop: a Pod without CPU requests comes last
	// (docs/benchmarks.md).
	runtime.GOMAXPROCS(1)
	os.Exit(agent.Run(agent.TakeArgs()[1:], signals, time.Now, os.Stderr))
}
