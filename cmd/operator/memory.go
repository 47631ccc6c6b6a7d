package main

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent is how much the heap may grow, in percent of what is live, before a collection (GOGC). Nearly all that a request allocates
	// is garbage at once. docs/benchmarks.md has the measurement: the default of 100 costs a quarter of the webhook's time for 50
	// containers.
	gcPercent = 800
	// memoryShare of the container's limit is where collections become more frequent (GOMEMLIMIT), so that a heap of many live Tasks grows
	// less. The benchmark of 10,000 live Tasks needs it to stay below 300 MB.
	memoryShare = 0.4
)

// tuneMemory trades memory for CPU time if the container has a memory limit. Without one, Go's defaults apply. The environment variables
// GOGC and GOMEMLIMIT take precedence.
func tuneMemory(limit memlimit.Provider) error {
	bound, err := memlimit.Set(memlimit.WithProvider(limit), memlimit.WithRatio(memoryShare))
	if err != nil {
		return err
	}
	if _, chosen := os.LookupEnv("GOGC"); !chosen && bound < math.MaxInt64 {
		debug.SetGCPercent(gcPercent)
	}
	return nil
}
