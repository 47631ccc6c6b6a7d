//go:build linux

package agent

import (
	"cmp"
	"os"
	"strings"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// variable is an environment variable of a command.
type variable struct{ name, value string }

// variables returns the variables that the agent adds to the environment of the command. The inputs come last: they may have any name.
func (s step) variables(inputs []variable) []variable {
	var all []variable
	if s.flags.Run != "" {
		all = append(all, variable{contract.OutputVariable, outputFile(s.flags.Run, s.flags.Number())})
	}
	if s.flags.IsFinal {
		told := s.told()
		all = append(all, variable{contract.StatusVariable, cmp.Or(told.Status, contract.Succeeded)}, variable{contract.FailedStepVariable, told.FailedStep})
	}
	return append(all, inputs...)
}

// environ returns the environment of a command that runs in dir, or in the current directory if dir is empty. If the container runtime has set
// PWD, it is the directory of the agent.
func environ(dir string) []string {
	env := os.Environ()
	if dir != "" && find(env, "PWD") >= 0 {
		env = setVariable(env, "PWD", dir)
	}
	return env
}

// setVariable sets a variable of the environment. It replaces the first value of the same name, which is the one that getenv(3) returns.
func setVariable(env []string, name, value string) []string {
	if i := find(env, name); i >= 0 {
		env[i] = name + "=" + value
		return env
	}
	return append(env, name+"="+value)
}

// valueOf returns the value of a variable, or "".
func valueOf(env []string, name string) string {
	if i := find(env, name); i >= 0 {
		return env[i][len(name)+1:]
	}
	return ""
}

// find returns the index of a variable, or -1.
func find(env []string, name string) int {
	for i, variable := range env {
		if rest, ok := strings.CutPrefix(variable, name); ok && strings.HasPrefix(rest, "=") {
			return i
		}
	}
	return -1
}
