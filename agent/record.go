//go:build linux

package agent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// maxRecord is the size of a record in bytes. The kubelet takes 4096 from one container, and cuts the
// messages of a Pod to 12 KiB divided by the number of its containers (contract.ParseRecord). This fits a
// Pod of 24 containers; in one of 100, what is cut is the message, and of the longest records the start.
const maxRecord = 512

// leave writes the record as the container's termination message, unless the command wrote one. The
// kubelet has made and mounted the file: one that is missing is not created.
func leave(path string, record contract.Record) error {
	// Non-blocking, for what a user may have put there: a FIFO has nobody who reads it.
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

// marshal returns the record in at most maxRecord bytes: times in milliseconds, and the message cut
// where it is too long.
func marshal(record contract.Record) string {
	if record.StartedAt != nil {
		startedAt := short(*record.StartedAt)
		record.StartedAt = &startedAt
	}
	record.FinishedAt = short(record.FinishedAt)

	content := record.Marshal()
	// How long a text is in JSON depends on what must be escaped, so this tries.
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
