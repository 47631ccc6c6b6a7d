//go:build linux

package agent

import (
	"path/filepath"
	"strconv"

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

// predecessor is the step before a waiting step. The zero value means that there is none.
type predecessor struct {
	runDir       string
	number       int
	afterFailure string
}

// watches returns what changes when the record arrives: the step's directory and, until it exists, the directory around it. The kubelet makes
// a step's directory just before its container.
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
	if p.number > 0 {
		if record, ok := readRecord(p.runDir, p.number); ok {
			return record, p.state(record)
		}
	}
	return contract.Record{}, sequence.Waiting
}

// state returns what a record says about its step.
func (p predecessor) state(record contract.Record) sequence.State {
	switch record.Reason {
	case contract.ReasonStopped, contract.ReasonTerminated, contract.ReasonSignaled:
		// The Pod may be terminating, so the next step is about to be told, too. If the signal came from inside the container, the controller
		// decides.
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

// sync writes the record to the disk, so that a step that ended does not run again after a crash of the node.
func (u unsynced) sync() {
	// Errors are ignored: a disk that can't do this has lost the step's own data as well.
	_ = unix.Fsync(u.file)
	_ = unix.Close(u.file)
	if dir, err := unix.Open(u.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Fsync(dir)
		_ = unix.Close(dir)
	}
}
