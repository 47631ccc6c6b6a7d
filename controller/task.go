package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// +kubebuilder:rbac:groups=api.practice.com,resources=tasks,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=api.practice.com,resources=tasks/status,verbs=patch
// +kubebuilder:rbac:groups=api.practice.com,resources=tasks/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups="",resources=secrets;serviceaccounts,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// settling is how long a kubelet may take to tell how the containers of a Pod have ended which it has said to be over: on a busy
// node it was seen to take longer than one second.
const settling = 3 * time.Second

// noteLookup is how long a look-up may take before the status tells of it.
const noteLookup = time.Second

// staleRetry is how soon a Task is looked at again that somebody else has written to.
const staleRetry = 50 * time.Millisecond

// TaskReconciler makes the Pods of Tasks, and writes what becomes of them into the Tasks' status.
type TaskReconciler struct {
	// Client reads from the cache, which holds the Pods that the webhook has been at.
	Client client.Client
	// Live reads from the API server.
	Live   client.Reader
	Events events.EventRecorder
	Now    func() time.Time
	// StartGrace is how long a container may fail to be started (an image that can't be pulled, a ConfigMap that is missing)
	// before the Task has failed.
	StartGrace time.Duration
	// lookups resolves the commands of images.
	lookups *lookups
	// written has the version of a Task that its status was written over, by the Task's name, until the cache has the next one.
	written sync.Map
	// refusals has the API server's last refusal of a Task's status, by the Task's name.
	refusals sync.Map
	// unsettled has when a Task's Pod was first seen to be over although the kubelet may have another word about it, by the Task's name.
	unsettled sync.Map
	// reports are what events say about Pods that have been starting for long, by the Task's name.
	reports startReports
}

// SetupWithManager registers the controller.
func (r *TaskReconciler) SetupWithManager(manager ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(manager).
		Named("task").
		For(&v1alpha1.Task{}).
		Owns(&corev1.Pod{}).
		WatchesRawSource(source.Func(r.lookups.start)).
		WithOptions(options()).
		Complete(r)
}

