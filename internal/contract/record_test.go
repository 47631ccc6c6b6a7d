package contract_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The controllers parse exactly what the agent wrote.
func TestRecordRoundTrip(t *testing.T) {
	started := time.Date(2025, 3, 1, 12, 0, 0, 123000000, time.UTC)
	finished := started.Add(90 * time.Second)

	tests := map[string]contract.Record{
		"a command that succeeded": {StartedAt: &started, FinishedAt: finished},
		"a command that failed":    {StartedAt: &started, FinishedAt: finished, ExitCode: 42},
		"a command that never ran": {
			FinishedAt: finished,
			ExitCode:   contract.ExitNotFound,
			Reason:     contract.ReasonStartError,
			Message:    `starting "nope": not found in PATH`,
		},
		"a rule for its exit code": {StartedAt: &started, FinishedAt: finished, CommandExitCode: new(78), Reason: contract.ReasonFinished},
		"a failure that passes":    {StartedAt: &started, FinishedAt: finished, ExitCode: 3, Passes: true},
		"onError: Continue":        {StartedAt: &started, FinishedAt: finished, CommandExitCode: new(3), Passes: true, Reason: contract.ReasonTimedOut},
		"a rule for 0":             {StartedAt: &started, FinishedAt: finished, ExitCode: 1, CommandExitCode: new(0)},
		"outputs": {
			StartedAt: &started, FinishedAt: finished, Message: "m", OutputKeys: []string{"B", "A", "CUT", "EMPTY"},
			Outputs: map[string]string{"A": "x=1,\"y\"", "B": "日\n本", "EMPTY": ""},
		},
		"only keys of outputs": {FinishedAt: finished, OutputKeys: []string{"A"}},
		"a message that JSON must escape": {
			FinishedAt: finished,
			Reason:     contract.ReasonSkipped,
			Message:    "quote \" backslash \\ line\nfeed <html> 日本 \u2028",
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := contract.ParseRecord(want.Marshal())
			if !ok {
				t.Fatalf("ParseRecord(%s) is false", want.Marshal())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseRecord(Marshal()): -want +got:\n%s", diff)
			}
		})
	}
}

// Pods in flight have records in this form: the controllers could not read them after a change.
func TestRecordForm(t *testing.T) {
	started := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	record := contract.Record{
		StartedAt:  &started,
		FinishedAt: started.Add(time.Second),
		ExitCode:   126,
		Reason:     contract.ReasonStartError,
		Message:    "m",
	}
	want := `{"taskflow":{"finishedAt":"2025-03-01T12:00:01Z","exitCode":126,"reason":"StartError",` +
		`"startedAt":"2025-03-01T12:00:00Z","message":"m"}}`
	if diff := cmp.Diff(want, record.Marshal()); diff != "" {
		t.Errorf("Marshal: -want +got:\n%s", diff)
	}
}

// The form of the fields that later releases added. An agent of the first release leaves them out.
func TestRecordFormOfLaterFields(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	record := contract.Record{
		FinishedAt: at, CommandExitCode: new(3), Passes: true, Reason: contract.ReasonTimedOut, StartedAt: &at, Retries: 1, Message: "m",
		OutputKeys: []string{"b", "a"}, Outputs: map[string]string{"a": "1", "b": "2=3"},
	}
	want := `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0,"commandExitCode":3,"passes":true,"reason":"TimedOut",` +
		`"startedAt":"2025-03-01T12:00:00Z","retries":1,"message":"m","outputKeys":["b","a"],"outputs":["b=2=3","a=1"]}}`
	if diff := cmp.Diff(want, record.Marshal()); diff != "" {
		t.Errorf("Marshal: -want +got:\n%s", diff)
	}
	if code := record.Code(); code != 3 {
		t.Errorf("Code is %d, want the command's, 3", code)
	}
	if code := (contract.Record{ExitCode: 4}).Code(); code != 4 {
		t.Errorf("Code is %d, want the container's, 4", code)
	}
}

// Of a record that was cut, the outputs that are whole are read, and the keys of the others if they are whole.
func TestParseOutputsThatWereCut(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	whole := contract.Record{FinishedAt: at, OutputKeys: []string{"A", "B", "C"}, Outputs: map[string]string{"A": "1", "B": "a, [\"b\"]", "C": "3"}}
	message := whole.Marshal()
	seen := map[int]bool{}
	for n := range len(message) + 1 {
		got, ok := contract.ParseRecord(message[:n])
		if !ok {
			continue
		}
		for key, value := range got.Outputs {
			if value != whole.Outputs[key] || len(got.OutputKeys) != len(whole.OutputKeys) {
				t.Fatalf("ParseRecord(%q) has %s=%q and the keys %q", message[:n], key, value, got.OutputKeys)
			}
		}
		seen[len(got.Outputs)] = true
	}
	if len(seen) != len(whole.Outputs)+1 {
		t.Errorf("the numbers of outputs are %v, want each from 0 to %d", seen, len(whole.Outputs))
	}
}

// standard is a record for encoding/json, which agents of earlier releases used.
type standard struct {
	Taskflow standardFields `json:"taskflow"`
}

type standardFields struct {
	FinishedAt time.Time  `json:"finishedAt"`
	ExitCode   int        `json:"exitCode"`
	Reason     string     `json:"reason,omitempty"`
	StartedAt  *time.Time `json:"startedAt,omitempty"`
	Retries    int        `json:"retries,omitempty"`
	Message    string     `json:"message,omitempty"`
}

