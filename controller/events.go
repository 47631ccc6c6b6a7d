package controller

import (
	"fmt"
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// event is one line of the story in `kubectl describe`.
type event struct {
	kind, reason, action, note string
	// step is the one that it is about, if it is about one.
	step string
}

// record tells an event of an object. What is about a step is related to its container: events of one object with the same reason and
// the same relation are taken for a repetition of the first, and only that is shown.
func record(recorder events.EventRecorder, object runtime.Object, pod *corev1.Pod, e event) {
	var related runtime.Object
	if e.step != "" {
		related = &corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			FieldPath: fmt.Sprintf("spec.containers{%s}", e.step),
		}
	}
	recorder.Eventf(object, related, e.kind, cleanReason(e.reason, v1alpha1.ReasonPodFailed), e.action, "%s", clean(e.note, maxNote))
}

// ownerOf returns the Job that controls a Pod, or nil. Whoever looks at the Job finds only that the Pod failed. Other kinds are told nothing:
// whoever creates a Pod can name any object of the cluster as its controller, such as a Node.
func ownerOf(pod *corev1.Pod) *corev1.ObjectReference {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Job" || owner.APIVersion != batchv1.SchemeGroupVersion.String() {
		return nil
	}
	return &corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name, UID: owner.UID}
}

// ownerEvent is what the controller of a Pod is told when the sequence is halted: once for each Pod.
func ownerEvent(pod *corev1.Pod, seen observation) event {
	e := event{
		kind: corev1.EventTypeWarning, reason: "Halted", action: "RunSteps",
		note: fmt.Sprintf("no further step of the Pod %q is started: %s", pod.Name, seen.halt),
	}
	if seen.failed >= 0 {
		e.reason, e.step = v1alpha1.ReasonStepFailed, seen.steps[seen.failed].Name
		e.note = fmt.Sprintf("%s in the Pod %q", failure(seen.steps[seen.failed]), pod.Name)
	}
	return e
}

// stepEvents tell of the steps that have begun or ended since.
func stepEvents(before, after []v1alpha1.StepStatus) []event {
	old := map[string]v1alpha1.StepState{}
	for _, step := range before {
		old[step.Name] = step.State
	}
	var all []event
	for _, step := range after {
		if old[step.Name] == step.State {
			continue
		}
		switch step.State {
		case v1alpha1.StepRunning:
			all = append(all, event{corev1.EventTypeNormal, "StepStarted", "RunSteps", fmt.Sprintf("step %q has started", step.Name), step.Name})
		case v1alpha1.StepSucceeded:
			all = append(all, event{corev1.EventTypeNormal, "StepSucceeded", "RunSteps", fmt.Sprintf("step %q has ended well", step.Name), step.Name})
		case v1alpha1.StepFailed:
			if step.ExitCode != nil { // else it is the Pod's end that is the story
				all = append(all, event{corev1.EventTypeWarning, v1alpha1.ReasonStepFailed, "RunSteps", failure(step), step.Name})
			}
		}
	}
	return all
}

// history is what has been told of Pods, so that nothing is told twice. It is lost when the operator ends: what the annotations of a Pod
// say, or the end of it, is taken to have been told by then.
type history struct {
	mutex sync.Mutex
	steps map[types.NamespacedName]told
}

// told is what has been told of one Pod.
type told struct {
	uid   types.UID
	steps []v1alpha1.StepStatus
}

// next returns the steps as they were told last, and keeps them as they are now.
func (s *history) next(pod *corev1.Pod, now observation) []v1alpha1.StepStatus {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	before, known := s.steps[key]
	s.steps[key] = told{uid: pod.UID, steps: now.steps}
	if known && before.uid == pod.UID {
		return before.steps
	}
	return toldBefore(pod, now)
}

func (s *history) forget(key types.NamespacedName) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.steps, key)
}

// toldBefore are the steps of a Pod that an earlier operator is taken to have told of: all of one that has ended, and else those before the
// one that was released last. A Pod that has ended doesn't say whether anybody looked while it ran: its agents release each other's steps, and the
// order of one that is over is not written any more. So nothing is told of a Pod that ran wholly while no operator was alive, rather than all of it
// twice after each restart.
func toldBefore(pod *corev1.Pod, now observation) []v1alpha1.StepStatus {
	if isTerminal(pod.Status.Phase) {
		return now.steps
	}
	steps := slices.Clone(now.steps)
	order := released(pod)
	for i := range steps {
		switch {
		case i < order-1:
		case i == order-1 && order > 1 && steps[i].State == v1alpha1.StepRunning:
		default:
			steps[i].State = v1alpha1.StepWaiting
		}
	}
	return steps
}
