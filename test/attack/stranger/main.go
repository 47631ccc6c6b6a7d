// Command stranger runs in a Pod without a token, and sends the requests in its argument (package ask).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/taskflow/taskflow-operator/test/attack/ask"
)

func main() {
	var requests []ask.Request
	err := json.Unmarshal([]byte(os.Args[1]), &requests)
	if err == nil {
		err = ask.Send(context.Background(), requests, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "stranger: %v\n", err)
		os.Exit(1)
	}
}
