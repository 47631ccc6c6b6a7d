//go:build linux

// Package agent runs one step of a sequential Pod.
//
// Kubernetes starts all containers of a Pod at once. The agent stands in front of a step's command as
// the container's first process: it waits until the step is released, runs the command, and ends as
// the command ended. In order: wait (gate.go), start (child.go), forward signals and reap (reap.go),
// kill what is left, leave a record (run.go for the next step, record.go for the controllers), and give
// way to the next step's start. step.go is that list; install.go is how the agent gets into a Pod.
//
// To the command it must make no difference: arguments, environment, working directory, user, umask,
// limits, signal dispositions and standard streams are those of the container, untouched. What does
// differ: the command is not process 1, so signals without a handler end it, as they do everywhere
// but in a container.
//
// The agent sits in every step of every Pod, so it is small: the standard library, golang.org/x/sys
// and the contract, without fmt and what is built on it.
package agent
