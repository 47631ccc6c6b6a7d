//go:build linux

package agent

import (
	"io"
	"time"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// RunWithHaltLimit is Run for a step, with another limit than haltLimit.
func RunWithHaltLimit(limit time.Duration, args []string, signals Signals, now func() time.Time, stderr io.Writer) int {
	s, err := newStep(args, signals, now, newLogger(stderr))
	s.haltLimit = limit
	if err != nil {
		s.log.say(err.Error())
		return contract.ExitAgentFailure
	}
	return s.run()
}
