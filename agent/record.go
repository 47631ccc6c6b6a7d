//go:build linux

package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// maxRecord is the maximum size of a record in bytes. The kubelet accepts 4096 bytes from a container, and cuts the messages of a Pod to
// 12 KiB divided by the number of its containers (see contract.ParseRecord). Records of this size are complete in a Pod of 24 containers. In
// one of 100 containers, the message is cut, and in the longest records the start time, too.
const maxRecord = 512

// writeTerminationMessage writes the record as the container's termination message, unless the command has written a message. The kubelet
// creates and mounts the file: a missing one is not created.
func writeTerminationMessage(path string, record contract.Record) error {
	// The user may have put a FIFO there, which would block without a reader.
	log, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > 0 {
		return err
	}
	_, err = log.WriteString(marshal(record))
	return err
}

// marshal returns the record in at most maxRecord bytes: with times in milliseconds, and with its message cut if necessary.
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
