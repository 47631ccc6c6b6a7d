package controller

import (
	"context"
	"maps"
	"net/http"
	"slices"
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

const (
	// reportInterval is the time between two reads of events, of all Pods together. The API server searches all events of the namespace.
	reportInterval = 200 * time.Millisecond
	// reportTimeout bounds one read of events, for which a worker waits.
	reportTimeout = 2 * time.Second
	// reportPause is how long no events of a namespace are read after a read of them has failed: a tenant who may create events there can
	// make each read slow, or too large.
	reportPause = time.Minute
	// maxReports is how many events of one Pod are read. A Pod that can't start has about ten.
	maxReports = 100
	// maxReportBytes bounds what is read of them. An event can have 1.5 MB, and its author need not be the kubelet.
	maxReportBytes = 1 << 20
)

// podReports are the reports about one Pod.
type podReports struct {
	uid     types.UID
	at      time.Time
	reports []startReport
}

// reportReader reads what events say about Pods that have been starting for long: each Pod at most once in startCheck, and all Pods together at
// most once in reportInterval. The zero value is ready to use.
type reportReader struct {
	mutex sync.Mutex
	next  time.Time
	// paused holds when the events of a namespace may be read again, after a read has failed.
	paused map[string]time.Time
}

// readReports returns what the events of a Pod that has been starting for long say; nil if they need not, or can't, be read now.
func (r *TaskReconciler) readReports(ctx context.Context, f facts, m *memory) []startReport {
	if !f.needsReports() {
		m.reports = podReports{}
		return nil
	}
	return r.reports.read(ctx, r.Live, &m.reports, f.pod, f.now)
}

// read returns the reports about a Pod, which it keeps in known until the next read; nil if they can't be read now.
func (s *reportReader) read(ctx context.Context, live client.Reader, known *podReports, pod *corev1.Pod, now time.Time) []startReport {
	if known.uid != pod.UID {
		*known = podReports{}
	}
	if now.Sub(known.at) < startCheck || !s.isDue(pod.Namespace, now) {
		return known.reports
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	var list eventsv1.EventList
	about := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("regarding.uid", string(pod.UID))}
	if err := live.List(ctx, &list, client.InNamespace(pod.Namespace), about, client.Limit(maxReports)); err != nil {
		log.FromContext(ctx).V(1).Info("Cannot read the events of a Pod", "pod", pod.Name, "why", err.Error())
		s.pause(pod.Namespace, now)
		return known.reports
	}
	*known = podReports{uid: pod.UID, at: now, reports: parseReports(list.Items)}
	return known.reports
}

// isDue reports whether events of a namespace may be read, and counts the read.
func (s *reportReader) isDue(namespace string, now time.Time) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if now.Before(s.next) || now.Before(s.paused[namespace]) {
		return false
	}
	s.next = now.Add(reportInterval)
	return true
}

// pause keeps the events of a namespace from being read for some time.
func (s *reportReader) pause(namespace string, now time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	maps.DeleteFunc(s.paused, func(_ string, until time.Time) bool { return !now.Before(until) })
	if s.paused == nil {
		s.paused = map[string]time.Time{}
	}
	s.paused[namespace] = now.Add(reportPause)
}

// parseReports returns what the events say about the start of their Pod. It is never nil.
func parseReports(events []eventsv1.Event) []startReport {
	reports := []startReport{}
	for _, event := range events {
		if startFailures[event.Reason] == "" && !slices.Contains(startSteps, event.Reason) || event.ReportingController == reporter {
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

// BoundEvents returns a transport to the API server that reads at most maxReportBytes of a list of events. A tenant may have created them, and
// client-go decodes a list as a whole.
func BoundEvents(transport http.RoundTripper) http.RoundTripper { return boundedEvents{transport} }

type boundedEvents struct{ http.RoundTripper }

func (b boundedEvents) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(request)
	if err == nil && request.Method == http.MethodGet && strings.HasPrefix(request.URL.Path, "/apis/"+eventsv1.GroupName+"/") {
		response.Body = http.MaxBytesReader(nil, response.Body, maxReportBytes) // fails, because half a list must not count as all of it
	}
	return response, err
}
