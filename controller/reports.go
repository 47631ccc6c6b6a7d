package controller

import (
	"context"
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

// reportInterval is how much time passes between two reads of events, of whatever Pods. The API server searches all events of the namespace.
const reportInterval = 200 * time.Millisecond

// reportTimeout bounds one read of events.
const reportTimeout = 5 * time.Second

// startReports reads what events say about Pods that have been starting for long, and keeps it until the next read. Each Pod is read at most
// once in startCheck, and all Pods together at most once in reportInterval. The zero value is ready to use.
type startReports struct {
	mutex sync.Mutex
	next  time.Time
	known map[types.NamespacedName]podReports
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
	if err := live.List(ctx, &list, client.InNamespace(pod.Namespace), about); err != nil {
		log.FromContext(ctx).V(1).Info("Can't read the events of a Pod", "pod", pod.Name, "why", err.Error())
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
	if ok && now.Sub(known.at) < startCheck || now.Before(s.next) {
		return known.reports, false
	}
	s.next = now.Add(reportInterval)
	if s.known == nil {
		s.known = map[types.NamespacedName]podReports{}
	}
	return known.reports, true
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
		report := startReport{at: eventTime(event), reason: event.Reason, note: strings.TrimSpace(event.Note)}
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
