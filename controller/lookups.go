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
	// parallelLookups and namespaceLookups bound the Tasks whose commands are being resolved, in total and of one namespace.
	parallelLookups, namespaceLookups = 32, 4
	// lookupTimeout bounds the look-ups of one Task, all steps together.
	lookupTimeout = 20 * time.Second
	// keepResult is how long commands are kept for the worker that makes the Pod.
	keepResult = 10 * time.Second
	// noteLookup is how long a look-up may take before the status mentions it. Most take less, and cost no status write.
	noteLookup = time.Second
	// forgetLookup is how long a failure is kept of a Task that nobody asks about any more. It is longer than any back-off.
	forgetLookup = 15 * time.Minute
)

// CommandResolver finds out which command an image runs (entrypoint.Resolver).
type CommandResolver interface {
	Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error)
}

// lookups resolves the commands of Tasks' images aside from the controller's workers: a worker asks, goes on with other Tasks, and gets the
// Task again when the answer is there. So a registry that is slow, or never answers, delays only the Tasks that need it: namespaces
// take turns, and each has a bounded share.
type lookups struct {
	commands CommandResolver
	// live reads ServiceAccounts from the API server.
	live    client.Reader
	now     func() time.Time
	limiter *fair.Limiter
	// timeout is lookupTimeout.
	timeout time.Duration
	// requeue gives a Task to a worker. It must not block.
	requeue func(reconcile.Request)

	mutex sync.Mutex
	known map[types.NamespacedName]*lookup
	swept time.Time
}

// lookup is what is known of one Task's commands.
type lookup struct {
	of lookupVersion
	// asked is when the Task's controller asked last.
	asked time.Time
	// since is when the look-up began that is in flight; zero if none is.
	since time.Time
	// cancel ends the look-up, and drops its result.
	cancel context.CancelFunc
	// commands are the result, by the steps' names; nil unless all are known.
	commands map[string]entrypoint.Command
	// err is why the last look-up failed, failures how many have in a row, and retry when the next one is due.
	err      error
	failures int
	retry    time.Time
	// refused is since when all look-ups have failed as entrypoint.Error.IsRefusal says, and zero if the last one has not.
	refused time.Time
}

// lookupVersion is what a result is good for: one Pod of one version of a Task.
type lookupVersion struct {
	uid        types.UID
	generation int64
	attempt    int32
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

// start is a source of the Task controller.
func (l *lookups) start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.requeue = queue.Add
	return nil
}

// unresolved says why the commands of a Task are not known.
type unresolved struct {
	// err is why the last look-up failed; nil if there was none.
	err error
	// pending is how long the look-up in flight has taken; 0 if none is.
	pending time.Duration
	// again is when to ask again, although no look-up has ended; 0 is never.
	again time.Duration
	// refused is for how long the answer has been that there is no such image for the Task; 0 if that is not the answer. An operator that
	// takes over counts anew.
	refused time.Duration
}

// of returns the commands of the steps that have none, by the steps' names, and takes them out; or why they are not known. It never waits: if it
// has to look them up, the Task is requeued when that has ended.
func (l *lookups) of(ctx context.Context, task *v1alpha1.Task) (map[string]entrypoint.Command, *unresolved) {
	asked := questionsOf(task)
	if len(asked.steps) == 0 {
		return nil, nil
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	key, now := client.ObjectKeyFromObject(task), l.now()
	l.sweep(now)
	version := lookupVersion{task.UID, task.Generation, task.Status.Attempt}
	known := l.known[key]
	if known != nil && known.of != version {
		l.drop(key)
		known = nil
	}
	if known == nil {
		known = &lookup{of: version}
		l.known[key] = known
	}
	known.asked = now
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
	message := fmt.Sprintf("step %q: resolving the command of image %q; set command to need no registry", asked.steps[0], asked.requests[0].Image)
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

// failUnresolved: no retry helps, or the image has been missing for the start grace period.
func (n *next) failUnresolved() {
	n.failed(v1alpha1.ReasonEntrypointUnresolved, n.unresolved.err.Error(), n.now)
}

// forget drops what is known of a Task, and ends its look-up.
func (l *lookups) forget(key types.NamespacedName) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.drop(key)
}

func (l *lookups) drop(key types.NamespacedName) {
	if known := l.known[key]; known != nil {
		if known.cancel != nil {
			known.cancel()
		}
		delete(l.known, key)
	}
}

// sweep drops what nobody has asked for in a long time.
func (l *lookups) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Minute {
		return
	}
	l.swept = now
	for key, known := range l.known {
		if now.Sub(known.asked) > forgetLookup {
			l.drop(key)
		}
	}
}

