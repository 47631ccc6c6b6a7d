package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record/util"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

const (
	// eventQueue bounds the events that wait to be written, about 1 kB each. Further events are dropped and counted.
	eventQueue = 10000
	// eventWriters write concurrently. A hundred Tasks of three steps a second cause 800 events, which keep sixteen writers busy if a call
	// takes 20 ms. With four, a write of 200 ms delayed the events of 1,000 Tasks by more than three minutes (docs/benchmarks.md).
	eventWriters = 32
)

// Recorder writes each event once, without delaying the controllers.
//
// client-go's recorder is not enough: to recognise repetitions, it keeps each event, 1.7 kB, for 6 to 12 minutes. In the benchmark of a
// hundred Tasks a second (docs/benchmarks.md) that was half of the heap, without bound, and no event here repeats. It also drops events
// without counting them.
type Recorder struct {
	client   client.Client
	cache    cache.Cache
	queue    chan *eventsv1.Event
	instance string
}

var (
	_ events.EventRecorder = (*Recorder)(nil)
	_ manager.Runnable     = (*Recorder)(nil)
)

// NewRecorder returns a Recorder, which writes once it is started. The cache is the manager's.
func NewRecorder(c client.Client, controllers cache.Cache) *Recorder {
	host, _ := os.Hostname() // only informative
	return &Recorder{client: c, cache: controllers, queue: make(chan *eventsv1.Event, eventQueue), instance: reporter + "-" + host}
}

// reporter is the reporting controller of the events.
const reporter = "taskflow"

// Eventf implements events.EventRecorder. It never blocks.
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
	if err == nil && related != nil {
		event.Related, err = reference.GetReference(r.client.Scheme(), related)
	}
	if err != nil { // the scheme lacks the kind
		eventsDropped.WithLabelValues(droppedWrite).Inc()
		return
	}
	event.Regarding, event.Namespace = *about, about.Namespace
	event.Name = util.GenerateEventName(about.Name, event.EventTime.UnixNano())
	select {
	case r.queue <- event:
	default:
		eventsDropped.WithLabelValues(droppedQueue).Inc()
	}
}

// The reasons of a dropped event, for the metric.
const (
	droppedQueue    = "QueueFull"
	droppedWrite    = "WriteFailed"
	droppedShutdown = "Shutdown"
)

// drainTimeout bounds how long a terminating operator writes waiting events.
const drainTimeout = 10 * time.Second

// GetCache makes a manager stop the Recorder after the controllers, so that their last events are written: a manager stops runnables with a
// cache last.
func (r *Recorder) GetCache() cache.Cache { return r.cache }

// Start writes events until ctx ends, and then those that wait.
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
				log.FromContext(ctx).Info("Dropped an event because the operator is terminating", "regarding", event.Regarding.Name, "reason", event.Reason)
				continue
			}
			r.write(ctx, event)
		default:
			return
		}
	}
}

// eventTimeout bounds the time for one event, retries included.
const eventTimeout = 10 * time.Second

// eventBackoff has the tries of one event, and the pause before the second one.
var eventBackoff = wait.Backoff{Steps: 4, Duration: 100 * time.Millisecond, Factor: 2}

// isTransient reports whether a retry may help, because the API server or the connection failed.
func isTransient(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= http.StatusInternalServerError || apierrors.IsTooManyRequests(err)
}

func (r *Recorder) write(ctx context.Context, event *eventsv1.Event) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	err := retry.OnError(eventBackoff, isTransient, func() error {
		return client.IgnoreAlreadyExists(r.client.Create(ctx, event)) // an earlier try wrote it, whose response was lost
	})
	if err != nil { // such as in a namespace that is being deleted
		eventsDropped.WithLabelValues(droppedWrite).Inc()
		log.FromContext(ctx).V(1).Info("Cannot write an event", "regarding", event.Regarding.Name, "reason", event.Reason, "why", err.Error())
	}
}
