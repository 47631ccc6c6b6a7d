package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// written stores the events that are created.
type written struct {
	client.Client
	mutex  sync.Mutex
	events []*eventsv1.Event
}

func (*written) Scheme() *runtime.Scheme { return clientgoscheme.Scheme }

func (w *written) Create(ctx context.Context, object client.Object, _ ...client.CreateOption) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	event := object.(*eventsv1.Event)
	if event.Reason == "Refused" {
		return apierrors.NewForbidden(eventsv1.Resource("events"), event.Name, errors.New("the namespace is being deleted"))
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.events = append(w.events, event)
	return nil
}

// TestRecorder proves that each event is written as an object of its own with a valid name, also if the operator is terminating or another
// event cannot be written.
func TestRecorder(t *testing.T) {
	w := &written{}
	recorder := NewRecorder(w, nil)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "example", UID: "pod"}}
	long := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: strings.Repeat("x", 253), UID: "long"}}
	record(recorder, pod, pod, event{kind: corev1.EventTypeNormal, reason: "StepStarted", action: "RunSteps", note: "100%", step: "a"})
	record(recorder, pod, pod, event{kind: corev1.EventTypeNormal, reason: "StepStarted", action: "RunSteps", note: "100%", step: "a"})
	record(recorder, pod, pod, event{kind: corev1.EventTypeNormal, reason: "Refused", action: "RunSteps"})
	record(recorder, long, long, event{kind: corev1.EventTypeWarning, reason: "Halted", action: "RunSteps"})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := recorder.Start(ctx); err != nil {
		t.Fatal(err)
	}

	var got []string
	names := map[string]bool{}
	for _, e := range w.events {
		related := ""
		if e.Related != nil {
			related = e.Related.FieldPath
		}
		got = append(got, fmt.Sprint(e.Namespace, " ", e.Regarding.Kind, " ", e.Regarding.UID, " ", e.Type, " ", e.Reason, " ", e.Action, " ", e.Note, " ", related, " ", e.ReportingController))
		names[e.Name] = true
		if len(e.Name) > 253 || e.EventTime.IsZero() || e.ReportingInstance == "" {
			t.Errorf("the API server refuses %+v", e)
		}
	}
	want := []string{
		"default Pod long Warning Halted RunSteps   taskflow",
		"default Pod pod Normal StepStarted RunSteps 100% spec.containers{a} taskflow",
		"default Pod pod Normal StepStarted RunSteps 100% spec.containers{a} taskflow",
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(got))); diff != "" {
		t.Errorf("the events (-want +got):\n%s", diff)
	}
	if len(names) != len(want) {
		t.Errorf("%d events have the names %v", len(want), names)
	}
}

// TestRecorderNeverWaits proves that a flood of events does not block, and that the queue is bounded.
func TestRecorderNeverWaits(t *testing.T) {
	recorder := NewRecorder(&written{}, nil) // never started
	for range eventQueue + 10 {
		record(recorder, &corev1.Pod{}, nil, event{kind: corev1.EventTypeNormal})
	}
	if got := len(recorder.queue); got > eventQueue {
		t.Errorf("%d events wait", got)
	}
}

// held blocks each write until the expected number of writes is in progress.
type held struct {
	client.Client
	want    int32
	writing atomic.Int32
	all     chan struct{} // closed then
}

func (*held) Scheme() *runtime.Scheme { return clientgoscheme.Scheme }

func (h *held) Create(ctx context.Context, _ client.Object, _ ...client.CreateOption) error {
	if h.writing.Add(1) == h.want {
		close(h.all)
	}
	select {
	case <-h.all:
		return nil
	case <-ctx.Done():
		h.writing.Add(-1)
		return ctx.Err()
	}
}

// TestRecorderWritesSideBySide proves that a slow API server does not delay the events of a hundred Tasks a second: as many writes are
// concurrent as calls of 20 ms require. Each waits for all others.
func TestRecorderWritesSideBySide(t *testing.T) {
	const eventsPerSecond, call = 800, 20 * time.Millisecond
	h := &held{want: int32(eventsPerSecond * call / time.Second), all: make(chan struct{})}
	recorder := NewRecorder(h, nil)
	for range h.want {
		record(recorder, &corev1.Pod{}, nil, event{kind: corev1.EventTypeNormal})
	}
	ctx, stop := context.WithCancel(t.Context())
	stop() // Start returns once all are written or dropped
	if err := recorder.Start(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.all:
	default:
		t.Errorf("%d events are never written concurrently", h.want)
	}
}
