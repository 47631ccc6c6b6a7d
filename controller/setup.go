// Package controller has the two controllers of taskflow.
//
// The order controller (order.go) releases the steps of a Pod: it watches containers end, and writes the Pod's annotations. It needs no Task. The
// Task controller (task.go) creates the Pod of a Task, and writes the Task's status. Both read a Pod through one pure function, observe. What the
// next status is, and what happens to the Pod before it is written, is one pure decision table (situations.go).
package controller

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

const (
	// workers is the number of workers of each controller. They wait for nothing but the API server.
	workers = 8
	// firstRetry and lastRetry bound the exponential back-off after an error.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// SetupWithManager registers both controllers.
func SetupWithManager(m manager.Manager, commands CommandResolver, startGrace time.Duration) error {
	recorder := NewRecorder(m.GetClient(), m.GetCache())
	order := &OrderReconciler{Client: m.GetClient(), Events: recorder}
	task := &TaskReconciler{
		Client:     m.GetClient(),
		Live:       m.GetAPIReader(),
		Events:     recorder,
		Now:        time.Now,
		StartGrace: startGrace,
		lookups:    newLookups(commands, m.GetAPIReader(), time.Now),
	}
	isGated := predicate.NewPredicateFuncs(func(pod client.Object) bool { return podspec.IsGated(pod) })
	return errors.Join(
		m.Add(recorder),
		ctrl.NewControllerManagedBy(m).Named("order").WithOptions(options()).
			For(&corev1.Pod{}, builder.WithPredicates(isGated)).
			Complete(order),
		ctrl.NewControllerManagedBy(m).Named("task").WithOptions(options()).
			For(&v1alpha1.Task{}).Owns(&corev1.Pod{}).WatchesRawSource(source.Func(task.lookups.start)).
			Complete(task),
	)
}

func options() controller.Options {
	return controller.Options{
		MaxConcurrentReconciles: workers,
		// A replica that is not the leader reads, too, so that it can take over at once.
		EnableWarmup: new(true),
		RateLimiter:  workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
	}
}
