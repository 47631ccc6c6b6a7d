package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// staleRetry is how soon a Task is reconciled again after a conflict with another writer.
const staleRetry = 50 * time.Millisecond

// TaskReconciler creates the Pods of Tasks, and writes what becomes of them to the status of the Tasks.
type TaskReconciler struct {
	// Client reads from the cache, which holds the Pods that the webhook has mutated.
	Client client.Client
	// Live reads from the API server.
	Live   client.Reader
	Events events.EventRecorder
	Now    func() time.Time
	// StartGrace bounds how long a container may fail to start (an image that can't be pulled, a missing ConfigMap) before the Task fails.
	StartGrace time.Duration

	// lookups resolves the commands of images.
	lookups *lookups
	// reports reads the events of Pods that have been starting for long.
	reports reportReader
	// memories has a *memory for each Task that has not ended, by the Task's name.
	memories sync.Map
}

// memory is what the reconciler remembers of a Task between two looks. Only one worker has a Task at a time, so it needs no lock.
type memory struct {
	// written is the version of the Task that its status was written over, until the cache has the next one.
	written string
	// refusal is the API server's last refusal of the status.
	refusal string
	// terminalSince is when the Pod was first seen terminal without final container states.
	terminalSince time.Time
	// reports are the last ones read for the Pod.
	reports podReports
}

// memory returns what is remembered of a Task.
func (r *TaskReconciler) memory(key types.NamespacedName) *memory {
	m, _ := r.memories.LoadOrStore(key, &memory{})
	return m.(*memory)
}

func (r *TaskReconciler) forget(key types.NamespacedName) {
	r.memories.Delete(key)
	r.lookups.forget(key)
}

