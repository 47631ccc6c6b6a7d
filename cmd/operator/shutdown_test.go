package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestDrained proves that a request in progress is answered when the server is shut down, although the server cancels its context. It also
// proves that the API server is asked to close its connection as soon as the operator is terminating, and not before.
func TestDrained(t *testing.T) {
	terminating, terminate := context.WithCancel(t.Context())
	var shutDown func()
	server := httptest.NewServer(drained(terminating.Done(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shutDown()
		if err := r.Context().Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	handler := server.Config.Handler
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r.WithContext(ctx)) })

	call := func(wantClosed bool) {
		t.Helper()
		response, err := server.Client().Post(server.URL+"/mutate-pods", "application/json", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK || response.Close != wantClosed {
			t.Errorf("the answer is %s, and closes the connection: %t; want 200 and %t", response.Status, response.Close, wantClosed)
		}
	}
	shutDown = func() {}
	call(false)
	shutDown = cancel
	terminate()
	call(true)
}

// TestOutlast proves that the context ends, and only after the delay.
func TestOutlast(t *testing.T) {
	terminating, terminate := context.WithCancel(t.Context())
	long, cancel := outlast(terminating, time.Hour)
	defer cancel()
	short, cancel := outlast(terminating, 0)
	defer cancel()
	terminate()
	select {
	case <-short.Done():
	case <-time.After(10 * time.Second):
		t.Error("it doesn't end")
	}
	if long.Err() != nil {
		t.Error("it ends at once")
	}
}
