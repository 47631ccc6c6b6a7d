package entrypoint_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestResolveContext proves that a caller whose context ends gets the context's error at once, and that no further source is asked.
func TestResolveContext(t *testing.T) {
	cases := map[string]struct {
		// begin returns the context, and what to do once the mirror is asked; nil if it must not be asked.
		begin func(context.Context) (context.Context, func())
		want  error
	}{
		"cancelled before": {
			begin: func(parent context.Context) (context.Context, func()) {
				ctx, cancel := context.WithCancel(parent)
				cancel()
				return ctx, nil
			},
			want: context.Canceled,
		},
		"cancelled meanwhile": {
			begin: func(parent context.Context) (context.Context, func()) {
				return context.WithCancel(parent)
			},
			want: context.Canceled,
		},
		"deadline before": {
			begin: func(parent context.Context) (context.Context, func()) {
				ctx, cancel := context.WithTimeout(parent, -time.Second)
				cancel()
				return ctx, nil
			},
			want: context.DeadlineExceeded,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{}, 1)
			mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				hang(w, r)
			}))
			var originAsked atomic.Bool
			origin := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { originAsked.Store(true) }))
			resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{origin: {"http://" + mirror}}})
			ctx, whenAsked := c.begin(t.Context())

			result := make(chan error, 1)
			go func() {
				_, err := resolver.Resolve(ctx, entrypoint.Request{Image: origin + "/app:v1"})
				result <- err
			}()
			if whenAsked != nil {
				await(t, arrived, "the request to the mirror")
				whenAsked()
			}
			if err := await(t, result, "the end of Resolve"); !errors.Is(err, c.want) {
				t.Errorf("Resolve: %v, want %v", err, c.want)
			}
			if len(arrived) > 0 || originAsked.Load() {
				t.Errorf("the mirror was asked %d more times, the registry itself: %t; want neither", len(arrived), originAsked.Load())
			}
		})
	}
}

// TestResolveDeadline proves that a caller with less time than Options.Timeout still gets the cause, before its own deadline.
func TestResolveDeadline(t *testing.T) {
	t.Parallel()
	host := serve(t, http.HandlerFunc(hang))
	resolver := newResolver(t, entrypoint.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), entrypoint.MaxTimeout/2) // a tenth of it is left for the answer
	defer cancel()
	image := host + "/app:v1"
	_, err := resolver.Resolve(ctx, entrypoint.Request{Image: image})
	if diff := cmp.Diff(unresolved(image, host, unreachable), fmt.Sprint(err)); diff != "" {
		t.Errorf("Resolve (-want +got):\n%s", diff)
	}
	if ctx.Err() != nil {
		t.Error("the caller's own time is over")
	}
}

// TestResolveConcurrently proves, with the race detector, that one Resolver serves concurrent callers.
func TestResolveConcurrently(t *testing.T) {
	host := serve(t, newRegistry())
	push(t, host+"/app:v1", dockerImage(t, "linux/amd64", app))
	resolver := newResolver(t, entrypoint.Options{Mirrors: map[string][]string{host: {"http://" + deadHost}}, Timeout: metav1.Duration{Duration: entrypoint.MaxTimeout}})
	outcomes := make([]outcome, 16)
	var group sync.WaitGroup
	for i := range outcomes {
		group.Go(func() {
			command, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: host + "/app:v1"})
			outcomes[i] = outcome{Command: command, Sentence: fmt.Sprint(err)}
		})
	}
	group.Wait()
	for i, got := range outcomes {
		if diff := cmp.Diff(outcome{Command: appCommand, Sentence: "<nil>"}, got); diff != "" {
			t.Errorf("Resolve number %d (-want +got):\n%s", i, diff)
		}
	}
}
