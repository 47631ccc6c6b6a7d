package controller

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// event is one line under Events in `kubectl describe`.
type event struct {
	kind, reason, action, note string
	// step is the step that the event concerns, if any.
	step string
}

// record emits an event about an object. The event of a step is related to its container, because the API treats events of one object with
// equal reason and relation as repetitions, and `kubectl describe` shows only the first.
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

// ownerOf returns the Job that controls a Pod, or nil. Without an event, a Job says only that its Pod failed. Other kinds get no event: the
// author of a Pod can name any object of the cluster as its controller, such as a Node.
func ownerOf(pod *corev1.Pod) *corev1.ObjectReference {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "Job" || owner.APIVersion != batchv1.SchemeGroupVersion.String() {
		return nil
	}
	return &corev1.ObjectReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name, UID: owner.UID}
}

// ownerEvent is the event for the Job of a Pod whose sequence is halted, once for each Pod.
func ownerEvent(pod *corev1.Pod, seen observation) event {
	e := event{
		kind: corev1.EventTypeWarning, reason: "Halted", action: "RunSteps",
		note: fmt.Sprintf("Pod %q starts no further step: %s", pod.Name, seen.halt),
	}
	if seen.failed >= 0 {
		e.reason, e.step = v1alpha1.ReasonStepFailed, seen.steps[seen.failed].Name
		e.note = seen.failure(seen.failed, fmt.Sprintf(" in the Pod %q", pod.Name))
	}
	return e
}

// stepEvents returns the events for the steps that started or ended since before. If a step checks conditions or inputs first, only its end tells
// whether its command started.
func stepEvents(before []v1alpha1.StepStatus, seen observation) []event {
	old := map[string]v1alpha1.StepState{}
	for _, step := range before {
		old[step.Name] = step.State
	}
	var all []event
	for i, step := range seen.steps {
		if old[step.Name] == step.State {
			continue
		}
		if step.State == v1alpha1.StepRunning && !seen.checks[i] || hasEnded(step) && step.StartedAt != nil && seen.checks[i] {
			all = append(all, event{corev1.EventTypeNormal, "StepStarted", "RunSteps", fmt.Sprintf("step %q started", step.Name), step.Name})
		}
		switch {
		case step.State == v1alpha1.StepSucceeded && step.Reason == contract.ReasonFinished:
			all = append(all, event{corev1.EventTypeNormal, "StepSucceeded", "RunSteps", finish(step), step.Name})
		case step.State == v1alpha1.StepSkipped && step.Reason == contract.ReasonWhenFalse: // others are told by the halt
			all = append(all, event{corev1.EventTypeNormal, "StepSkipped", "RunSteps", skip(step), step.Name})
		case step.State == v1alpha1.StepSucceeded:
			all = append(all, event{corev1.EventTypeNormal, "StepSucceeded", "RunSteps", fmt.Sprintf("step %q succeeded", step.Name), step.Name})
		case step.State == v1alpha1.StepFailed && step.ExitCode != nil: // otherwise the event about the Pod tells the cause
			all = append(all, event{corev1.EventTypeWarning, v1alpha1.ReasonStepFailed, "RunSteps", seen.failure(i, ""), step.Name})
		}
	}
	return all
}

// history has what was reported of each Pod, by its name, so that no event repeats. It is lost when the operator ends. Then the annotations of a
// Pod, or its end, show what was reported before.
type history struct{ sync.Map }

// reported is what was reported of one Pod.
type reported struct {
	uid   types.UID
	steps []v1alpha1.StepStatus
}

// next returns the steps as last reported, and stores the current ones.
func (h *history) next(pod *corev1.Pod, now observation) []v1alpha1.StepStatus {
	old, _ := h.Swap(client.ObjectKeyFromObject(pod), reported{uid: pod.UID, steps: now.steps})
	if before, _ := old.(reported); before.uid == pod.UID {
		return before.steps
	}
	return reportedBefore(pod, now)
}

