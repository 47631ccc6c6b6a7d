package controller

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBoundEvents proves that a list of events is read up to a bound, and that a larger one is an error instead of a shorter list. A tenant who may
// create events can make the list of any size: 239 events with 224 MB killed the operator.
func TestBoundEvents(t *testing.T) {
	const events = "/apis/events.k8s.io/v1/namespaces/default/events"
	for name, c := range map[string]struct {
		path string
		size int
		want bool // an error
	}{
		"events":          {path: events, size: maxReportBytes - 1},
		"too many events": {path: events, size: maxReportBytes + 1, want: true},
		"something else":  {path: "/api/v1/namespaces/default/pods", size: 2 * maxReportBytes},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strings.Repeat("e", c.size))
			}))
			t.Cleanup(server.Close)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := BoundEvents(http.DefaultTransport).RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = response.Body.Close() })
			got, err := io.ReadAll(response.Body)
			if tooLarge, _ := errors.AsType[*http.MaxBytesError](err); (tooLarge != nil) != c.want {
				t.Errorf("the error is %v, want one: %t", err, c.want)
			}
			if want := min(c.size, maxReportBytes); c.want && len(got) != want {
				t.Errorf("%d bytes were read, want %d", len(got), want)
			}
		})
	}
}