// Reconcile brings a Task one step further: it makes the Pod where there should be one, and writes the status where that has
// changed.
func (r *TaskReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var task v1alpha1.Task
	err := r.Client.Get(ctx, request.NamespacedName, &task)
	if before, ok := r.written.Load(request.NamespacedName); ok {
		if err == nil && before == task.ResourceVersion {
			return ctrl.Result{}, nil // the cache is behind: when it has what was written, the Task's turn comes again
		}
		r.written.Delete(request.NamespacedName)
	}
	if err != nil {
		r.unsettled.Delete(request.NamespacedName)
		r.refusals.Delete(request.NamespacedName)
		r.lookups.forget(request.NamespacedName)
		r.reports.forget(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	switch {
	case task.DeletionTimestamp != nil:
		return ctrl.Result{}, nil
	case finished(&task.Status):
		r.reports.forget(request.NamespacedName)
		return r.expire(ctx, &task)
	}
	status, failure := r.advance(ctx, &task)
	if ctx.Err() != nil {
		return ctrl.Result{}, ctx.Err() // the operator ends: that is no state of the Task
	}
	if errors.Is(failure, errStale) {
		return retryStale(failure)
	}
	if err := r.tell(ctx, status); err != nil {
		if status.isEnd() { // nobody would tell the Pod of an end that is written already
			return retryStale(err)
		}
		failure = err
	}
	switch err := r.write(ctx, &task, status.TaskStatus); {
	case apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: staleRetry}, nil
	case isRefused(err):
		return r.tellRefused(ctx, &task, err), nil
	case err != nil:
		return ctrl.Result{}, err
	}
	if failure == nil && finished(&status.TaskStatus) {
		return r.expire(ctx, &task)
	}
	if left, isLimited := status.timeLeft(r.Now()); failure != nil && isLimited && left > 0 && left < lastRetry {
		log.FromContext(ctx).Error(failure, "Trying again before the Task's deadline") // the back-off may end after it
		return ctrl.Result{RequeueAfter: min(left, deadlineRetry)}, nil
	}
	return ctrl.Result{RequeueAfter: status.again}, failure
}

// expire deletes a Task that has ended, when its time has come.
func (r *TaskReconciler) expire(ctx context.Context, task *v1alpha1.Task) (ctrl.Result, error) {
	if task.Spec.TTLSecondsAfterFinished == nil {
		return ctrl.Result{}, nil
	}
	ttl := time.Duration(*task.Spec.TTLSecondsAfterFinished) * time.Second
	if left := finishedAt(&task.Status).Add(ttl).Sub(r.Now()); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	err := r.Client.Delete(ctx, task, client.Preconditions{UID: &task.UID}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// advance returns the Task's next status. With an error it is to be tried again.
func (r *TaskReconciler) advance(ctx context.Context, task *v1alpha1.Task) (*next, error) {
	pod, err := r.pod(ctx, task)
	if err != nil {
		return nextStatus(task, r.StartGrace), err
	}
	if needsSpec(task, pod) {
		if err := r.readWhole(ctx, task); err != nil {
			return nextStatus(task, r.StartGrace), err
		}
	}
	if pod != nil || task.Spec.Cancel || task.Spec.Suspend {
		r.lookups.forget(client.ObjectKeyFromObject(task))
	}
	status, failure := r.decide(ctx, task, pod)
	if pod != nil || !status.isWithoutPod() {
		return status, failure
	}
	// The cache may be behind: a Pod that was created a moment ago would run on under a Task that has ended.
	switch pod, err := r.livePod(ctx, task); {
	case err != nil:
		return nextStatus(task, r.StartGrace), err
	case pod != nil:
		return r.decide(ctx, task, pod)
	}
	return status, failure
}

// decide returns the status that follows from the Task and its Pod, which is nil if there is none, and creates the Pod that is due.
func (r *TaskReconciler) decide(ctx context.Context, task *v1alpha1.Task, pod *corev1.Pod) (*next, error) {
	status := nextStatus(task, r.StartGrace)
	switch {
	case pod != nil && concerns(pod, task):
		return status, r.follow(ctx, task, pod, status)
	case task.Spec.Cancel:
		status.cancelled(r.Now())
		return status, nil
	case task.Status.PodName != "":
		status.podDeleted(nil, r.Now())
		return status, nil
	case task.Spec.Suspend:
		status.suspended()
		return status, nil
	}
	status.start(r.Now())
	if status.isTimedOut(r.Now()) {
		status.failTimedOut(r.Now())
		return status, nil
	}
	defer func() { status.checkDeadline(r.Now()) }()
	if left := status.nextAttempt().Sub(r.Now()); left > 0 {
		status.again = left
		return status, nil
	}
	switch before, err := r.endingPod(ctx, task); {
	case err != nil:
		return status, err
	case before != nil:
		status.waitForEnd(before, r.Now())
		return status, nil
	}

	commands, unresolved := r.lookups.of(ctx, task)
	if unresolved != nil {
		r.unresolved(task, status, unresolved)
		return status, nil
	}
	pod = podspec.New(task, task.Status.Attempt, filledCommands(task, commands))
	markOwner(pod, task)
	status.limit(pod, r.Now())
	key := client.ObjectKeyFromObject(pod)
	err := r.Client.Create(ctx, pod)
	if apierrors.IsAlreadyExists(err) {
		pod = &corev1.Pod{}
		if err := r.Live.Get(ctx, key, pod); err != nil {
			return status, err // it has gone again
		}
		// A Pod that the webhook didn't see has no mark that counts; only the operator leaves one.
		isUnseen := metav1.IsControlledBy(pod, task) && !podspec.IsGated(pod)
		if distrust(pod); !isOwn(pod, task) && !isUnseen {
			return status, r.follow(ctx, task, pod, status)
		}
	} else if err != nil {
		return status, r.refused(status, err)
	}
	if !podspec.IsGated(pod) {
		return status, r.notSequential(ctx, pod, status)
	}
	status.mirror(pod, r.Now())
	return status, nil
}

// notSequential removes a Pod that the webhook has not been at, before a node takes it: all its steps would run at once.
func (r *TaskReconciler) notSequential(ctx context.Context, pod *corev1.Pod, status *next) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}, client.GracePeriodSeconds(0))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the Pod whose steps would all run at once: %w", err)
	}
	status.failed(v1alpha1.ReasonPodRefused, fmt.Sprintf("the API server has not called taskflow's webhook for the Pod, whose steps would all run at once: "+
		"create the Task in another namespace than %s, or install taskflow's MutatingWebhookConfiguration again", pod.Namespace), r.Now())
	return nil
}

