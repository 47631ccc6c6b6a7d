//go:build linux

package agent

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/contract"
)

// The run directory hands a step over to the next one within the Pod, in a fraction of the second that the way through the API
// server takes. Each step has a directory there that it alone may write to, and others only read: so no step can make up the
// end of another.
//
// What a step can make up is its own end. Its command runs as the same user as its agent and sees the same mounts, so nothing
// in the container is the agent's alone: a command that writes a record releases the next step before it has ended itself. That
// is no more than it could have by ending early, and reaches nobody but its own Pod's author; the Pod's status, which is the
// API's truth, shows how its container has really ended. Where a Pod's containers share their processes (shareProcessNamespace) or
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

// read looks whether the step has ended, so that the next one may run, or why none may. Neither means: not yet. A step whose
// record can't be read is one without: the order will tell. So it is with one that was told to stop: whoever stops it is about to stop
// the next one, or, where it was somebody in the container, the order will follow.
func (p predecessor) read() (halt string, ended bool) {
	if p.number == 0 {
		return "", false
	}
	record, ok := readRecord(p.runDir, p.number)
	if !ok {
		return "", false
	}
	return p.judge(record)
}

// judge says what the record means for the next step, as read does.
func (p predecessor) judge(record contract.Record) (halt string, ended bool) {
	failed := record.ExitCode != 0
	switch {
	case record.Reason == contract.ReasonStopped:
		return "", false
	case record.Reason == contract.ReasonSkipped && !failed:
		return record.Message, false // the reason of the step that was the first to end so
	case !failed:
		return "", true
	case p.afterFailure == contract.AfterFailureWait:
		return "", false
	case p.afterFailure == contract.AfterFailureContinue && !contract.WasStopped(record.Reason):
		return "", true
	}
	return "step " + strconv.Itoa(p.number) + " failed with exit code " + strconv.Itoa(record.ExitCode), false
}

// readRecord reads the record of step n. It takes what it finds for any user's work: a link, a FIFO or an endless file is no record.
func readRecord(runDir string, n int) (contract.Record, bool) {
	content, ok := read(filepath.Join(contract.StepDir(runDir, n), contract.RecordFile), unix.O_NOFOLLOW, maxRecord+1)
	if !ok || len(content) > maxRecord {
		return contract.Record{}, false
	}
	return contract.ParseRecord(string(content))
}

// publish makes the record that of step n, in one rename: whoever looks sees the whole of it, or none. The file it returns is to
// be synced, later, since the next step need not wait for the disk.
func publish(runDir string, n int, record contract.Record) (*os.File, error) {
	dir := contract.StepDir(runDir, n)
	temp, err := os.CreateTemp(dir, ".record-*")
	if err != nil {
		return nil, err
	}
	_, err = temp.WriteString(marshal(record))
	if err == nil {
		const readable = 0o444 // the next step may be another user's
		err = temp.Chmod(readable)
	}
	if err == nil {
		err = os.Rename(temp.Name(), filepath.Join(dir, contract.RecordFile))
	}
	if err != nil {
		_ = temp.Close()
		_ = os.Remove(temp.Name())
		return nil, err
	}
	return temp, nil
}

// syncRecord brings a published record to the disk, so that a step which has ended is not run again after the node has crashed.
func syncRecord(file *os.File) {
	// A disk that can't do this has failed the step's data before; there is nobody to tell.
	_ = file.Sync()
	_ = file.Close()
	if dir, err := os.Open(filepath.Dir(file.Name())); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
