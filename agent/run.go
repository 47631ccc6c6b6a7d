//go:build linux

package agent

import (
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// The run directory hands a step over to the next one within the Pod, in a fraction of the second that the way through the API
// server takes. Each step has a directory there that it alone may write to, and others only read: so no step can make up the
// end of another.
//
// What a step can make up is its own end. Its command runs as the same user as its agent and sees the same mounts, so nothing
// in the container is the agent's alone: a command that writes a record releases the next step before it has ended itself. That
// is no more than it could have by ending early, and reaches nobody but its own Pod's author; the Pod's status, which is the
// API's truth, shows how its container has really ended. A record can't make a later step end with 0 without having run: that takes
// the controller's halt. Where a Pod's containers share their processes (shareProcessNamespace) or
// are privileged, they can reach into each other anyhow, and so into these directories.

// predecessor is the step before one that waits. The zero value is none.
type predecessor struct {
	runDir       string
	number       int
	afterFailure string
}

// watches are what changes when the record comes: the step's directory, and until there is one, the directory around it. The
// kubelet makes a step's directory just before its container.
func (p predecessor) watches() []watch {
	if p.number == 0 {
		return nil
	}
	return []watch{
		{dir: p.runDir, events: unix.IN_CREATE},
		{dir: contract.StepDir(p.runDir, p.number), events: unix.IN_MOVED_TO, mayBeMissing: true},
	}
}

// onError returns what a failure of the step means for the next one.
func (p predecessor) onError() sequence.OnError {
	if p.afterFailure == contract.AfterFailureContinue {
		return sequence.Continue
	}
	return sequence.Stop
}

// read returns the step's record and what it says about the step. Without a record that can be read, the controller decides.
func (p predecessor) read() (contract.Record, sequence.State) {
	if p.number == 0 {
		return contract.Record{}, sequence.Waiting
	}
	record, ok := readRecord(p.runDir, p.number)
	if !ok {
		return contract.Record{}, sequence.Waiting
	}
	return record, p.state(record)
}

// state returns what a record says about its step.
func (p predecessor) state(record contract.Record) sequence.State {
	switch record.Reason {
	case contract.ReasonStopped, contract.ReasonTerminated, contract.ReasonSignaled:
		// The whole Pod may be terminating, so that the next step is about to be told, too. If it was only a process in the container, the
		// controller decides.
		return sequence.Running
	case contract.ReasonSkipped:
		if record.ExitCode == 0 {
			return sequence.Skipped
		}
	}
	switch {
	case record.ExitCode == 0:
		return sequence.Succeeded
	case p.afterFailure == contract.AfterFailureWait: // the kubelet restarts it
		return sequence.Running
	case contract.IsInterrupted(record.Reason):
		return sequence.Interrupted
	default:
		return sequence.Failed
	}
}

// claim returns what the record of a step that ended the sequence means for the next step.
func (p predecessor) claim(record contract.Record) verdict {
	number := strconv.Itoa(p.number)
	switch {
	case record.ExitCode == 0:
		return verdict{claim: "step " + number + " was skipped"}
	case record.Reason == contract.ReasonHaltMissing:
		return verdict{claim: record.Message, final: true}
	default:
		return verdict{claim: "step " + number + " failed with exit code " + strconv.Itoa(record.ExitCode)}
	}
}

// readRecord reads the record of step n. It takes what it finds for any user's work: a link, a FIFO or an endless file is no record.
func readRecord(runDir string, n int) (contract.Record, bool) {
	content, ok := read(filepath.Join(contract.StepDir(runDir, n), contract.RecordFile), unix.O_NOFOLLOW, maxRecord+1)
	if !ok || len(content) > maxRecord {
		return contract.Record{}, false
	}
	return contract.ParseRecord(string(content))
}

// publish makes the record that of step n, in one rename: whoever looks sees the whole of it, or none. It returns what is to be synced,
// later, since the next step need not wait for the disk. The next step waits for each of the calls below: package os would start Go's
// poller first, as in read.
func publish(runDir string, n int, record contract.Record) (unsynced, error) {
	dir := contract.StepDir(runDir, n)
	temp, path := filepath.Join(dir, ".record"), filepath.Join(dir, contract.RecordFile)
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	file, err := unix.Open(temp, flags, 0)
	if err == unix.EEXIST && unix.Unlink(temp) == nil { // of a container that was killed in here
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

// sync brings the record to the disk, so that a step which has ended is not run again after the node has crashed.
func (u unsynced) sync() {
	// A disk that can't do this has failed the step's data before; there is nobody to tell.
	_ = unix.Fsync(u.file)
	_ = unix.Close(u.file)
	if dir, err := unix.Open(u.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Fsync(dir)
		_ = unix.Close(dir)
	}
}