// reportedBefore returns the steps that an earlier operator is assumed to have reported: all of a Pod that has ended, otherwise those
// before the one released last. Whether an operator watched a Pod that has ended is unknown, because agents release each other's steps and
// the order annotation is no longer written. So a Pod that ran while no operator was running gets no events, rather than all events twice
// after each restart.
func reportedBefore(pod *corev1.Pod, now observation) []v1alpha1.StepStatus {
	if isTerminal(pod.Status.Phase) {
		return now.steps
	}
	steps := slices.Clone(now.steps)
	order := released(pod)
	for i := range steps {
		stage := now.plan.Steps[i].Stage
		isNewest := stage == order && order > 1 && steps[i].State == v1alpha1.StepRunning
		if stage >= order && !isNewest {
			steps[i].State = v1alpha1.StepWaiting
		}
	}
	return steps
}

// transitions returns the events that tell how the Task's status became the next one.
func (n *next) transitions(before v1alpha1.TaskStatus) []event {
	after := n.TaskStatus
	var all []event
	if before.PodName == "" && after.PodName != "" {
		all = append(all, event{kind: corev1.EventTypeNormal, reason: v1alpha1.ReasonPodCreated, action: "CreatePod", note: fmt.Sprintf("created the Pod %q", after.PodName)})
	}
	failed := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionFailed)
	for _, e := range n.stepEvents(before) {
		if failed == nil || failed.Message != e.note {
			all = append(all, e)
		}
	}
	for _, condition := range after.Conditions {
		old := meta.FindStatusCondition(before.Conditions, condition.Type)
		if old != nil && old.Status == condition.Status && old.Reason == condition.Reason && old.Message == condition.Message {
			continue
		}
		isTrue := condition.Status == metav1.ConditionTrue
		e := event{kind: corev1.EventTypeWarning, reason: condition.Reason, action: "RunSteps", note: condition.Message}
		switch {
		case condition.Type == v1alpha1.ConditionComplete && isTrue:
			e.kind, e.reason = corev1.EventTypeNormal, condition.Type
		case condition.Type == v1alpha1.ConditionSuspended:
			e.kind, e.action = corev1.EventTypeNormal, "Suspend"
		case condition.Type == v1alpha1.ConditionFailed && isTrue && n.hasTold(before, condition.Message):
			e.note = "the Task failed: " + e.note
		case condition.Type == v1alpha1.ConditionFailed && isTrue:
		case condition.Type == v1alpha1.ConditionProgressing && condition.Status == metav1.ConditionFalse && !finished(&after) && after.Phase != v1alpha1.TaskSuspended:
		default:
			continue
		}
		all = append(all, e)
	}
	return all
}

// stepEvents returns the events about the steps of the Task's Pod. If the attempt has ended and the steps ran one after another, its own event tells
// which of them failed.
func (n *next) stepEvents(before v1alpha1.TaskStatus) []event {
	if n.pod == nil || n.PodName == "" && isPlain(n.seen.plan) {
		return nil
	}
	return stepEvents(n.stepsBefore(before), n.seen)
}

// stepsBefore returns the steps of an earlier status if they are those of the present Pod.
func (n *next) stepsBefore(status v1alpha1.TaskStatus) []v1alpha1.StepStatus {
	if n.pod == nil {
		return nil
	}
	return stepsOf(status, n.pod.Name)
}

// hasTold reports whether an earlier event told what the message begins with: which step failed. Final steps ran, or steps beside it, before the
// Task failed.
func (n *next) hasTold(before v1alpha1.TaskStatus, message string) bool {
	for i, old := range n.stepsBefore(before) {
		isTold := old.State == v1alpha1.StepFailed && old.ExitCode != nil && i < len(n.seen.steps) && n.seen.steps[i].State == old.State
		if isTold && !isPlain(n.seen.plan) && strings.HasPrefix(message, n.seen.failure(i, "")) {
			return true
		}
	}
	return false
}

// stepsOf returns the steps of a status if they are those of the Pod.
func stepsOf(status v1alpha1.TaskStatus, pod string) []v1alpha1.StepStatus {
	if status.PodName != pod {
		return nil
	}
	return status.Steps
}
