//go:build linux

package agent

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

const (
	// pollInterval is how often the agent reads the files if it can't watch them.
	pollInterval = 150 * time.Millisecond
	// recheckInterval is how often the agent reads the files that it watches. Some sandboxes accept a watch and never report what the host
	// writes: google/gvisor issue 8089, and virtio-fs in kata-containers/runtime issue 1505.
	recheckInterval = 5 * time.Second
	// haltLimit bounds the wait for the halt after the record of the step before ended the sequence. A halt normally comes within two
	// seconds; it takes longer while the operator elects a new leader.
	haltLimit = time.Minute
)

// gate holds a step back until the rule of package sequence lets it run. It knows two sources. The controller's word is final: the order and
// the halt. The records of the other steps are faster, and are the word of those steps. They may open the gate, because each predecessor was
// itself held back until its own predecessors passed. They may not close the gate: a record that ends the sequence is only a claim until the
// controller halts the sequence.
type gate struct {
	// orderFile holds the order, and haltFile the halt. An empty haltFile means that there is none.
	orderFile, haltFile string
	// stage is what the order has to reach.
	stage int
	// isFinal is set for a final step.
	isFinal bool
	// siblings are the steps whose records count.
	siblings siblings
}

// verdict is what the files say about a step. The zero value means: not yet.
type verdict struct {
	// released: the command may run.
	released bool
	// by is what released the step, for the log.
	by string
	// halt is the controller's reason why the command must not run.
	halt string
	// claim is the reason why, according to the record of another step, the command must not run. A step could make it up.
	claim string
	// endsWell: according to the claim, the sequence ended well.
	endsWell bool
	// final: no halt will come for the claim, because the step before has waited for it.
	final bool
}

// isDecided reports whether the controller, or a predecessor that passed, has decided.
func (v verdict) isDecided() bool { return v.released || v.halt != "" || v.final }

// gateOf returns the gate of a step.
func gateOf(flags contract.AgentFlags) gate {
	g := gate{orderFile: flags.Wait, haltFile: flags.Halt, stage: flags.WaitContent, isFinal: flags.IsFinal}
	if flags.Run != "" && !flags.ControllerOnly {
		g.siblings = siblings{
			runDir: flags.Run, own: flags.Number(), before: flags.Predecessors(), areFinal: flags.IsFinal && flags.Work == 0, work: flags.Work,
			afterFailure: flags.AfterFailure,
		}
	}
	return g
}

// wait blocks until the gate opens or closes, or until limit has passed without a halt that confirms a claim. There is no limit for the claim that
// the sequence ended well: no later step may make it fail. A file that is missing, unreadable or malformed means "not yet": the kubelet may be
// about to write it.
func (g gate) wait(w *watcher, limit time.Duration, log logger) verdict {
	var deadline time.Time
	for {
		// The watch begins before the files are read, so no change is lost in between. Renewing it in each round costs one system call and
		// copes with a replaced directory.
		watched := w.watch(g.watches())
		seen := g.read()
		pause := recheckInterval
		switch {
		case seen.isDecided():
			return seen
		case seen.claim == "", seen.endsWell:
			deadline = time.Time{}
		case deadline.IsZero():
			log.debug("waiting for a halt: ", seen.claim)
			deadline = time.Now().Add(limit)
			pause = min(pause, limit)
		default:
			left := time.Until(deadline)
			if left <= 0 {
				return seen
			}
			pause = min(pause, left+time.Millisecond) // poll(2) counts whole milliseconds
		}
		if !watched || !w.changed(pause) {
			time.Sleep(pollInterval)
		}
	}
}

// watches returns what to watch. The projected files are links into a directory that the kubelet replaces as a whole
// (pkg/volume/util/atomic_writer.go): only the link "..data" beside them changes.
func (g gate) watches() []watch {
	watches := []watch{{dir: filepath.Dir(g.orderFile), events: projected}}
	if g.haltFile != "" && filepath.Dir(g.haltFile) != watches[0].dir {
		watches = append(watches, watch{dir: filepath.Dir(g.haltFile), events: projected})
	}
	return append(watches, g.siblings.watches()...)
}

// read looks at the files once and decides. It reads the order first: the kubelet swaps both files in one rename and the halt is never
// removed, so a new order is never read without the halt that came with it. It reads the records only if the order does not release the step,
// and those of steps that are no predecessors only if all predecessors passed.
func (g gate) read() verdict {
	order, err := strconv.Atoi(content(g.orderFile))
	if err != nil {
		order = 0
	}
	halt := content(g.haltFile)
	if halt != "" || order >= g.stage {
		return g.decide(order, halt, nil, nil)
	}
	before := g.siblings.read(g.siblings.before)
	seen := g.decide(order, halt, before, nil)
	if others := g.siblings.others(); seen.released && len(others) > 0 {
		return g.decide(order, halt, before, g.siblings.read(others))
	}
	return seen
}

// decide applies the rule to what is known.
func (g gate) decide(order int, halt string, before, others []sibling) verdict {
	all := append(slices.Clip(before), others...)
	known := sequence.Records{Order: order, Halted: halt != "", FinallyHalted: halt != "", States: make([]sequence.State, len(all)+1)}
	steps := make([]sequence.Step, len(all))
	for i, sibling := range all {
		known.States[i], steps[i] = sibling.state, sibling.step
		steps[i].IsFinal = g.siblings.areFinal
	}
	plan := sequence.Behind(steps[:len(before)], steps[len(before):], sequence.Step{Stage: g.stage, IsFinal: g.isFinal})
	decision := sequence.Decide(plan, known)
	switch decision.Verdicts[len(all)] {
	case sequence.Run:
		switch {
		case order >= g.stage:
			return verdict{released: true, by: "order"}
		case len(before) == 1:
			return verdict{released: true, by: "record of the step before"}
		}
		return verdict{released: true, by: "records of the steps before"}
	case sequence.Skip:
		if halt != "" {
			return verdict{halt: halt}
		}
		return all[decision.EndedBy].claim()
	default:
		return verdict{}
	}
}

// content returns the text of the file without white space around it, or "" if it can't be read.
func content(path string) string {
	const limit = 1 << 20 // more than all annotations of a Pod can have
	text, _ := read(path, 0, limit)
	return strings.TrimSpace(string(text))
}

// read returns the first limit bytes of a regular file. It calls the kernel itself, because package os would start Go's poller in every
// waiting agent and register each file with it.
func read(path string, flags, limit int) (content []byte, ok bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if unix.Fstat(fd, &info) != nil || info.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, false
	}
	return readAll(fd, limit)
}

// readAll returns the first limit bytes of an open file.
func readAll(fd, limit int) (content []byte, ok bool) {
	content = make([]byte, 0, maxRecord)
	for len(content) < limit {
		if len(content) == cap(content) {
			content = slices.Grow(content, max(maxRecord, len(content)))
		}
		n, err := unix.Read(fd, content[len(content):min(cap(content), limit)])
		if err != nil {
			return nil, false
		}
		if n == 0 {
			break
		}
		content = content[:len(content)+n]
	}
	return content, true
}
