package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestToTheEnd proves that a request is answered which is under way when the operator is told to end: the server cancels its
// context then.
func TestToTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	handler := toTheEnd(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		if err := r.Context().Err(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodPost, "/mutate-pods", nil))
	if recorder.Code != http.StatusOK {
		t.Errorf("the answer is %d: %s", recorder.Code, recorder.Body)
	}
}
