//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The commands that a shell can't play.
const (
	childReport = "report" // print what was handed over
	childCatch  = "catch"  // print the numbers of the signals that come, and end after the given count
)

func actAsChild(args []string) int {
	switch args[0] {
	case childReport:
		dir, err := os.Getwd()
		if err != nil {
			return 1
		}
		fmt.Print(reported(os.Args, os.Environ(), dir))
		return 0
	case childCatch:
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return 1
		}
		return catch(count)
	}
	return 1
}

// reported is what a program has to say about the call that started it.
func reported(argv, env []string, dir string) string {
	return fmt.Sprintf("arguments %q\nenvironment %q\ndirectory %q\n", argv, env, dir)
}

func catch(count int) int {
	got := make(chan os.Signal, 64)
	signal.Notify(got)
	signal.Reset(unix.SIGURG)                       // Go's own
	time.AfterFunc(patience, func() { os.Exit(1) }) // nobody else ends it where a test fails
	fmt.Println("ready")
	for range count {
		fmt.Println(int((<-got).(syscall.Signal)))
	}
	return 0
}
