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
	// A second thread would wait for its turn on a busy node, at each of a hop's wake-ups: those of a Pod without requests come after all others.
	runtime.GOMAXPROCS(1)
	os.Exit(agent.Run(agent.TakeArgs()[1:], signals, time.Now, os.Stderr))
}
