package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// refusedRetry is how soon a status is tried again that the API server has refused: the same one would be refused again.
const refusedRetry = 5 * time.Minute

var statusesRefused = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "taskflow_statuses_refused_total",
	Help: "Statuses of Tasks that the API server refused to write.",
})

// isRefused reports whether the API server won't take an object as it is.
func isRefused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// tellRefused tells of a status that was refused where somebody looks, since the status itself can't.
func (r *TaskReconciler) tellRefused(ctx context.Context, task *v1alpha1.Task, err error) ctrl.Result {
	statusesRefused.Inc()
	log.FromContext(ctx).Error(err, "The API server refuses the status of a Task, which stays as it is")
	if told, _ := r.refusals.Swap(client.ObjectKeyFromObject(task), err.Error()); told != err.Error() {
		record(r.Events, task, nil, event{
			kind: corev1.EventTypeWarning, reason: "StatusRefused", action: "WriteStatus",
			note: fmt.Sprintf("the API server refuses the Task's status, which stays as it is: %v", err),
		})
	}
	return ctrl.Result{RequeueAfter: refusedRetry}
}
