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

// What a command does that a shell can't do.
const (
	childReport = "report" // print the arguments, the environment and the working directory
	childCatch  = "catch"  // print the numbers of the signals that it receives, and end after the given count
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

// reported returns what childReport prints.
func reported(argv, env []string, dir string) string {
	return fmt.Sprintf("arguments %q\nenvironment %q\ndirectory %q\n", argv, env, dir)
}

func catch(count int) int {
	got := make(chan os.Signal, 64)
	signal.Notify(got)
	signal.Reset(unix.SIGURG)                       // Go's scheduler uses it
	time.AfterFunc(patience, func() { os.Exit(1) }) // nothing else ends it if a test fails
	fmt.Println("ready")
	for range count {
		fmt.Println(int((<-got).(syscall.Signal)))
	}
	return 0
}
