//go:build linux

package agent

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// maxRecord is the maximum size of a record in bytes. The kubelet accepts 4096 bytes from a container, and cuts the messages of a Pod to
// 12 KiB divided by the number of its containers (see contract.ParseRecord). Records of this size are complete in a Pod of 24 containers. In
// one of 100 containers, the message is cut, and in the longest records the start time, too.
const maxRecord = 512

// maxMessage is the maximum size of the termination message in bytes. From a longer one, the kubelet takes the last 4096 bytes.
const maxMessage = 4095

// openTerminationLog opens the container's termination message before its command runs: afterwards, the path can lead to another file, or the file
// be read-only. The kubelet creates and mounts the file: a missing one is not created. It returns -1 for a file that can't have a message. The
// user may have put a FIFO there, which would block without a reader.
func openTerminationLog(path string) int {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	var info unix.Stat_t
	if unix.Fstat(fd, &info) != nil || info.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// writeTerminationMessage writes the record as the container's termination message, or none if the kubelet is to take the end of the log instead. If
// the command has written a message, that stays, unless the container's exit code alone would mislead the controllers: then the record has the
// text. A record there is not the agent's, so it never stays: the controllers would believe it. Best effort: the exit code counts.
func writeTerminationMessage(fd int, record contract.Record, takesLog bool) {
	message, isEmpty := terminationMessage(fd)
	isForged := contract.IsRecord(message)
	switch {
	case isEmpty:
	case isForged:
	case takesLog, record.CommandExitCode == nil && record.Reason != contract.ReasonFinished:
		return
	case record.Message == "":
		record.Message = strings.ToValidUTF8(message[:min(len(message), maxRecord)], "")
	}
	if !isEmpty && unix.Ftruncate(fd, 0) != nil || takesLog {
		return
	}
	_, _ = unix.Pwrite(fd, []byte(marshalWithOutputs(record)), 0)
}

// terminationMessage returns what the kubelet would take from the file: its end.
func terminationMessage(fd int) (message string, isEmpty bool) {
	var info unix.Stat_t
	if unix.Fstat(fd, &info) != nil || info.Size == 0 {
		return "", true
	}
	text := make([]byte, min(info.Size, maxMessage+1))
	n, err := unix.Pread(fd, text, info.Size-int64(len(text)))
	return string(text[:max(n, 0)]), err == nil && n == 0
}

// marshalWithOutputs returns the record in at most maxMessage bytes. The keys of the outputs have half of them. Outputs that don't fit are left out.
func marshalWithOutputs(record contract.Record) string {
	keys, values := record.OutputKeys, record.Outputs
	record.OutputKeys, record.Outputs = nil, map[string]string{}
	content := marshal(record)
	if len(keys) == 0 {
		return content
	}
	record, _ = contract.ParseRecord(content) // with its message cut
	record.Outputs = map[string]string{}
	size := len(content) + len(`,"outputKeys":[],"outputs":[]`)
	for _, key := range keys {
		if size += len(`"",`) + len(key); size > maxMessage/2 {
			break
		}
		record.OutputKeys = append(record.OutputKeys, key)
	}
	for _, key := range record.OutputKeys {
		if len(values[key]) > maxMessage {
			continue
		}
		record.Outputs[key] = values[key]
		if len(record.Marshal()) > maxMessage {
			delete(record.Outputs, key)
		}
	}
	return record.Marshal()
}

// marshal returns a record without outputs in at most maxRecord bytes: with times in milliseconds, and with its message cut if necessary.
func marshal(record contract.Record) string {
	if record.StartedAt != nil {
		record.StartedAt = new(short(*record.StartedAt))
	}
	record.FinishedAt = short(record.FinishedAt)

	content := record.Marshal()
	// The length in JSON depends on the characters to escape, so this loop shortens it step by step.
	text := record.Message
	for keep := min(len(text), maxRecord); len(content) > maxRecord && keep > 0; keep-- {
		record.Message = strings.ToValidUTF8(text[:keep], "") + "…"
		content = record.Marshal()
	}
	return content
}

func short(t time.Time) time.Time {
	return t.UTC().Truncate(time.Millisecond)
}
