//go:build linux

package agent

import (
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// logVariable is an environment variable of the step's container. The value "debug" makes the agent log what it does. The command gets the
// variable, too.
const logVariable = "TASKFLOW_AGENT_LOG"

// logger writes the agent's own lines to the log of the container.
type logger struct {
	stderr  io.Writer
	isDebug bool
}

func newLogger(stderr io.Writer) logger {
	return logger{stderr: stderr, isDebug: os.Getenv(logVariable) == "debug"}
}

// say writes a line at every level.
func (l logger) say(sentence string) {
	_, _ = io.WriteString(l.stderr, "agent: "+sentence+"\n")
}

// debug writes a line at the debug level. It takes the parts of the sentence unformatted, so that other levels cost a hop nothing.
func (l logger) debug(parts ...any) {
	if !l.isDebug {
		return
	}
	var sentence strings.Builder
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			sentence.WriteString(part)
		case int:
			sentence.WriteString(strconv.Itoa(part))
		case time.Duration:
			sentence.WriteString(part.String())
		case syscall.Signal:
			sentence.WriteString(signalName(part))
		}
	}
	l.say(sentence.String())
}

// signalName returns a name such as SIGTERM; real-time signals have only a number.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}
