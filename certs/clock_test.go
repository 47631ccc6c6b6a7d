package certs

import (
	"net/http"
	"testing"
	"time"
)

// TestClock proves that a Keeper has the API server's time from its last response, however wrong this machine's clock is, and that a small
// difference changes nothing.
func TestClock(t *testing.T) {
	keeper := New(Options{Lifetimes: DefaultLifetimes})
	var date string
	client := http.Client{Transport: keeper.Listen(answering(func(*http.Request) (*http.Response, error) {
		return &http.Response{Header: http.Header{"Date": {date}}, Body: http.NoBody}, nil
	}))}
	at := func(ahead time.Duration) string { return time.Now().Add(ahead).UTC().Format(http.TimeFormat) }
	for _, answer := range []struct {
		name, date string
		ahead      time.Duration
	}{
		{"the same time", at(0), 0},
		{"half a minute ago", at(-30 * time.Second), 0},
		{"three days ago", at(-3 * day), -3 * day},
		{"half a minute later", at(-3*day + 30*time.Second), -3 * day},
		{"no time", "", -3 * day},
		{"nonsense", "yesterday", -3 * day},
		{"in a year", at(365 * day), 365 * day},
		{"now", at(0), 0},
	} {
		date = answer.date
		response, err := client.Get("https://api-server")
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if off := keeper.clock.now().Sub(time.Now().Add(answer.ahead)).Abs(); off > 10*time.Second {
			t.Errorf("%s: the clock is off by %s", answer.name, off)
		}
	}
}

type answering func(*http.Request) (*http.Response, error)

func (a answering) RoundTrip(request *http.Request) (*http.Response, error) { return a(request) }
