package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// guarded is a metricsGuard with a fake clock and a fake API server.
type guarded struct {
	handler http.Handler
	clock   atomic.Int64 // seconds
	asked   atomic.Int32
	// stuck, if set, delays the API server's reviews of tokens that were not good before.
	stuck atomic.Pointer[chan struct{}]
}

func newGuarded() *guarded {
	g := &guarded{}
	review := func(ctx context.Context, token string, _ *http.Request) (verdict, error) {
		g.asked.Add(1)
		switch {
		case token == "broken":
			return verdict{}, errors.New("the API server is away")
		case strings.HasPrefix(token, "good"):
			return verdict{code: http.StatusOK}, ctx.Err()
		case token == "forbidden":
			return verdict{code: http.StatusForbidden, message: "Forbidden"}, nil
		}
		return verdict{code: http.StatusUnauthorized, message: "Unauthorized"}, nil
	}
	unknown := func(ctx context.Context, token string, r *http.Request) (verdict, error) {
		if stuck := g.stuck.Load(); stuck != nil {
			select {
			case <-*stuck:
			case <-ctx.Done():
				return verdict{}, ctx.Err()
			}
		}
		return review(ctx, token, r)
	}
	guard := guardWith(unknown, review, logr.Discard())
	guard.now = func() time.Time { return time.Unix(g.clock.Load(), 0) }
	g.handler = guard.protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	return g
}

func (g *guarded) get(ctx context.Context, address, authorization string) int {
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	request.RemoteAddr = address + ":1"
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	answer := httptest.NewRecorder()
	g.handler.ServeHTTP(answer, request)
	return answer.Code
}

// TestMetricsGuard proves who gets the metrics, and how often the API server is asked: again after a minute for a good token, after ten
// seconds for a bad one, and never without a token.
func TestMetricsGuard(t *testing.T) {
	g := newGuarded()
	for _, step := range []struct {
		after         int64 // seconds
		authorization string
		code          int
		asked         int32 // so far
	}{
		{0, "", http.StatusUnauthorized, 0},
		{0, "Basic x", http.StatusUnauthorized, 0},
		{0, "Bearer ", http.StatusUnauthorized, 0},
		{0, "Bearer " + strings.Repeat("x", maxToken+1), http.StatusUnauthorized, 0},
		{0, "Bearer good", http.StatusOK, 1},
		{59, "Bearer good", http.StatusOK, 1},
		{60, "Bearer good", http.StatusOK, 2},
		{60, "Bearer wrong", http.StatusUnauthorized, 3},
		{69, "Bearer wrong", http.StatusUnauthorized, 3},
		{70, "Bearer wrong", http.StatusUnauthorized, 4},
		{70, "Bearer forbidden", http.StatusForbidden, 5},
		{70, "Bearer broken", http.StatusInternalServerError, 6},
		{70, "Bearer broken", http.StatusInternalServerError, 7},
	} {
		g.clock.Store(step.after)
		code := g.get(t.Context(), "10.0.0.1", step.authorization)
		if diff := cmp.Diff([]int32{int32(step.code), step.asked}, []int32{int32(code), g.asked.Load()}); diff != "" {
			t.Errorf("%.30s after %d s: code, and questions to the API server (-want +got):\n%s", step.authorization, step.after, diff)
		}
	}
}

// TestBadTokensDelayNoOthers proves that a flood of bad tokens does not delay a client whose token was good before, although the API server
// is slow to review them. A client with a new token gets its turn before the rest of the flood.
func TestBadTokensDelayNoOthers(t *testing.T) {
	g := newGuarded()
	if code := g.get(t.Context(), "10.0.0.1", "Bearer good"); code != http.StatusOK {
		t.Fatalf("the answer is %d", code)
	}
	stuck := make(chan struct{})
	g.stuck.Store(&stuck)
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var waiting atomic.Int32
	for i := range 300 {
		flood.Go(func() {
			waiting.Add(1)
			g.get(ctx, fmt.Sprintf("10.0.1.%d", i%10), fmt.Sprintf("Bearer wrong%d", i))
		})
	}
	wait.For(t, "the flood", func(context.Context) error {
		if waiting.Load() < 300 {
			return errors.New("it isn't there yet")
		}
		return nil
	})
	for _, after := range []int64{1, 61, 3000, 4000} {
		g.clock.Store(after)
		if code := g.get(t.Context(), "10.0.0.1", "Bearer good"); code != http.StatusOK {
			t.Errorf("after %d s the answer to the good token is %d", after, code)
		}
	}

	newcomer := make(chan int)
	go func() { newcomer <- g.get(t.Context(), "10.0.0.2", "Bearer good, and new") }()
	ticker := time.NewTicker(10 * time.Millisecond) // the API server answers one at a time
	defer ticker.Stop()
	answers, answered := 0, false
	for !answered {
		select {
		case code := <-newcomer:
			answered = true
			if code != http.StatusOK {
				t.Errorf("the answer to the newcomer is %d", code)
			}
		case <-ticker.C:
			stuck <- struct{}{}
			answers++
		}
	}
	if most := 5 * reviewsAtOnce; answers > most { // it would be 300 without turns
		t.Errorf("the newcomer waited for %d answers to others, want %d at most", answers, most)
	}
	cancel()
	flood.Wait()
}
