package controller

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record/util"
	"k8s.io/client-go/tools/reference"
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
	}
}

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
					r.drain(context.WithoutCancel(ctx))
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
			r.write(ctx, event)
		default:
			return
		}
	}
}

// eventTimeout is how long one event may take to be written.
const eventTimeout = 10 * time.Second

func (r *Recorder) write(ctx context.Context, event *eventsv1.Event) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	if err := r.client.Create(ctx, event); err != nil { // such as in a namespace that is being deleted
		log.FromContext(ctx).V(1).Info("Can't write an event", "regarding", event.Regarding.Name, "reason", event.Reason, "why", err.Error())
	}
}
