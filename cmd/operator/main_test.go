package main

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
)

// TestDrained proves that a call is answered which is under way when the server is shut down, though the server cancels its context
// then, and that the API server is asked to close its connection once the operator is told to end, and not before.
func TestDrained(t *testing.T) {
	told, tell := context.WithCancel(t.Context())
	var shutDown func()
	server := httptest.NewServer(drained(told.Done(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	tell()
	call(true)
}

// TestOutlast proves that the operator goes on when it is told to end, and ends.
func TestOutlast(t *testing.T) {
	told, tell := context.WithCancel(t.Context())
	long, cancel := outlast(told, time.Hour)
	defer cancel()
	short, cancel := outlast(told, 0)
	defer cancel()
	tell()
	select {
	case <-short.Done():
	case <-time.After(10 * time.Second):
		t.Error("it doesn't end")
	}
	if long.Err() != nil {
		t.Error("it ends at once")
	}
}

// TestLogWith proves that what libraries log by other ways than ours comes out like everything else.
func TestLogWith(t *testing.T) {
	flags, output, before := log.Flags(), log.Writer(), slog.Default()
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetFlags(flags)
		log.SetOutput(output)
		klog.ClearLogger()
	})
	var lines []string
	logWith(funcr.NewJSON(func(line string) { lines = append(lines, line) }, funcr.Options{}))
	log.Print("http: TLS handshake error")
	klog.Info("from client-go")
	want := []string{
		`{"logger":"","level":0,"msg":"http: TLS handshake error"}`,
		`{"logger":"","level":0,"msg":"from client-go"}`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("what is logged (-want +got):\n%s", diff)
	}
}
