package controller

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=list

const (
	// reportInterval is the time between two reads of events, of all Pods together. The API server searches all events of the namespace.
	reportInterval = 200 * time.Millisecond
	// reportTimeout bounds one read of events, for which a worker waits.
	reportTimeout = 2 * time.Second
	// reportPause is how long no events of a namespace are read after a read of them has failed: whoever may create events there can make
	// each read slow, or too large.
	reportPause = time.Minute
	// maxReports is how many events of one Pod are read. A Pod that can't start has about ten.
	maxReports = 100
	// maxReportBytes bounds what is read of them. An event may have 1.5 MB, and its author need not be the kubelet.
	maxReportBytes = 1 << 20
)

// startReports reads what events say about Pods that have been starting for long, and keeps it until the next read. Each Pod is read at most
// once in startCheck, and all Pods together at most once in reportInterval. The zero value is ready to use.
type startReports struct {
	mutex sync.Mutex
	next  time.Time
	known map[types.NamespacedName]podReports
	// paused holds the namespaces whose events can't be read, and until when they are left alone.
	paused map[string]time.Time
}

// podReports are the reports about one Pod.
type podReports struct {
	uid     types.UID
	at      time.Time
	reports []startReport
}

// of returns the reports about a Pod; nil if they can't be read now. The key is the Task's.
func (s *startReports) of(ctx context.Context, live client.Reader, key types.NamespacedName, pod *corev1.Pod, now time.Time) []startReport {
	reports, isDue := s.begin(key, pod.UID, now)
	if !isDue {
		return reports
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	var list eventsv1.EventList
	about := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("regarding.uid", string(pod.UID))}
	if err := live.List(ctx, &list, client.InNamespace(pod.Namespace), about, client.Limit(maxReports)); err != nil {
		log.FromContext(ctx).V(1).Info("Can't read the events of a Pod", "pod", pod.Name, "why", err.Error())
		s.pause(pod.Namespace, now)
		return reports
	}
	reports = parseReports(list.Items)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.known[key] = podReports{uid: pod.UID, at: now, reports: reports}
	return reports
}

// begin returns the reports that are known, and whether to read them again. A read that is due takes its place in time.
func (s *startReports) begin(key types.NamespacedName, uid types.UID, now time.Time) (reports []startReport, isDue bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	known, ok := s.known[key]
	if ok && known.uid != uid {
		known, ok = podReports{}, false
	}
	if ok && now.Sub(known.at) < startCheck || now.Before(s.next) || now.Before(s.paused[key.Namespace]) {
		return known.reports, false
	}
	s.next = now.Add(reportInterval)
	if s.known == nil {
		s.known = map[types.NamespacedName]podReports{}
	}
	return known.reports, true
}

// pause leaves the events of a namespace alone for some time.
func (s *startReports) pause(namespace string, now time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	maps.DeleteFunc(s.paused, func(_ string, until time.Time) bool { return !now.Before(until) })
	if s.paused == nil {
		s.paused = map[string]time.Time{}
	}
	s.paused[namespace] = now.Add(reportPause)
}

func (s *startReports) forget(key types.NamespacedName) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.known, key)
}

// parseReports returns what the events say about the start of their Pod. It is never nil.
func parseReports(events []eventsv1.Event) []startReport {
	reports := []startReport{}
	for _, event := range events {
		if startFailures[event.Reason] == "" && !isStartStep(event.Reason) || event.ReportingController == reporter {
			continue
		}
		report := startReport{at: eventTime(event), reason: event.Reason, note: clean(strings.TrimSpace(event.Note), maxNote)}
		if _, name, ok := strings.Cut(event.Regarding.FieldPath, "{"); ok { // spec.containers{NAME}
			report.container = strings.TrimSuffix(name, "}")
		}
		reports = append(reports, report)
	}
	return reports
}

// eventTime returns when the event happened last.
func eventTime(event eventsv1.Event) time.Time {
	at := event.EventTime.Time
	if event.Series != nil {
		at = event.Series.LastObservedTime.Time
	}
	if last := event.DeprecatedLastTimestamp.Time; last.After(at) {
		at = last
	}
	return at
}

// BoundEvents returns a transport to the API server that reads no more than maxReportBytes of a list of events. The list comes from the
// namespace of a tenant, who may create events, and would be decoded as a whole.
func BoundEvents(transport http.RoundTripper) http.RoundTripper { return boundedEvents{transport} }

type boundedEvents struct{ http.RoundTripper }

var errLargeEvents = errors.New("the events take more than 1 MiB")

func (b boundedEvents) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil && request.Method == http.MethodGet && strings.HasPrefix(request.URL.Path, "/apis/"+eventsv1.GroupName+"/") {
		response.Body = &boundedBody{ReadCloser: response.Body, left: maxReportBytes}
	}
	return response, err
}

// boundedBody fails instead of ending: half a list must not be taken for all of it.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLargeEvents
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
