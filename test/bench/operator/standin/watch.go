package standin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// protobuf is the encoding of Pods.
var protobuf = mustFind(runtime.ContentTypeProtobuf)

func mustFind(mediaType string) runtime.SerializerInfo {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		panic("client-go has no serializer for " + mediaType)
	}
	return info
}

// events queues the encoded events of one kind of object until a watch takes them.
type events struct {
	mutex   sync.Mutex
	waiting [][]byte
	more    chan struct{} // of capacity 1
}

func newEvents() *events { return &events{more: make(chan struct{}, 1)} }

func (e *events) add(event []byte) {
	e.mutex.Lock()
	e.waiting = append(e.waiting, event)
	e.mutex.Unlock()
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *events) take() [][]byte {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	taken := e.waiting
	e.waiting = nil
	return taken
}

// initialEventsEnd returns the metadata of the bookmark that follows the initial objects of a watch. There are no such objects here.
func initialEventsEnd() metav1.ObjectMeta {
	return metav1.ObjectMeta{ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
}

func (s *Server) serveTasks(w http.ResponseWriter, r *http.Request) {
	meta := metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.TaskKind.Kind}
	if r.URL.Query().Get("watch") != "true" {
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
		meta.Kind += "List"
		_ = json.NewEncoder(w).Encode(v1alpha1.TaskList{TypeMeta: meta, ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []v1alpha1.Task{}})
		return
	}
	bookmark, err := json.Marshal(v1alpha1.Task{TypeMeta: meta, ObjectMeta: initialEventsEnd()})
	if err != nil {
		reply(w, nil, err)
		return
	}
	serveWatch(w, r, s.taskEvents, runtime.ContentTypeJSON, taskEvent(watch.Bookmark, bookmark))
}

func (s *Server) servePods(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("watch") != "true" {
		reply(w, &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, nil)
		return
	}
	bookmark, err := podEvent(watch.Bookmark, &corev1.Pod{TypeMeta: podType, ObjectMeta: initialEventsEnd()})
	if err != nil {
		reply(w, nil, err)
		return
	}
	serveWatch(w, r, s.podEvents, runtime.ContentTypeProtobuf+";stream=watch", bookmark)
}

// serveWatch writes events as they come. Like the API server, it flushes when no other event waits.
func serveWatch(w http.ResponseWriter, r *http.Request, events *events, contentType string, bookmark []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		if _, err := w.Write(bookmark); err != nil {
			return
		}
	}
	flush := http.NewResponseController(w).Flush
	for flush() == nil {
		select {
		case <-events.more:
		case <-r.Context().Done():
			return
		}
		for _, event := range events.take() {
			if _, err := w.Write(event); err != nil {
				return
			}
		}
	}
}

func taskEvent(kind watch.EventType, content []byte) []byte {
	return fmt.Appendf(nil, "{\"type\":%q,\"object\":%s}\n", kind, content)
}

var podType = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}

func podEvent(kind watch.EventType, pod *corev1.Pod) ([]byte, error) {
	var frame bytes.Buffer
	stream := protobuf.StreamSerializer
	encoder := restwatch.NewEncoder(streaming.NewEncoder(stream.NewFrameWriter(&frame), stream.Serializer), protobuf.Serializer)
	err := encoder.Encode(&watch.Event{Type: kind, Object: pod})
	return frame.Bytes(), err
}