// run resolves the commands of a Task when its namespace has its turn. It keeps the slot until a worker has taken the result: so the results
// that are kept are bounded, too.
func (l *lookups) run(ctx context.Context, key types.NamespacedName, known *lookup, asked questions) {
	if l.limiter.Acquire(ctx, key.Namespace) != nil {
		return // nobody wants it any more
	}
	defer l.limiter.Release(key.Namespace)
	commands, err := l.resolve(ctx, asked)
	if l.end(ctx, key, known, commands, err) {
		taken := time.NewTimer(keepResult)
		defer taken.Stop()
		select {
		case <-ctx.Done():
		case <-taken.C:
			l.mutex.Lock()
			defer l.mutex.Unlock()
			if l.known[key] == known {
				l.drop(key)
			}
		}
	}
}

// end keeps the result of a look-up, and reports whether there is one that a worker has yet to take.
func (l *lookups) end(ctx context.Context, key types.NamespacedName, known *lookup, commands map[string]entrypoint.Command, err error) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if ctx.Err() != nil {
		return false // dropped
	}
	known.since, known.commands = time.Time{}, commands
	if err != nil {
		known.cancel() // there is nothing to take
		known.cancel = nil
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

// retryAfter is as long as the registry asks for, or longer with each failure.
func retryAfter(err error, failures int) time.Duration {
	if known, ok := errors.AsType[*entrypoint.Error](err); ok && known.RetryAfter > 0 {
		return known.RetryAfter
	}
	return min(firstRetry<<min(failures-1, 10), lastRetry)
}

func needsCommand(step *v1alpha1.Step) bool { return len(step.Command) == 0 && step.Script == "" }

// questions are what to resolve for a Task, without the rest of it.
type questions struct {
	// account is the ServiceAccount whose pull secrets count; empty if the template has its own.
	account  client.ObjectKey
	steps    []string
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
	for i := range task.Spec.Steps {
		if step := &task.Spec.Steps[i]; needsCommand(step) {
			q.steps = append(q.steps, step.Name)
			q.requests = append(q.requests, entrypoint.RequestFor(task.Namespace, &spec, &step.Container))
		}
	}
	return q
}

// resolve returns the commands by the steps' names, or one error: that of the first step whose failure no retry mends, or else that of the
// first step that failed.
func (l *lookups) resolve(ctx context.Context, q questions) (map[string]entrypoint.Command, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if err := l.addSecrets(ctx, q); err != nil {
		return nil, err
	}
	found, failed := entrypoint.ResolveAll(ctx, l.commands.Resolve, q.requests)
	commands := map[string]entrypoint.Command{}
	var first error
	for i, step := range q.steps {
		commands[step] = found[i]
		if failed[i] == nil {
			continue
		}
		err := fmt.Errorf("step %q: %w", step, failed[i])
		if errors.Is(failed[i], context.DeadlineExceeded) {
			err = fmt.Errorf("step %q: the registry did not tell the command of image %q in time: set command", step, q.requests[i].Image)
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

// filledCommands returns what the steps run whose commands come from their images, by the names of the steps.
func filledCommands(task *v1alpha1.Task, found map[string]entrypoint.Command) map[string]podspec.Command {
	commands := make(map[string]podspec.Command, len(found))
	for i := range task.Spec.Steps {
		step := &task.Spec.Steps[i]
		if image, ok := found[step.Name]; ok {
			command, args := image.Fill(step.Args)
			commands[step.Name] = podspec.Command{Command: command, Args: args, Image: image.Image}
		}
	}
	return commands
}

// isPermanent reports whether no retry helps.
func isPermanent(err error) bool {
	known, ok := errors.AsType[*entrypoint.Error](err)
	return ok && known.Permanent
}

// addSecrets adds the pull secrets that the API server will give the Task's Pod: those of its ServiceAccount, if the template sets none
// (k8s.io/kubernetes/plugin/pkg/admission/serviceaccount). A ServiceAccount that doesn't exist has none; the API server
// will refuse the Pod for it.
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