// FuzzRecord proves that encoding/json reads what Marshal writes, and that ParseRecord reads what either writes, also with a newline at
// the end. Any text may be in the record.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		"", "plain", `quote " backslash \ slash /`, "tick ' grave `", "line\nfeed\ttab\rreturn", "\x00\a\b\f\v\x1b\x1f\x7f\u0080\u009f", "<html> & more",
		"日本 😀 é", "\u2028 \u2029 \ufeff \ufffd \U0010ffff", "\xff", "x\xff\xfe\xe6\x97", "\xed\xa0\x80", `\u0041 \ud83d \x41`, "$(A) $$ %s", `"}}`, `,"exitCode":1`, "[{,}]",
	} {
		f.Add(uint32(1740830400), 123, 126, true, 3, "StartError", text)
		f.Add(uint32(0), 0, -1, false, 0, text, "")
	}
	f.Fuzz(func(t *testing.T, seconds uint32, nanoseconds, exitCode int, ran bool, retries int, reason, message string) {
		at := time.Unix(int64(seconds), int64(nanoseconds%1e9)).UTC()
		record := contract.Record{FinishedAt: at, ExitCode: exitCode, Reason: reason, Retries: retries, Message: message}
		if ran {
			record.StartedAt = &at
		}
		content, err := json.Marshal(standard{standardFields{record.FinishedAt, record.ExitCode, record.Reason, record.StartedAt, record.Retries, record.Message}})
		if err != nil {
			t.Fatal(err)
		}
		var want, got standard
		if err := json.Unmarshal(content, &want); err != nil { // it replaces invalid UTF-8 by U+FFFD
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(record.Marshal()), &got); err != nil {
			t.Fatalf("Marshal writes no JSON: %v\n%s", err, record.Marshal())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("encoding/json reads (-want +got):\n%s", diff)
		}
		for _, message := range []string{record.Marshal(), string(content), record.Marshal() + "\n"} {
			got, ok := contract.ParseRecord(message)
			fields := standardFields{got.FinishedAt, got.ExitCode, got.Reason, got.StartedAt, got.Retries, got.Message}
			if diff := cmp.Diff(want.Taskflow, fields); diff != "" || !ok {
				t.Errorf("ParseRecord(%s) is %t (-want +got):\n%s", message, ok, diff)
			}
		}
	})
}

// A command may leave any termination message. If one were taken for a record, its text would be lost, and the step would have a wrong
// time and state.
func TestParseRecordRejectsOtherMessages(t *testing.T) {
	tests := map[string]string{
		"nothing":                       "",
		"white space":                   " \n",
		"text":                          "could not connect",
		"a JSON string":                 `"taskflow"`,
		"a JSON number":                 "7",
		"JSON null":                     "null",
		"a JSON array":                  `[{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z"}}]`,
		"an empty JSON object":          "{}",
		"a JSON object of the command":  `{"exitCode":0,"reason":"Skipped","finishedAt":"2025-03-01T12:00:00Z"}`,
		"our key with null":             `{"taskflow":null}`,
		"our key with text":             `{"taskflow":"failed"}`,
		"our key with an empty object":  `{"taskflow":{}}`,
		"our key with another object":   `{"taskflow":{"reason":"Skipped","files":3}}`,
		"a record that was cut early":   `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCo`,
		"a record with text after it":   `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}} done`,
		"a record with text before it":  `done {"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}}`,
		"a record with a wrong time":    `{"taskflow":{"finishedAt":"yesterday","exitCode":0}}`,
		"a record with a wrong number":  `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":"0"}}`,
		"garbage that is not even text": "\x00\xff{",
	}
	for name, message := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := contract.ParseRecord(message)
			if ok {
				t.Errorf("ParseRecord(%q) = %+v, want false", message, got)
			}
			if diff := cmp.Diff(contract.Record{}, got); diff != "" {
				t.Errorf("record returned with false: -want +got:\n%s", diff)
			}
		})
	}
}

// The kubelet cuts messages to a length that depends on the number of containers. Even in a Pod of 100 steps, a record keeps the fields
// that determine the state of its step.
func TestParseRecordThatWasCut(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 0, 0, 123e6, time.UTC)
	whole := contract.Record{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError, StartedAt: &at, Retries: 3, Message: `a "message", of some length`}
	message := whole.Marshal()
	stages := []contract.Record{
		{},
		{FinishedAt: at, ExitCode: 126},
		{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError},
		{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError, StartedAt: &at},
		{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError, StartedAt: &at, Retries: 3},
		whole,
	}
	stage := 0
	for n := range len(message) + 1 {
		got, ok := contract.ParseRecord(message[:n])
		if stage+1 < len(stages) && cmp.Equal(stages[stage+1], got) {
			stage++
		}
		if diff := cmp.Diff(stages[stage], got); diff != "" || ok != (stage > 0) {
			t.Errorf("ParseRecord(%q) is %t (-want +got):\n%s", message[:n], ok, diff)
		}
		const ofHundred = 12 * 1024 / 101
		if n == ofHundred && stage < 2 {
			t.Errorf("a Pod of 100 steps keeps only %+v", got)
		}
	}
	if stage != len(stages)-1 {
		t.Errorf("the complete record is parsed as %+v", stages[stage])
	}
}

// A later release may add fields: today's controllers still read the others.
func TestParseRecordAcceptsFieldsOfLaterReleases(t *testing.T) {
	got, ok := contract.ParseRecord(`{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":3,"node":"a"},"more":1}`)
	if !ok {
		t.Fatal("ParseRecord is false")
	}
	want := contract.Record{FinishedAt: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC), ExitCode: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseRecord: -want +got:\n%s", diff)
	}
}
