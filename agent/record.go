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

// maxMessage is the maximum size of the termination message in bytes. From a longer one, the kubelet takes the last 4096 bytes.
const maxMessage = 4095

// writeTerminationMessage writes the record as the container's termination message. If the command has written a message, that stays, unless the
// container's exit code alone would mislead the controllers: then the record has the text. The kubelet creates and mounts the file: a missing one is
// not created.
func writeTerminationMessage(path string, record contract.Record) error {
	// The user may have put a FIFO there, which would block without a reader.
	log, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	if info.Size() > 0 {
		if record.CommandExitCode == nil && record.Reason != contract.ReasonFinished {
			return nil
		}
		if record.Message == "" {
			text := make([]byte, maxRecord)
			n, _ := log.ReadAt(text, 0)
			record.Message = strings.ToValidUTF8(string(text[:n]), "")
		}
		if err := log.Truncate(0); err != nil {
			return err
		}
	}
	_, err = log.WriteAt([]byte(marshalWithOutputs(record)), 0)
	return err
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
