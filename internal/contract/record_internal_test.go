package contract

import (
	"testing"
	"time"
)

// FuzzTime proves that parseTime reads what package time writes, and nothing that package time reads otherwise.
func FuzzTime(f *testing.F) {
	for _, text := range []string{
		"2025-03-01T12:00:00Z", "2024-02-29T23:59:59.123456789Z", "2023-02-29T00:00:00Z", "1970-01-01T00:00:00.1Z", "2000-12-31T23:59:59.120Z", "1900-02-28T00:00:00Z",
		"2025-13-01T00:00:00Z", "2025-00-01T00:00:00Z", "2025-01-00T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:60:00Z", "2025-01-01T00:00:60Z", "0001-01-01T00:00:00Z",
		"2025-01-01T00:00:00+01:00", "2025-01-01T00:00:00.Z", "2025-01-01T00:00:00.1234567890Z", "2025-1-01T00:00:000Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z",
	} {
		f.Add(text, int64(1740830400), int64(123))
	}
	f.Fuzz(func(t *testing.T, text string, seconds, nanoseconds int64) {
		const year9999 = 253402300799
		at := time.Unix(seconds%year9999, nanoseconds%1e9).UTC()
		got := parseTime(quote(text))
		want, err := time.Parse(time.RFC3339, text)
		if got != nil && (err != nil || !got.Equal(want) || *got != want) {
			t.Errorf("parseTime(%q) is %v, want %v (%v)", text, got, want, err)
		}
		if again := parseTime(quote(at.Format(time.RFC3339Nano))); at.Year() > 0 && !at.IsZero() && (again == nil || *again != at) {
			t.Errorf("parseTime(%v) is %v", at, again)
		}
	})
}
