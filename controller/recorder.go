package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record/util"
	"k8s.io/client-go/tools/reference"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

const (
	// eventQueue bounds the events that wait to be written; each takes about a kilobyte. What is told beyond is lost.
	eventQueue = 10000
	// eventWriters write at the same time: of a hundred Tasks of three steps a second, 800 events, which keep sixteen of them busy where a
	// call takes 20 ms.
	eventWriters = 32
)

// Recorder writes events, each once, beside the work of the controllers. That of client-go keeps each event for six minutes and more, to
// tell repetitions; here nothing is told twice, and with a hundred Tasks a second that would be half a gigabyte.
type Recorder struct {
	client   client.Client
	queue    chan *eventsv1.Event
	instance string
}

var (
	_ events.EventRecorder = (*Recorder)(nil)
	_ manager.Runnable     = (*Recorder)(nil)
)

// NewRecorder returns one that writes as soon as it is started.
func NewRecorder(c client.Client) *Recorder {
	host, _ := os.Hostname() // it only says who it was
	return &Recorder{client: c, queue: make(chan *eventsv1.Event, eventQueue), instance: reporter + "-" + host}
}

// reporter is who tells the events.
const reporter = "taskflow"

// Eventf is of events.EventRecorder. It doesn't wait.
func (r *Recorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	event := &eventsv1.Event{
		EventTime:           metav1.NowMicro(),
		ReportingController: reporter,
		ReportingInstance:   r.instance,
		Type:                kind,
		Reason:              reason,
		Action:              action,
		Note:                fmt.Sprintf(note, args...),
	}
	about, err := reference.GetReference(r.client.Scheme(), regarding)
	if err != nil {
		return // of a kind that nobody knows
	}
	event.Regarding = *about
	if related != nil {
		if event.Related, err = reference.GetReference(r.client.Scheme(), related); err != nil {
			return
		}
	}
	event.Namespace = about.Namespace
	event.Name = util.GenerateEventName(about.Name, event.EventTime.UnixNano())
	select {
	case r.queue <- event:
	default:
		eventsDropped.WithLabelValues(droppedQueue).Inc()
	}
}

// Why an event is dropped, for the metric.
const (
	droppedQueue    = "QueueFull"
	droppedWrite    = "WriteFailed"
	droppedShutdown = "Shutdown"
)

var eventsDropped = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "taskflow_events_dropped_total",
	Help: "Events that were not written, by reason: QueueFull, WriteFailed or Shutdown.",
}, []string{"reason"})

// drainTimeout bounds how long the operator goes on for the events that wait when it ends.
const drainTimeout = 10 * time.Second

// afterControllers makes a manager stop a Recorder after the controllers, whose last events it would lose otherwise: a manager stops what has a
// cache when all controllers have returned.
type afterControllers struct {
	*Recorder

	cache cache.Cache
}

// GetCache returns the manager's own cache.
func (a afterControllers) GetCache() cache.Cache { return a.cache }

// Start writes events until the operator ends, and then those that wait.
func (r *Recorder) Start(ctx context.Context) error {
	var writers sync.WaitGroup
	for range eventWriters {
		writers.Go(func() {
			for {
				select {
				case event := <-r.queue:
					r.write(context.WithoutCancel(ctx), event)
				case <-ctx.Done():
					drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
					defer cancel()
					r.drain(drain)
					return
				}
			}
		})
	}
	writers.Wait()
	return nil
}

func (r *Recorder) drain(ctx context.Context) {
	for {
		select {
		case event := <-r.queue:
			if ctx.Err() != nil {
				eventsDropped.WithLabelValues(droppedShutdown).Inc()
				log.FromContext(ctx).Info("An event isn't written, because the operator ends", "regarding", event.Regarding.Name, "reason", event.Reason)
				continue
			}
			r.write(ctx, event)
		default:
			return
		}
	}
}

// eventTimeout is how long one event may take to be written.
const eventTimeout = 10 * time.Second

// An event is tried so often, after a pause that doubles.
const (
	eventTries = 4
	eventRetry = 100 * time.Millisecond
)

// isTransient reports whether another try may help: the API server, or the way to it, has failed.
func isTransient(err error) bool {
	var status apierrors.APIStatus
	if err == nil || !errors.As(err, &status) {
		return err != nil
	}
	return status.Status().Code >= http.StatusInternalServerError || apierrors.IsTooManyRequests(err)
}

func (r *Recorder) write(ctx context.Context, event *eventsv1.Event) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	err := r.client.Create(ctx, event)
	for try := 1; try < eventTries && isTransient(err); try++ {
		select {
		case <-ctx.Done():
		case <-time.After(eventRetry << (try - 1)):
		}
		if again := r.client.Create(ctx, event); !apierrors.IsAlreadyExists(again) { // else it was written, and the answer was lost
			err = again
		} else {
			err = nil
		}
	}
	if err != nil { // such as in a namespace that is being deleted
		eventsDropped.WithLabelValues(droppedWrite).Inc()
		log.FromContext(ctx).V(1).Info("Can't write an event", "regarding", event.Regarding.Name, "reason", event.Reason, "why", err.Error())
	}
}