// concerns is false for a Pod that only has the name of a suspended Task, as one may that names it.
func concerns(pod *corev1.Pod, task *v1alpha1.Task) bool {
	return !task.Spec.Suspend || task.Status.PodName != "" || isOwn(pod, task)
}

// follow brings the status to what the Pod of the Task's name says, if it is the Task's.
func (r *TaskReconciler) follow(ctx context.Context, task *v1alpha1.Task, pod *corev1.Pod, status *next) error {
	owner := metav1.GetControllerOf(pod)
	switch {
	case isOwn(pod, task):
		status.pod = pod
		if status.again = r.settles(task, pod); status.again == 0 {
			r.readReports(ctx, task, pod, status)
			status.mirror(pod, r.Now())
		}
		return nil
	case owner != nil && owner.Kind == v1alpha1.TaskKind.Kind && owner.Name == task.Name && owner.UID != task.UID && task.Status.PodName == "":
		// Of a Task of the same name that was deleted a moment ago: the garbage collector removes it.
		status.waiting(v1alpha1.ReasonPodNameConflict, fmt.Sprintf("the Pod %q of an earlier Task of this name is still being deleted", pod.Name))
		return errors.New("the Pod of an earlier Task of the same name still exists")
	default:
		status.failed(v1alpha1.ReasonPodNameConflict, fmt.Sprintf("a Pod named %q exists and isn't this Task's: delete or rename it, then create the Task again", pod.Name), r.Now())
		return nil
	}
}

// readReports reads the events of a Pod that has been starting for long.
func (r *TaskReconciler) readReports(ctx context.Context, task *v1alpha1.Task, pod *corev1.Pod, status *next) {
	if key := client.ObjectKeyFromObject(task); status.needsReports(pod, r.Now()) {
		status.reports = r.reports.of(ctx, r.Live, key, pod, r.Now())
	} else {
		r.reports.forget(key)
	}
}

// settles is how long to wait before a Pod that is over may be judged.
func (r *TaskReconciler) settles(task *v1alpha1.Task, pod *corev1.Pod) time.Duration {
	key := client.ObjectKeyFromObject(task)
	if !isUnsettled(pod) {
		r.unsettled.Delete(key)
		return 0
	}
	since, _ := r.unsettled.LoadOrStore(key, r.Now())
	if left := since.(time.Time).Add(settling).Sub(r.Now()); left > 0 {
		return left
	}
	r.unsettled.Delete(key)
	return 0
}

// unresolved: the commands of the Task's images aren't known, yet or for good.
func (r *TaskReconciler) unresolved(task *v1alpha1.Task, status *next, why *unresolved) {
	progress := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionProgressing)
	switch {
	case why.pending > 0 && (why.err != nil || why.pending < noteLookup || progress != nil && progress.Reason == v1alpha1.ReasonEntrypointUnresolved):
		status.TaskStatus = *task.Status.DeepCopy() // it says enough; most look-ups end sooner than they are written about
		status.again = max(noteLookup-why.pending, 0)
	case why.pending > 0:
		status.resolving()
	case isPermanent(why.err), why.refused > 0 && why.refused >= r.StartGrace:
		r.lookups.forget(client.ObjectKeyFromObject(task))
		status.failed(v1alpha1.ReasonEntrypointUnresolved, why.err.Error(), r.Now())
	default:
		status.waiting(v1alpha1.ReasonEntrypointUnresolved, why.err.Error())
		status.again = why.again
		if why.refused > 0 {
			status.again = min(why.again, r.StartGrace-why.refused)
		}
	}
}

