// Command stamp is a step that says when it ran: it prints the clock when it starts and when it ends, in nanoseconds since the
// epoch. With an argument, such as 10s, it takes that long.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	start := time.Now()
	if len(os.Args) > 1 {
		length, err := time.ParseDuration(os.Args[1])
		if err != nil {
			fmt.Fprintf(os.Stderr, "stamp: %v\n", err)
			os.Exit(1)
		}
		time.Sleep(length)
	}
	fmt.Println(start.UnixNano(), time.Now().UnixNano())
}
