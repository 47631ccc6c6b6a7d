//go:build linux

package agent

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// The run directory carries the hand-off between the steps of a Pod, in milliseconds instead of the second that the API server takes. Each step
// has a directory there, which it alone can write to and the others can only read. So no step can forge the end of another.
//
// A step can forge its own end. Its command runs as the same user as its agent and sees the same mounts, so it can write a record and release
// the next step before it ends itself. It could do the same by ending early, and only the author of its own Pod is affected. The Pod's status
// still shows how the container ended. A forged record can't make a later step exit with 0 without running: that takes the controller's halt.
// Containers that share their processes (shareProcessNamespace) or are privileged can reach into each other, and so into these directories.

// siblings are the other steps whose records a waiting step reads. The zero value means that there are none.
type siblings struct {
	runDir string
	own    int
	// before are the numbers of the predecessors.
	before []int
	// areFinal is set if the predecessors are final steps.
	areFinal bool
	// work is the number of steps that are not final, if all of their records count.
	work         int
	afterFailure string
}

// watches returns what changes when a predecessor's record arrives: its step's directory and, until it exists, the directory around it. The
// kubelet makes a step's directory just before its container.
func (s siblings) watches() []watch {
	if len(s.before) == 0 {
		return nil
	}
	watches := []watch{{dir: s.runDir, events: unix.IN_CREATE}}
	for _, number := range s.before {
		watches = append(watches, watch{dir: contract.StepDir(s.runDir, number), events: unix.IN_MOVED_TO, mayBeMissing: true})
	}
	return watches
}

// String returns the rest of a line in the log.
func (s siblings) String() string {
	if len(s.before) == 0 {
		return ""
	}
	numbers := make([]string, len(s.before))
	for i, number := range s.before {
		numbers[i] = strconv.Itoa(number)
	}
	what := " or the record of step "
	if len(numbers) > 1 {
		what = " or the records of steps "
	}
	return what + strings.Join(numbers, ", ") + " in " + s.runDir
}

// others returns the numbers of the steps that are not final, except the step's own and those of its predecessors.
func (s siblings) others() []int {
	var others []int
	for number := 1; number <= s.work; number++ {
		if number != s.own && !slices.Contains(s.before, number) {
			others = append(others, number)
		}
	}
	return others
}

// sibling is a step of which only the number and the record are known. Without a record that can be read, the controller decides.
type sibling struct {
	number int
	record contract.Record
	state  sequence.State
	step   sequence.Step
}

// read returns what the records of the steps say.
func (s siblings) read(numbers []int) []sibling {
	read := make([]sibling, len(numbers))
	for i, number := range numbers {
		read[i].number = number
		if record, ok := readRecord(s.runDir, number); ok {
			read[i].record = record
			read[i].state, read[i].step.OnError = judge(record, s.afterFailure)
		}
	}
	return read
}

// judge returns what a record says about its step, and what a failure of the step means.
func judge(record contract.Record, afterFailure string) (sequence.State, sequence.OnError) {
	switch record.Reason {
	case contract.ReasonStopped, contract.ReasonTerminated, contract.ReasonSignaled:
		// The Pod may be terminating, so the next step is about to be told, too. If the signal came from inside the container, the controller
		// decides.
		return sequence.Running, sequence.Stop
	}
	switch {
	case record.ExitCode == 0 && record.Passes:
		return sequence.Failed, sequence.Continue
	case record.ExitCode == 0 && record.Reason == contract.ReasonSkipped:
		return sequence.Skipped, sequence.Stop
	case record.ExitCode == 0 && record.Reason == contract.ReasonFinished:
		return sequence.Finished, sequence.Stop
	case record.ExitCode == 0 && record.Reason == contract.ReasonWhenFalse:
		return sequence.WhenFalse, sequence.Stop
	case record.ExitCode == 0:
		return sequence.Succeeded, sequence.Stop
	case afterFailure == contract.AfterFailureWait: // the kubelet restarts it
		return sequence.Running, sequence.Stop
	case contract.IsInterrupted(record.Reason):
		return sequence.Interrupted, sequence.Stop
	case record.Passes:
		return sequence.Failed, sequence.FailAtEnd
	case afterFailure == contract.AfterFailureContinue:
		return sequence.Failed, sequence.Continue
	}
	return sequence.Failed, sequence.Stop
}

// claim returns what the record of a step that ended the sequence means for a step that waits.
func (s sibling) claim() verdict {
	step := "step " + strconv.Itoa(s.number)
	switch {
	case s.state == sequence.Finished:
		return verdict{claim: step + " finished the sequence with exit code " + strconv.Itoa(s.record.Code()), endsWell: true}
	case s.record.ExitCode == 0:
		return verdict{claim: step + " was skipped"}
	case s.record.Reason == contract.ReasonHaltMissing:
		return verdict{claim: s.record.Message, final: true}
	default:
		return verdict{claim: step + " failed with exit code " + strconv.Itoa(s.record.ExitCode)}
	}
}

// readRecord reads the record of step n. It trusts nothing that it finds: a link, a FIFO or an endless file is no record.
func readRecord(runDir string, n int) (contract.Record, bool) {
	content, ok := read(filepath.Join(contract.StepDir(runDir, n), contract.RecordFile), unix.O_NOFOLLOW, maxRecord+1)
	if !ok || len(content) > maxRecord {
		return contract.Record{}, false
	}
	return contract.ParseRecord(string(content))
}

// publish stores the record of step n by one rename, so that a reader sees all of it or nothing. It returns what is to be synced later, because
// the next step need not wait for the disk. It does wait for each call below, so publish calls the kernel itself, as read does.
func publish(runDir string, n int, record contract.Record) (unsynced, error) {
	dir := contract.StepDir(runDir, n)
	temp, path := filepath.Join(dir, ".record"), filepath.Join(dir, contract.RecordFile)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	file, err := unix.Open(temp, flags, 0)
	if err == unix.EEXIST && unix.Unlink(temp) == nil { // a container was killed at this point
		file, err = unix.Open(temp, flags, 0)
	}
	if err != nil {
		return unsynced{}, err
	}
	content := marshal(record)
	written, err := unix.Write(file, []byte(content))
	if err == nil && written < len(content) {
		err = unix.ENOSPC
	}
	if err == nil {
		const readable = 0o444 // the next step may be another user's
		err = unix.Fchmod(file, readable)
	}
	if err == nil {
		err = unix.Rename(temp, path)
	}
	if err != nil {
		_ = unix.Close(file)
		_ = unix.Unlink(temp)
		return unsynced{}, err
	}
	return unsynced{file: file, dir: dir}, nil
}

// unsynced is a published record: its file, open, and the directory that has its name.
type unsynced struct {
	file int
	dir  string
}

// sync writes the record and the outputs to the disk, so that a step that ended does not run again after a crash of the node.
func (u unsynced) sync() {
	// Errors are ignored: a disk that can't do this has lost the step's own data as well.
	_ = unix.Fsync(u.file)
	_ = unix.Close(u.file)
	for _, path := range []string{filepath.Join(u.dir, contract.OutputFile), u.dir} {
		if fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Fsync(fd)
			_ = unix.Close(fd)
		}
	}
}
