package standin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

var (
	podResource  = schema.GroupResource{Resource: "pods"}
	taskResource = schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "tasks"}
)

// keptFor is how long a Task stays after its end.
const keptFor = 5 * time.Second

// next returns the next resource version. The caller holds the mutex.
func (s *Server) next() string {
	s.version++
	return strconv.FormatInt(1000+s.version, 10)
}

// CreateTask creates a Task like the sample. It runs until that phase: TaskRunning, where it stays at its first step, or TaskSucceeded.
func (s *Server) CreateTask(name string, until v1alpha1.TaskPhase) error {
	task := s.sample.Task.DeepCopy()
	task.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.TaskKind.Kind}
	task.Name, task.UID, task.CreationTimestamp = name, uuid.NewUUID(), metav1.Now()
	task.Status = v1alpha1.TaskStatus{}

	const placeholder = "VERSION"
	task.ResourceVersion = placeholder
	content, err := json.Marshal(struct {
		*v1alpha1.Task
		Status struct{} `json:"status,omitzero"`
	}{Task: task})
	if err != nil {
		return err
	}
	head, tail, _ := bytes.Cut(content, []byte(placeholder))
	s.mutex.Lock()
	defer s.mutex.Unlock()
	stored := &storedTask{head: head, tail: bytes.TrimSuffix(tail, []byte("}")), version: s.next(), status: map[string]json.RawMessage{}, until: until, created: time.Now()}
	s.tasks[name] = stored
	s.taskEvents.add(taskEvent(watch.Added, stored.content()))
	return nil
}

// remove deletes a Task and its Pod.
func (s *Server) remove(name string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	task := s.tasks[name]
	delete(s.tasks, name)
	task.version = s.next()
	s.taskEvents.add(taskEvent(watch.Deleted, task.content()))
	pod := *s.pods[task.pod]
	return s.store(watch.Deleted, &pod)
}

// content returns the Task's JSON. Most of it never changes, and is encoded only once.
func (t *storedTask) content() []byte {
	text := slices.Concat(t.head, []byte(t.version), t.tail, []byte(`,"status":{`))
	separator := ""
	for member, value := range t.status {
		text = append(text, separator...)
		text = strconv.AppendQuote(text, member)
		text = append(append(text, ':'), value...)
		separator = ","
	}
	return append(text, "}}"...)
}

// merge applies a merge patch (RFC 7396) to the members of a status, none of which is an object.
func merge(status, patch map[string]json.RawMessage) map[string]json.RawMessage {
	merged := maps.Clone(status)
	for member, value := range patch {
		if string(value) == "null" {
			delete(merged, member)
		} else {
			merged[member] = value
		}
	}
	return merged
}

// patchTask applies a merge patch to the status of a Task.
func (s *Server) patchTask(name string, body []byte) (runtime.Object, error) {
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Status map[string]json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(body, &patch); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	task, ok := s.tasks[name]
	switch {
	case !ok:
		return nil, apierrors.NewNotFound(taskResource, name)
	case patch.Metadata.ResourceVersion != task.version:
		return nil, apierrors.NewConflict(taskResource, name, errors.New("it has another version"))
	}
	status := merge(task.status, patch.Status)
	var phase v1alpha1.TaskPhase
	if err := json.Unmarshal(status["phase"], &phase); err != nil {
		return nil, apierrors.NewBadRequest("status.phase: " + err.Error())
	}
	task.status, task.version = status, s.next()
	s.taskEvents.add(taskEvent(watch.Modified, task.content()))
	switch phase {
	case task.until:
		now := time.Now()
		if phase == v1alpha1.TaskSucceeded {
			time.AfterFunc(keptFor, func() {
				if err := s.remove(name); err != nil {
					s.done <- Task{Name: name, Err: fmt.Errorf("removing it: %w", err)}
				}
			})
		}
		s.done <- Task{Name: name, At: now, Lag: task.podCreated.Sub(task.created) + now.Sub(task.stepsOver)}
	case v1alpha1.TaskFailed:
		s.done <- Task{Name: name, Err: fmt.Errorf("it failed: %s", task.content())}
	}
	meta := s.sample.Task.ObjectMeta
	meta.Name, meta.ResourceVersion = name, task.version
	return metadata(meta), nil
}