// Reconcile brings a Task one step further: it reads the facts, decides, writes the Pod, and then the status.
func (r *TaskReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var task v1alpha1.Task
	if err := r.Client.Get(ctx, request.NamespacedName, &task); err != nil {
		r.forget(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	m := r.memory(request.NamespacedName)
	if m.written == task.ResourceVersion {
		return ctrl.Result{}, nil // the cache is behind: the Task is queued again when it has what was written
	}
	m.written = ""
	switch {
	case task.DeletionTimestamp != nil:
		return ctrl.Result{}, nil
	case finished(&task.Status):
		r.forget(request.NamespacedName)
		return r.deleteExpired(ctx, &task)
	}

	f, failure := r.read(ctx, &task, m)
	n := &next{facts: f, TaskStatus: task.Status}
	if failure == nil {
		n, failure = r.writePod(ctx, decide(f))
	}
	switch {
	case ctx.Err() != nil:
		return ctrl.Result{}, ctx.Err() // the operator shuts down, which is no state of the Task
	case errors.Is(failure, errStale), failure != nil && n.isEnd(): // once the end is written, the Pod is not told any more
		return retryStale(failure)
	}

	if result, err := r.writeStatus(ctx, n, m); err != nil || !result.IsZero() {
		return result, err
	}
	if failure == nil && finished(&n.TaskStatus) {
		return r.deleteExpired(ctx, &task)
	}
	if left, isLimited := n.timeLeft(r.Now()); failure != nil && isLimited && left > 0 && left < lastRetry {
		log.FromContext(ctx).Error(failure, "Retrying before the Task's deadline") // the back-off may be longer
		return ctrl.Result{RequeueAfter: min(left, deadlineRetry)}, nil
	}
	return ctrl.Result{RequeueAfter: n.again}, failure
}

// read returns the facts about a Task.
func (r *TaskReconciler) read(ctx context.Context, task *v1alpha1.Task, m *memory) (facts, error) {
	f := facts{task: task, now: r.Now(), startGrace: r.StartGrace}
	pod, err := r.readPod(ctx, podKey(task), task.Status.PodName != "")
	if err != nil {
		return f, err
	}
	if needsSpec(task, pod) {
		if err := r.readWhole(ctx, task); err != nil {
			return f, err
		}
	}
	f = f.withPod(pod)
	f.settleTime = m.settleTime(f)
	f.reports = r.readReports(ctx, f, m)
	if pod != nil || task.Spec.Cancel || task.Spec.Suspend {
		r.lookups.forget(client.ObjectKeyFromObject(task))
	}
	if f.pod != nil || !decide(f).create {
		return f, nil
	}
	if f.failedPod, err = r.readFailedPod(ctx, task); err == nil && f.failedPod == nil {
		f.commands, f.unresolved = r.lookups.of(ctx, task)
	}
	return f, err
}

// settleTimeout bounds how long the kubelet may take to report final container states after the Pod is terminal: on a busy node it was seen to
// take longer than one second.
const settleTimeout = 3 * time.Second

// settleTime returns how long to wait until the Pod may be judged.
func (m *memory) settleTime(f facts) time.Duration {
	if f.pod == nil || !isUnsettled(f.pod) {
		m.terminalSince = time.Time{}
		return 0
	}
	if m.terminalSince.IsZero() {
		m.terminalSince = f.now
	}
	return max(0, m.terminalSince.Add(settleTimeout).Sub(f.now))
}

// writePod creates, halts, ends or deletes the Pod as decided. It returns the status that follows. With an error it is to be called again.
func (r *TaskReconciler) writePod(ctx context.Context, n *next) (*next, error) {
	var failure error
	if n.create {
		n, failure = r.createPod(ctx, n)
	}
	if n.isWithoutPod() {
		// The cache may be behind. A Pod that was created a moment ago would run on under a Task that has ended.
		switch pod, err := r.readLivePod(ctx, podKey(n.task)); {
		case err != nil:
			return nextStatus(n.facts), err
		case pod != nil:
			n, failure = decide(n.withPod(pod)), nil
		}
	}
	if err := r.tellPod(ctx, n); err != nil {
		if len(n.advance) > 0 { // the start grace period is over, and stays so
			n = nextStatus(n.facts)
		}
		return n, err
	}
	if failure == nil {
		failure = n.err
	}
	return n, failure
}

// isWithoutPod reports whether the status says for the first time that the Task has no Pod, and needs none.
func (n *next) isWithoutPod() bool {
	return n.task.Status.PodName == "" && n.pod == nil &&
		(finished(&n.TaskStatus) || n.Phase == v1alpha1.TaskSuspended && n.task.Status.Phase != v1alpha1.TaskSuspended)
}

// deleteExpired deletes a Task that has ended when spec.ttlSecondsAfterFinished has passed.
func (r *TaskReconciler) deleteExpired(ctx context.Context, task *v1alpha1.Task) (ctrl.Result, error) {
	if task.Spec.TTLSecondsAfterFinished == nil {
		return ctrl.Result{}, nil
	}
	ttl := time.Duration(*task.Spec.TTLSecondsAfterFinished) * time.Second
	// The end counts by the operator's clock. The Task's completion time is by the clocks of nodes.
	if left := endOf(&task.Status).LastTransitionTime.Add(ttl).Sub(r.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	err := r.Client.Delete(ctx, task, client.Preconditions{UID: &task.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// refusedRetry is how soon a status is retried that the API server has refused: the same one would be refused again.
const refusedRetry = 5 * time.Minute

// writeStatus writes the status if it has changed, and tells the changes in events. Unless the result is empty, the status was not written.
func (r *TaskReconciler) writeStatus(ctx context.Context, n *next, m *memory) (ctrl.Result, error) {
	err := r.patchStatus(ctx, n, m)
	switch {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: staleRetry}, nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsRequestEntityTooLargeError(err):
		r.reportRefusal(ctx, n.task, err, m)
		return ctrl.Result{RequeueAfter: refusedRetry}, nil
	}
	return ctrl.Result{}, err
}

func (r *TaskReconciler) patchStatus(ctx context.Context, n *next, m *memory) error {
	task, status := n.task, n.TaskStatus
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
	pod := cmp.Or(n.pod, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: status.PodName}})
	for _, e := range n.transitions(before.Status) {
		record(r.Events, task, pod, e)
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
