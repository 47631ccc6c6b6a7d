package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/fair"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

const (
	// parallelLookups and namespaceLookups bound the Tasks whose commands are being resolved, in total and in one namespace.
	parallelLookups, namespaceLookups = 32, 4
	// lookupTimeout bounds the look-ups of one Task, all steps together.
	lookupTimeout = 20 * time.Second
	// keepResult is how long commands are kept for the worker that creates the Pod.
	keepResult = 10 * time.Second
	// noteLookup is how long a look-up may take before the status mentions it. Most take less, and cost no status write.
	noteLookup = time.Second
)

// CommandResolver resolves the command that an image runs (entrypoint.Resolver).
type CommandResolver interface {
	Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error)
}

// lookups resolves the commands of Tasks' images outside of the controller's workers. A worker asks, goes on with other Tasks, and gets the Task
// again when the answer is there. So a slow registry delays only the Tasks that need it. Namespaces take turns, and each has a bounded share.
type lookups struct {
	commands CommandResolver
	// live reads ServiceAccounts from the API server.
	live    client.Reader
	now     func() time.Time
	limiter *fair.Limiter
	timeout time.Duration // lookupTimeout, but in tests
	// requeue gives a Task to a worker. It must not block.
	requeue func(reconcile.Request)

	mutex sync.Mutex
	known map[types.NamespacedName]*lookup
}

// lookup is what is known about the commands of one Task.
type lookup struct {
	// version is what a result is valid for: one Pod of one version of a Task.
	version string
	// since is when the look-up in flight began; zero if there is none.
	since time.Time
	// cancel ends the look-up and drops its result.
	cancel context.CancelFunc
	// commands are the result, by the steps' names; nil unless all are known.
	commands map[string]podspec.Command
	// err is why the last look-up failed, failures is how many failed in a row, and retry is when the next one is due.
	err      error
	failures int
	retry    time.Time
	// refused is since when each look-up was refused (entrypoint.Error.IsRefusal); zero if the last one was not.
	refused time.Time
}

func newLookups(commands CommandResolver, live client.Reader, now func() time.Time) *lookups {
	return &lookups{
		commands: commands,
		live:     live,
		now:      now,
		limiter:  fair.NewLimiter(parallelLookups, namespaceLookups),
		timeout:  lookupTimeout,
		requeue:  func(reconcile.Request) {},
		known:    map[types.NamespacedName]*lookup{},
	}
}

// start makes lookups a source of the Task controller.
func (l *lookups) start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.requeue = queue.Add
	return nil
}

// unresolved is why the commands of a Task are not known.
type unresolved struct {
	// err is why the last look-up failed; nil if there was none.
	err error
	// pending is how long the look-up in flight has taken; 0 if there is none.
	pending time.Duration
	// again is when to ask again, although no look-up has ended; 0 is never.
	again time.Duration
	// refused is how long the answer has been that the Task can't have the image; 0 if that is not the answer. An operator that takes over
	// counts from 0.
	refused time.Duration
}

// of returns the commands of the steps that set none, by the steps' names, and drops them; or why they are not known. It never waits: if a look-up
// is needed, the Task is requeued when that has ended.
func (l *lookups) of(ctx context.Context, task *v1alpha1.Task) (map[string]podspec.Command, *unresolved) {
	asked := questionsOf(task)
	if len(asked.steps) == 0 {
		return nil, nil
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	key, now := client.ObjectKeyFromObject(task), l.now()
	version := fmt.Sprintf("%s/%d/%d", task.UID, task.Generation, task.Status.Attempt)
	known := l.known[key]
	if known == nil || known.version != version {
		l.drop(key)
		known = &lookup{version: version}
		l.known[key] = known
	}
	if known.commands != nil {
		l.drop(key)
		return known.commands, nil
	}
	if known.since.IsZero() {
		if left := known.retry.Sub(now); left > 0 {
			why := &unresolved{err: known.err, again: left}
			if !known.refused.IsZero() {
				why.refused = max(now.Sub(known.refused), 1)
			}
			return nil, why
		}
		known.since = now
		var flight context.Context
		flight, known.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go l.run(flight, key, known, asked)
	}
	return nil, &unresolved{err: known.err, pending: max(now.Sub(known.since), 1)}
}

// resolving: a registry has yet to answer.
func (n *next) resolving() {
	asked := questionsOf(n.task)
	message := fmt.Sprintf("step %q: resolving the command of image %q; set command to skip the look-up", asked.steps[0], asked.requests[0].Image)
	n.waiting(v1alpha1.ReasonEntrypointUnresolved, message)
	n.progressing(metav1.ConditionTrue, v1alpha1.ReasonEntrypointUnresolved, message)
}

// retryLookup: the last look-up failed, and the next one may succeed.
func (n *next) retryLookup() {
	n.waiting(v1alpha1.ReasonEntrypointUnresolved, n.unresolved.err.Error())
	n.again = n.unresolved.again
	if n.unresolved.refused > 0 {
		n.again = min(n.again, n.startGrace-n.unresolved.refused)
	}
}

// forget drops what is known about a Task, and ends its look-up.
func (l *lookups) forget(key types.NamespacedName) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.drop(key)
}