// refused returns the error where another try may help.
func (r *TaskReconciler) refused(status *next, err error) error {
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		status.failed(v1alpha1.ReasonPodInvalid, "the API server finds the Pod invalid: "+err.Error(), r.Now())
		return nil
	}
	status.waiting(v1alpha1.ReasonPodRefused, "the API server refuses the Pod: "+err.Error())
	return err
}

// write writes the status, if it has changed, and tells of what has changed in events.
func (r *TaskReconciler) write(ctx context.Context, task *v1alpha1.Task, status v1alpha1.TaskStatus) error {
	if equality.Semantic.DeepEqual(task.Status, status) {
		return nil
	}
	// Without the spec, which is most of what both sides would be encoded and decoded for, to find what has changed.
	before := &v1alpha1.Task{ObjectMeta: task.ObjectMeta, Status: task.Status}
	after := &v1alpha1.Task{ObjectMeta: task.ObjectMeta, Status: status}
	task.Status = status
	patch, err := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}).Data(after)
	if err != nil {
		return err
	}
	answer := metadata(task, v1alpha1.TaskKind)
	if err := r.Client.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return client.IgnoreNotFound(err) // it was deleted: nobody reads it any more
	}
	if answer.ResourceVersion != before.ResourceVersion {
		r.written.Store(client.ObjectKeyFromObject(task), before.ResourceVersion)
	}
	measure(before.Status, status)
	for _, e := range transitions(before.Status, status) {
		record(r.Events, task, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: task.Namespace, Name: status.PodName}}, e)
	}
	return nil
}

// transitions are the events that tell how one status became the other.
func transitions(before, after v1alpha1.TaskStatus) []event {
	var all []event
	if before.PodName == "" && after.PodName != "" {
		all = append(all, event{kind: corev1.EventTypeNormal, reason: v1alpha1.ReasonPodCreated, action: "CreatePod", note: fmt.Sprintf("created the Pod %q", after.PodName)})
	}
	for _, e := range stepEvents(stepsOf(before, after.PodName), after.Steps) {
		if failed := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionFailed); failed == nil || failed.Message != e.note {
			all = append(all, e)
		}
	}
	for _, condition := range after.Conditions {
		old := meta.FindStatusCondition(before.Conditions, condition.Type)
		if old != nil && old.Status == condition.Status && old.Reason == condition.Reason && old.Message == condition.Message {
			continue
		}
		switch {
		case condition.Type == v1alpha1.ConditionComplete && condition.Status == metav1.ConditionTrue:
			all = append(all, event{kind: corev1.EventTypeNormal, reason: condition.Type, action: "RunSteps", note: condition.Message})
		case condition.Type == v1alpha1.ConditionFailed && condition.Status == metav1.ConditionTrue:
			all = append(all, event{kind: corev1.EventTypeWarning, reason: condition.Reason, action: "RunSteps", note: condition.Message})
		case condition.Type == v1alpha1.ConditionSuspended:
			all = append(all, event{kind: corev1.EventTypeNormal, reason: condition.Reason, action: "Suspend", note: condition.Message})
		case condition.Type == v1alpha1.ConditionProgressing && condition.Status == metav1.ConditionFalse && !finished(&after) && after.Phase != v1alpha1.TaskSuspended:
			all = append(all, event{kind: corev1.EventTypeWarning, reason: condition.Reason, action: "RunSteps", note: condition.Message})
		}
	}
	return all
}

// stepsOf are the steps of a status, where they are those of the Pod.
func stepsOf(status v1alpha1.TaskStatus, pod string) []v1alpha1.StepStatus {
	if status.PodName != pod {
		return nil
	}
	return status.Steps
}
