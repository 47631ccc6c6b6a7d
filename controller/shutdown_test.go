package controller

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// TestRecorderEndsLast proves that an event which a controller tells while the operator ends is written: a manager stops the Recorder only when
// all controllers have returned.
func TestRecorderEndsLast(t *testing.T) {
	m, err := manager.New(&rest.Config{Host: "http://127.0.0.1:1"}, manager.Options{
		Metrics:        metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return meta.NewDefaultRESTMapper(nil), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &written{}
	recorder := NewRecorder(w, m.GetCache())
	ended := make(chan struct{})
	if err := m.Add(watched{recorder, ended}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	worker := func(ctx context.Context) error {
		stop()
		<-ctx.Done()
		select { // a Recorder that doesn't wait for the controllers ends now, as this one must not
		case <-ended:
		case <-time.After(200 * time.Millisecond):
		}
		record(recorder, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "example"}}, nil, event{kind: corev1.EventTypeNormal, reason: "Last"})
		return nil
	}
	if err := m.Add(manager.RunnableFunc(worker)); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if len(w.events) != 1 || w.events[0].Reason != "Last" {
		t.Errorf("the events are %v, and the last one is lost", w.events)
	}
}

// watched tells when the Recorder has ended.
type watched struct {
	*Recorder

	ended chan struct{}
}

func (w watched) Start(ctx context.Context) error {
	defer close(w.ended)
	return w.Recorder.Start(ctx)
}

// failing fails so often before it writes an event.
type failing struct {
	written

	failures int
	with     error
}

func (f *failing) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	if f.failures > 0 {
		f.failures--
		return f.with
	}
	return f.written.Create(ctx, object, options...)
}

// TestDroppedEvents proves that an event survives an API server that is away for a moment, and that each one that is lost is counted.
func TestDroppedEvents(t *testing.T) {
	count := func(reason string) float64 { return sums(t)["taskflow_events_dropped_total "+reason] }
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "example"}}
	tell := func(recorder *Recorder) {
		record(recorder, object, nil, event{kind: corev1.EventTypeNormal, reason: "Told"})
	}
	t.Run("one failure", func(t *testing.T) {
		f := &failing{failures: 1, with: errors.New("connection refused")}
		recorder := NewRecorder(f, nil)
		before := count(droppedWrite)
		recorder.write(t.Context(), &eventsv1.Event{})
		if len(f.events) != 1 || count(droppedWrite) != before {
			t.Errorf("%d events are written, and %v dropped", len(f.events), count(droppedWrite)-before)
		}
	})
	t.Run("too many failures", func(t *testing.T) {
		f := &failing{failures: eventBackoff.Steps, with: errors.New("connection refused")}
		recorder := NewRecorder(f, nil)
		before := count(droppedWrite)
		recorder.write(t.Context(), &eventsv1.Event{})
		if len(f.events) != 0 || count(droppedWrite) != before+1 {
			t.Errorf("%d events are written, and %v dropped", len(f.events), count(droppedWrite)-before)
		}
	})
	t.Run("a queue that is full", func(t *testing.T) {
		recorder := NewRecorder(&written{}, nil)
		before := count(droppedQueue)
		for range eventQueue + 2 {
			tell(recorder)
		}
		if got := count(droppedQueue) - before; got != 2 {
			t.Errorf("%v events are counted, want 2", got)
		}
	})
	t.Run("no time to write it", func(t *testing.T) {
		recorder := NewRecorder(&written{}, nil)
		tell(recorder)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		before := count(droppedShutdown)
		recorder.drain(over)
		if got := count(droppedShutdown) - before; got != 1 {
			t.Errorf("%v events are counted, want 1", got)
		}
	})
}