func (s *Server) getPod(name string, _ []byte) (runtime.Object, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	pod, ok := s.pods[name]
	if !ok {
		return nil, apierrors.NewNotFound(podResource, name)
	}
	return pod, nil
}

// createPod calls the webhook for a Pod, stores the Pod, and plays its kubelet.
func (s *Server) createPod(_ string, body []byte) (runtime.Object, error) {
	pod := &corev1.Pod{}
	if _, _, err := protobuf.Serializer.Decode(body, nil, pod); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	pod.TypeMeta = podType
	pod.UID, pod.CreationTimestamp, pod.Generation = uuid.NewUUID(), metav1.Now(), 1
	pod.ManagedFields = s.sample.Pod.ManagedFields
	setDefaults(pod)
	if err := s.admit(pod); err != nil {
		return nil, err
	}

	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, ok := s.pods[pod.Name]; ok {
		return nil, apierrors.NewAlreadyExists(podResource, pod.Name)
	}
	task, ok := s.tasks[taskOf(pod)]
	if !ok {
		return nil, apierrors.NewBadRequest("no Task controls the Pod")
	}
	task.pod, task.podCreated = pod.Name, time.Now()
	if err := s.store(watch.Added, pod); err != nil {
		return nil, err
	}
	until := task.until
	go func() {
		if err := s.runPod(pod, until); err != nil {
			s.done <- Task{Name: taskOf(pod), Err: fmt.Errorf("playing the kubelet: %w", err)}
		}
	}()
	return pod, nil
}

// taskOf returns the name of the Task that controls a Pod.
func taskOf(pod *corev1.Pod) string {
	if owner := metav1.GetControllerOf(pod); owner != nil {
		return owner.Name
	}
	return ""
}

// setDefaults sets the defaults of the API server (k8s.io/kubernetes/pkg/apis/core/v1/defaults.go) for the fields that a Task's Pod has.
func setDefaults(pod *corev1.Pod) {
	spec := &pod.Spec
	spec.DNSPolicy = cmp.Or(spec.DNSPolicy, corev1.DNSClusterFirst)
	spec.SchedulerName = cmp.Or(spec.SchedulerName, corev1.DefaultSchedulerName)
	spec.TerminationGracePeriodSeconds = cmp.Or(spec.TerminationGracePeriodSeconds, new(int64(corev1.DefaultTerminationGracePeriodSeconds)))
	spec.EnableServiceLinks = cmp.Or(spec.EnableServiceLinks, new(true))
	spec.SecurityContext = cmp.Or(spec.SecurityContext, &corev1.PodSecurityContext{})
	for i := range spec.Containers {
		container := &spec.Containers[i]
		container.ImagePullPolicy = cmp.Or(container.ImagePullPolicy, corev1.PullIfNotPresent)
		container.TerminationMessagePath = cmp.Or(container.TerminationMessagePath, corev1.TerminationMessagePathDefault)
		container.TerminationMessagePolicy = cmp.Or(container.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	}
}

// admission is the webhook's change to a Pod. It is the same for most Pods.
type admission struct {
	before corev1.PodSpec
	patch  []byte
	after  corev1.PodSpec
}

// admit applies the webhook's patch to the Pod.
func (s *Server) admit(pod *corev1.Pod) error {
	content, err := json.Marshal(pod)
	if err != nil {
		return err
	}
	text, err := s.review(pod, content)
	if err != nil {
		return err
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	last := s.admission
	s.mutex.Unlock()
	if !bytes.Equal(text, last.patch) || !equality.Semantic.DeepEqual(pod.Spec, last.before) {
		if content, err = patch.Apply(content); err != nil {
			return err
		}
		var admitted corev1.Pod
		if err := json.Unmarshal(content, &admitted); err != nil {
			return err
		}
		last = admission{before: pod.Spec, patch: text, after: admitted.Spec}
		s.mutex.Lock()
		s.admission = last
		s.mutex.Unlock()
	}
	pod.Spec = last.after
	return patchMetadata(&pod.ObjectMeta, slices.DeleteFunc(patch, func(o jsonpatch.Operation) bool {
		path, err := o.Path()
		return err == nil && strings.HasPrefix(path, "/spec/")
	}))
}

// review calls the webhook, and returns its patch.
func (s *Server) review(pod *corev1.Pod, content []byte) ([]byte, error) {
	kind, resource := metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, metav1.GroupVersionResource{Version: "v1", Resource: "pods"}
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: uuid.NewUUID(), Kind: kind, RequestKind: &kind, Resource: resource, RequestResource: &resource,
			Namespace: pod.Namespace, Name: pod.Name, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: content}, DryRun: new(false),
		},
	}
	question, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	s.mutex.Lock()
	webhook := s.webhook
	s.mutex.Unlock()
	response, err := s.client.Post(webhook, runtime.ContentTypeJSON, bytes.NewReader(question)) //nolint:noctx // the server's end ends it
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer admissionv1.AdmissionReview
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the webhook answers %s", response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("decoding the webhook's answer: %w", err)
	}
	if answer.Response == nil || !answer.Response.Allowed {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the webhook rejects the Pod: %+v", answer.Response))
	}
	return answer.Response.Patch, nil
}

