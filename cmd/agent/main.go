//go:build linux

// Command agent runs one step of a sequential Pod. README.md says what it promises.
package main

import (
	"os"
	"time"

	"github.com/taskflow/taskflow-operator/agent"
)

func main() {
	signals := agent.Notify()
	os.Exit(agent.Run(os.Args[1:], signals, time.Now, os.Stderr))
}
