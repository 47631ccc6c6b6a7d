package contract_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/contract"
)

// What the agent writes, the controllers read back whole.
func TestRecordRoundTrip(t *testing.T) {
	started := time.Date(2025, 3, 1, 12, 0, 0, 123000000, time.UTC)
	finished := started.Add(90 * time.Second)

	tests := map[string]contract.Record{
		"a command that ended well": {StartedAt: &started, FinishedAt: finished},
		"a command that failed":     {StartedAt: &started, FinishedAt: finished, ExitCode: 42},
		"a command that never ran": {
			FinishedAt: finished,
			ExitCode:   contract.ExitNotFound,
			Reason:     contract.ReasonStartError,
			Message:    `starting "nope": not found in PATH`,
		},
		"a message that JSON must escape": {
			FinishedAt: finished,
			Reason:     contract.ReasonSkipped,
			Message:    "quote \" backslash \\ line\nfeed <html> 日本 \u2028",
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := want.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got, ok := contract.ParseRecord(string(b))
			if !ok {
				t.Fatalf("ParseRecord(%s) is false", b)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseRecord(Marshal()): -want +got:\n%s", diff)
			}
		})
	}
}

// Records in Pods in flight have this form: a change of it would make the controllers blind to them.
func TestRecordForm(t *testing.T) {
	started := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	record := contract.Record{
		StartedAt:  &started,
		FinishedAt: started.Add(time.Second),
		ExitCode:   126,
		Reason:     contract.ReasonStartError,
		Message:    "m",
	}
	got, err := record.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"taskflow":{"finishedAt":"2025-03-01T12:00:01Z","exitCode":126,"reason":"StartError",` +
		`"startedAt":"2025-03-01T12:00:00Z","message":"m"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("Marshal: -want +got:\n%s", diff)
	}
}

// A command may leave any message; none may be taken for the agent's, or its text would be lost and
// its step given a wrong time and state.
func TestParseRecordRefusesWhatTheAgentDidNotWrite(t *testing.T) {
	tests := map[string]string{
		"nothing":                       "",
		"white space":                   " \n",
		"text":                          "could not connect",
		"a JSON string":                 `"taskflow"`,
		"a JSON number":                 "7",
		"JSON null":                     "null",
		"a JSON array":                  `[{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z"}}]`,
		"an empty JSON object":          "{}",
		"a JSON object of the user's":   `{"exitCode":0,"reason":"Skipped","finishedAt":"2025-03-01T12:00:00Z"}`,
		"our key with null":             `{"taskflow":null}`,
		"our key with text":             `{"taskflow":"failed"}`,
		"our key with an empty object":  `{"taskflow":{}}`,
		"our key with a user's object":  `{"taskflow":{"reason":"Skipped","files":3}}`,
		"a record that was cut early":   `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCo`,
		"a record with text behind":     `{"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}} done`,
		"a record with text in front":   `done {"taskflow":{"finishedAt":"2025-03-01T12:00:00Z","exitCode":0}}`,
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
				t.Errorf("record beside false: -want +got:\n%s", diff)
			}
		})
	}
}

// The kubelet leaves of a message what a Pod of so many containers may have. A record of a Pod of 100 steps keeps what decides the
// state of its step.
func TestParseRecordThatWasCut(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 0, 0, 123e6, time.UTC)
	whole := contract.Record{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError, StartedAt: &at, Retries: 3, Message: `a "message", of some length`}
	content, err := whole.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	message := string(content)
	const ofHundred = 12 * 1024 / 101
	cut := whole
	cut.Message = ""
	least := contract.Record{FinishedAt: at, ExitCode: 126, Reason: contract.ReasonStartError}
	for text, want := range map[string]contract.Record{
		message:                  whole,
		message[:len(message)-1]: cut,
		message[:len(message)-9]: cut,
		message[:ofHundred]:      least,
	} {
		got, ok := contract.ParseRecord(text)
		if diff := cmp.Diff(want, got); diff != "" || !ok {
			t.Errorf("ParseRecord(%q) is %t (-want +got):\n%s", text, ok, diff)
		}
	}
}

// A later release may add fields; today's controllers go on reading the rest.
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
