package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// refusedRetry is how soon a status is retried that the API server has refused: the same one would be refused again.
const refusedRetry = 5 * time.Minute

// writeStatus writes the status if it has changed, and tells the changes in events. Unless the result is empty, the status was not written.
func (r *TaskReconciler) writeStatus(ctx context.Context, n *next, m *memory) (ctrl.Result, error) {
	err := r.patchStatus(ctx, n.task, n.TaskStatus, m)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: staleRetry}, nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsRequestEntityTooLargeError(err):
		r.reportRefusal(ctx, n.task, err, m)
		return ctrl.Result{RequeueAfter: refusedRetry}, nil
	}
	return ctrl.Result{}, err
}

func (r *TaskReconciler) patchStatus(ctx context.Context, task *v1alpha1.Task, status v1alpha1.TaskStatus, m *memory) error {
	if equality.Semantic.DeepEqual(task.Status, status) {
		return nil
	}
	// Without the spec: it is most of what both sides would encode and decode only to compute the patch.
	before := &v1alpha1.Task{ObjectMeta: task.ObjectMeta, Status: task.Status}
	after := &v1alpha1.Task{ObjectMeta: task.ObjectMeta, Status: status}
	task.Status = status
	patch, err := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}).Data(after)
	if err != nil {
		return err
	}
	answer := metadata(task, v1alpha1.TaskKind)
	if err := r.Client.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return client.IgnoreNotFound(err) // a deleted Task needs no status
	}
	if answer.ResourceVersion != before.ResourceVersion {
		m.written = before.ResourceVersion
	}
	measure(before.Status, status)
	for _, e := range transitions(before.Status, status) {
		record(r.Events, task, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: status.PodName}}, e)
	}
	return nil
}

// reportRefusal reports a status that the API server refused in a metric, the log and an event, because the status can't say so itself.
func (r *TaskReconciler) reportRefusal(ctx context.Context, task *v1alpha1.Task, err error, m *memory) {
	statusesRefused.Inc()
	log.FromContext(ctx).Error(err, "The API server rejected the status of a Task, which stays unchanged")
	if m.refusal == err.Error() {
		return
	}
	m.refusal = err.Error()
	record(r.Events, task, nil, event{
		kind: corev1.EventTypeWarning, reason: "StatusRefused", action: "WriteStatus",
		note: fmt.Sprintf("the API server rejected the Task's status, which stays unchanged: %v", err),
	})
}

// transitions returns the events that tell how one status became the other.
func transitions(before, after v1alpha1.TaskStatus) []event {
	var all []event
	if before.PodName == "" && after.PodName != "" {
		all = append(all, event{kind: corev1.EventTypeNormal, reason: v1alpha1.ReasonPodCreated, action: "CreatePod", note: fmt.Sprintf("created the Pod %q", after.PodName)})
	}
	failed := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionFailed)
	for _, e := range stepEvents(stepsOf(before, after.PodName), after.Steps) {
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
		case condition.Type == v1alpha1.ConditionFailed && isTrue:
		case condition.Type == v1alpha1.ConditionProgressing && condition.Status == metav1.ConditionFalse && !finished(&after) && after.Phase != v1alpha1.TaskSuspended:
		default:
			continue
		}
		all = append(all, e)
	}
	return all
}

// stepsOf returns the steps of a status if they are those of the Pod.
func stepsOf(status v1alpha1.TaskStatus, pod string) []v1alpha1.StepStatus {
	if status.PodName != pod {
		return nil
	}
	return status.Steps
}