func (l *lookups) drop(key types.NamespacedName) {
	if known := l.known[key]; known != nil {
		known.cancel()
		delete(l.known, key)
	}
}

// run resolves the commands of a Task when its namespace has its turn. It keeps the slot until a worker has taken the result, which bounds the
// kept results as well.
func (l *lookups) run(ctx context.Context, key types.NamespacedName, known *lookup, asked questions) {
	if l.limiter.Acquire(ctx, key.Namespace) != nil {
		return // forgotten
	}
	defer l.limiter.Release(key.Namespace)
	commands, err := l.resolve(ctx, asked)
	if !l.end(ctx, key, known, commands, err) {
		return
	}
	kept, cancel := context.WithTimeout(ctx, keepResult)
	defer cancel()
	<-kept.Done() // a worker has taken the result, or none came
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.known[key] == known {
		l.drop(key)
	}
}

// end keeps the result of a look-up, and reports whether a worker has yet to take it.
func (l *lookups) end(ctx context.Context, key types.NamespacedName, known *lookup, commands map[string]podspec.Command, err error) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if ctx.Err() != nil {
		return false // dropped
	}
	known.since, known.commands = time.Time{}, commands
	if err != nil {
		known.cancel() // there is nothing to take
		known.err = err
		known.failures++
		known.retry = l.now().Add(retryAfter(err, known.failures))
		if e, ok := errors.AsType[*entrypoint.Error](err); !ok || !e.IsRefusal() {
			known.refused = time.Time{}
		} else if known.refused.IsZero() {
			known.refused = l.now()
		}
	}
	l.requeue(reconcile.Request{NamespacedName: key})
	return err == nil
}

// retryAfter returns the pause before the next look-up: what the registry asks for, or longer with each failure.
func retryAfter(err error, failures int) time.Duration {
	if known, ok := errors.AsType[*entrypoint.Error](err); ok && known.RetryAfter > 0 {
		return known.RetryAfter
	}
	return min(firstRetry<<min(failures-1, 10), lastRetry)
}

// questions are what to resolve for a Task.
type questions struct {
	// account is the ServiceAccount whose pull secrets apply; empty if the template has its own.
	account client.ObjectKey
	// steps and args are the names and arguments of the steps that set no command, and requests are about their images.
	steps    []string
	args     [][]string
	requests []entrypoint.Request
}

// questionsOf asks for the commands of the steps that set none.
func questionsOf(task *v1alpha1.Task) questions {
	var q questions
	var spec corev1.PodSpec
	if task.Spec.Template != nil {
		spec = task.Spec.Template.Spec
	}
	if len(spec.ImagePullSecrets) == 0 {
		q.account = client.ObjectKey{Namespace: task.Namespace, Name: cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount, "default")}
	}
	steps := podspec.EffectiveSteps(task)
	for i := range steps {
		if step := &steps[i]; len(step.Command) == 0 && step.Script == "" {
			q.steps, q.args = append(q.steps, step.Name), append(q.args, step.Args)
			q.requests = append(q.requests, entrypoint.RequestFor(task.Namespace, &spec, &step.Container))
		}
	}
	return q
}

// resolve returns the commands by the steps' names, or one error: the first one that no retry fixes, or else the first one.
func (l *lookups) resolve(ctx context.Context, q questions) (map[string]podspec.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if err := l.addSecrets(ctx, q); err != nil {
		return nil, err
	}
	found, failed := entrypoint.ResolveAll(ctx, l.commands.Resolve, q.requests)
	commands := map[string]podspec.Command{}
	var first error
	for i, step := range q.steps {
		if failed[i] == nil {
			command, args := found[i].Fill(q.args[i])
			commands[step] = podspec.Command{Command: command, Args: args, Image: found[i].Image}
			continue
		}
		err := fmt.Errorf("step %q: %w", step, failed[i])
		if errors.Is(failed[i], context.DeadlineExceeded) {
			err = fmt.Errorf("step %q: resolving the command of image %q timed out; set command to skip the look-up", step, q.requests[i].Image)
		}
		if isPermanent(err) {
			return nil, err
		}
		first = cmp.Or(first, err)
	}
	if first != nil {
		return nil, first
	}
	return commands, nil
}

// isPermanent reports whether no retry fixes the error.
func isPermanent(err error) bool {
	known, ok := errors.AsType[*entrypoint.Error](err)
	return ok && known.Permanent
}

// addSecrets adds the pull secrets that the API server will give the Task's Pod: those of its ServiceAccount, if the template sets none
// (k8s.io/kubernetes/plugin/pkg/admission/serviceaccount). If the ServiceAccount does not exist, the API server will reject the Pod.
func (l *lookups) addSecrets(ctx context.Context, q questions) error {
	if q.account.Name == "" {
		return nil
	}
	var account corev1.ServiceAccount
	if err := l.live.Get(ctx, q.account, &account); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the pull secrets of the ServiceAccount %q: %w", q.account.Name, err)
	}
	for i := range q.requests {
		for _, secret := range account.ImagePullSecrets {
			q.requests[i].PullSecrets = append(q.requests[i].PullSecrets, secret.Name)
		}
	}
	return nil
}
