package contract_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// A time in a record reads as package time writes it, and is parsed as package time parses it.
func TestTimes(t *testing.T) {
	t.Parallel()
	day := time.Date(1, 1, 1, 12, 0, 0, 0, time.UTC)
	times := []time.Time{time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 1e6, time.UTC)}
	for ; day.Year() < 10000; day = day.AddDate(0, 0, 1+rand.IntN(400)) {
		times = append(times, day.Add(time.Duration(rand.Int64N(int64(12*time.Hour)))), day.Truncate(time.Second))
	}
	for _, want := range times {
		text := contract.FormatTime(want.In(time.FixedZone("", 3600)))
		if diff := cmp.Diff(want.Format(time.RFC3339Nano), text); diff != "" {
			t.Fatalf("FormatTime: -want +got:\n%s", diff)
		}
		record, _ := contract.ParseRecord(contract.Record{FinishedAt: want}.Marshal())
		if diff := cmp.Diff(want, record.FinishedAt); diff != "" {
			t.Fatalf("ParseRecord: -want +got:\n%s", diff)
		}
	}
}

// A command can write anything into a record.
func TestInvalidTimes(t *testing.T) {
	t.Parallel()
	tests := map[string]bool{
		"2024-02-29T23:59:59Z":            true,
		"2024-02-29T23:59:59.123456789Z":  true,
		"2023-02-29T00:00:00Z":            false,
		"1900-02-29T00:00:00Z":            false,
		"2024-13-01T00:00:00Z":            false,
		"2024-00-01T00:00:00Z":            false,
		"2024-04-31T00:00:00Z":            false,
		"2024-04-00T00:00:00Z":            false,
		"2024-04-01T24:00:00Z":            false,
		"2024-04-01T00:60:00Z":            false,
		"2024-04-01T00:00:60Z":            false,
		"2024-04-01T00:00:00":             false,
		"2024-04-01T00:00:00.Z":           false,
		"2024-04-01T00:00:00.1234567890Z": false,
		"2024-04-01T00:00:00.-1Z":         false,
		"2024-04-01 00:00:00Z":            false,
		"2024-+4-01T00:00:00Z":            false,
		"20240-4-01T00:00:00Z":            false,
		"24-04-01T00:00:00Z":              false,
		"0001-01-01T00:00:00Z":            false, // no time
		"Z":                               false,
		"":                                false,
	}
	for text, want := range tests {
		_, got := contract.ParseRecord(`{"taskflow":{"finishedAt":"` + text + `","exitCode":0}}`)
		if got != want {
			t.Errorf("ParseRecord with the time %q is %v, want %v", text, got, want)
		}
	}
}
