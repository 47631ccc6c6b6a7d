//go:build linux

// Package agent runs one step of a sequential Pod.
//
// Kubernetes starts all containers of a Pod at once. The agent is the first process of a step's container: it waits until the step is
// released, runs the step's command, and exits with its exit code. step.go lists what happens in between, in this order:
//
//   - wait for the release, by the order or by the records of the predecessors (gate.go, run.go, watch.go)
//   - test the conditions and read the inputs (when.go)
//   - start the command (child.go, environ.go, workdir.go, mounts.go)
//   - forward signals and reap children, enforce the timeout, a halt and a cancel (supervise.go, signals.go, reap.go)
//   - kill the processes that the command left behind (leftovers.go)
//   - apply the rules for exit codes, and read the outputs (result.go, outputs.go)
//   - write the record, for the other steps (run.go) and for the controllers (record.go)
//
// log.go has the agent's own log, and install.go copies the agent into a Pod.
//
// The agent is transparent to the command: arguments, environment, working directory, user, umask, limits, signal dispositions and standard
// streams are those of the container. Two things differ: the environment has a few more variables (environ.go), and the command is not process 1,
// so signals without a handler end it, as everywhere but in a container.
//
// Every step of every Pod has an agent, so it is small. It imports the standard library, golang.org/x/sys and the contract, without fmt and
// the packages that use it.
package agent
