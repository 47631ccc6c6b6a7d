//go:build linux

package agent

import (
	"io"
	"time"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// RunWithHaltLimit is Run for a step, with another limit than haltLimit.
func RunWithHaltLimit(limit time.Duration, args []string, signals Signals, now func() time.Time, stderr io.Writer) int {
	flags, err := contract.ParseAgentFlags(args)
	if err != nil {
		newLogger(stderr).say(err.Error())
		return contract.ExitAgentFailure
	}
	return step{flags: flags, signals: signals, now: now, log: newLogger(stderr), haltLimit: limit}.run()
}
