package main

import (
	"context"
	"net/http"
	"time"
)

// outlast returns a context that ends this much later than another one.
func outlast(other context.Context, delay time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(other))
	context.AfterFunc(other, func() { time.AfterFunc(delay, cancel) })
	return ctx, cancel
}

// drained answers every request while the operator ends. Otherwise requests would fail for two reasons. A server that is shut down cancels
// the contexts of its requests; the webhook has a deadline of its own, and the server waits for it. And the server may close an idle
// connection just when the API server reuses it. So as soon as the operator is terminating, each answer asks the API server to close the
// connection, and the next call goes to another replica.
func drained(terminating <-chan struct{}, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-terminating:
			w.Header().Set("Connection", "close")
		default:
		}
		handler.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
}
