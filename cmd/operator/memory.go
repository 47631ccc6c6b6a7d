package main

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent is how much the heap grows, in percent of what is live, before garbage is collected (GOGC). Nearly all that is made for a call or an
	// admission is garbage at once.
	gcPercent = 800
	// memoryShare of the container's limit is where garbage is collected sooner (GOMEMLIMIT), so that a heap of many live Tasks doesn't grow as much.
	// The rest is for what may be live beyond that.
	memoryShare = 0.4
)

// spendMemory trades memory for time where the container's limit bounds it; without a limit, all is as Go has it. GOGC and GOMEMLIMIT come first.
func spendMemory(limit memlimit.Provider) error {
	bound, err := memlimit.Set(memlimit.WithProvider(limit), memlimit.WithRatio(memoryShare))
	if err != nil {
		return err
	}
	if _, chosen := os.LookupEnv("GOGC"); !chosen && bound < math.MaxInt64 {
		debug.SetGCPercent(gcPercent)
	}
	return nil
}