// patchMetadata applies a JSON patch to labels and annotations. The patch may test the UID.
func patchMetadata(meta *metav1.ObjectMeta, patch jsonpatch.Patch) error {
	type members struct {
		UID         types.UID         `json:"uid"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	}
	var document struct {
		Metadata members `json:"metadata"`
	}
	document.Metadata = members{meta.UID, meta.Labels, meta.Annotations}
	content, err := json.Marshal(document)
	if err != nil {
		return err
	}
	if content, err = patch.Apply(content); err != nil {
		return err
	}
	document.Metadata = members{}
	if err := json.Unmarshal(content, &document); err != nil {
		return err
	}
	meta.Labels, meta.Annotations = document.Metadata.Labels, document.Metadata.Annotations
	return nil
}

// patchPod applies a JSON patch to the metadata of a Pod.
func (s *Server) patchPod(name string, body []byte) (runtime.Object, error) {
	patch, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	old, ok := s.pods[name]
	if !ok {
		return nil, apierrors.NewNotFound(podResource, name)
	}
	pod := *old // a stored Pod doesn't change, so its versions may share memory
	if err := patchMetadata(&pod.ObjectMeta, patch); err != nil {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, name, nil)
	}
	if err := s.store(watch.Modified, &pod); err != nil {
		return nil, err
	}
	return metadata(pod.ObjectMeta), nil
}

// metadata returns an object with the metadata only, which the operator asks for as the answer to a patch.
func metadata(meta metav1.ObjectMeta) *metav1.PartialObjectMetadata {
	answer := &metav1.PartialObjectMetadata{ObjectMeta: meta}
	answer.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	return answer
}

// store stores a Pod, or removes it, and sends the watch event. The Pod must not change afterwards. The caller holds the mutex.
func (s *Server) store(kind watch.EventType, pod *corev1.Pod) error {
	pod.ResourceVersion = s.next()
	event, err := podEvent(kind, pod)
	if err != nil {
		return err
	}
	if kind == watch.Deleted {
		delete(s.pods, pod.Name)
	} else {
		s.pods[pod.Name] = pod
	}
	s.podEvents.add(event)
	return nil
}
