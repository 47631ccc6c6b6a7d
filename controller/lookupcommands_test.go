package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// accounts are ServiceAccounts and their pull secrets, as read from the API server.
type accounts map[string][]string

func (a accounts) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	secrets, ok := a[key.Namespace+"/"+key.Name]
	switch {
	case key.Name == "broken":
		return errors.New("the API server is down")
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("serviceaccounts"), key.Name)
	}
	for _, secret := range secrets {
		account := object.(*corev1.ServiceAccount)
		account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	return nil
}

func (accounts) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("ServiceAccounts are not listed")
}

// recording records the requests.
type recording struct {
	requests []entrypoint.Request
	failure  error
}

func (a *recording) Resolve(_ context.Context, request entrypoint.Request) (entrypoint.Command, error) {
	a.requests = append(a.requests, request)
	return entrypoint.Command{Entrypoint: []string{"/app"}}, a.failure
}

// TestCommands proves for which steps the command of an image is resolved, and with which pull secrets: those of the Pod, which are its
// ServiceAccount's if the template has none.
func TestCommands(t *testing.T) {
	image := corev1.Container{Name: "a", Image: "app", ImagePullPolicy: corev1.PullAlways, Args: []string{"x"}}
	command := corev1.Container{Name: "b", Image: "app", Command: []string{"/app"}}
	all := accounts{"default/default": {"of-default"}, "default/puller": {"one", "two"}, "default/plain": nil, "other/elsewhere": {"no"}}
	cases := map[string]struct {
		spec    corev1.PodSpec
		secrets []string
		refused string
	}{
		"the default account":   {corev1.PodSpec{}, []string{"of-default"}, ""},
		"another account":       {corev1.PodSpec{ServiceAccountName: "puller"}, []string{"one", "two"}, ""},
		"by its old field":      {corev1.PodSpec{DeprecatedServiceAccount: "puller"}, []string{"one", "two"}, ""},
		"an account without":    {corev1.PodSpec{ServiceAccountName: "plain"}, nil, ""},
		"an account not there":  {corev1.PodSpec{ServiceAccountName: "elsewhere"}, nil, ""},
		"the template's own":    {corev1.PodSpec{ServiceAccountName: "puller", ImagePullSecrets: []corev1.LocalObjectReference{{Name: "own"}}}, []string{"own"}, ""},
		"the API server's down": {corev1.PodSpec{ServiceAccountName: "broken"}, nil, `reading the pull secrets of the ServiceAccount "broken": the API server is down`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			commands := &recording{}
			l := newLookups(commands, all, time.Now)
			task := newTask(command, image)
			task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: corev1.Container{Name: "c", Image: "app"}, Script: "exit"})
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: c.spec}
			before := task.DeepCopy()
			got, err := l.resolve(t.Context(), questionsOf(task))
			if c.refused != "" {
				if err == nil || err.Error() != c.refused {
					t.Errorf("commands: %v, want %s", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]podspec.Command{"a": {Command: []string{"/app"}, Args: []string{"x"}}}, got); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			want := []entrypoint.Request{{Namespace: "default", Image: "app", PullPolicy: corev1.PullAlways, PullSecrets: c.secrets, HasArgs: true}}
			if diff := cmp.Diff(want, commands.requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, task); diff != "" {
				t.Errorf("the Task, which is the cache's (-before +after):\n%s", diff)
			}
		})
	}
	// All steps have a command: nothing is read.
	l := newLookups(&recording{failure: errors.New("asked")}, accounts{}, time.Now)
	if commands, unresolved := l.of(t.Context(), newTask(command)); unresolved != nil || len(l.known) > 0 {
		t.Errorf("commands of a Task with commands: %v, %+v; known: %v", commands, unresolved, l.known)
	}
}

// TestUnresolved proves what the status says while a command is not known: nothing at first, then what is resolved, then why that failed. It also
// proves when the Task is reconciled again.
func TestUnresolved(t *testing.T) {
	known := entrypoint.Error{Image: "app", Cause: "has a cause", Remedy: "fix it"}
	permanent := known
	permanent.Permanent = true
	type result struct {
		Phase    v1alpha1.TaskPhase
		Progress []string
		Again    time.Duration
	}
	failed := []string{"False", v1alpha1.ReasonEntrypointUnresolved, `image "app" has a cause; fix it`}
	for name, c := range map[string]struct {
		before *unresolved
		why    unresolved
		want   result
	}{
		"permanent":    {nil, unresolved{err: &permanent}, result{v1alpha1.TaskFailed, failed, 0}},
		"for a time":   {nil, unresolved{err: &known, again: 30 * time.Second}, result{v1alpha1.TaskPending, failed, 30 * time.Second}},
		"refused":      {nil, unresolved{err: &known, again: 30 * time.Second, refused: 10 * time.Second}, result{v1alpha1.TaskPending, failed, 30 * time.Second}},
		"nearly over":  {nil, unresolved{err: &known, again: 30 * time.Second, refused: 50 * time.Second}, result{v1alpha1.TaskPending, failed, 10 * time.Second}},
		"for too long": {nil, unresolved{err: &known, again: 30 * time.Second, refused: time.Minute}, result{v1alpha1.TaskFailed, failed, 0}},
		"just begun":   {nil, unresolved{pending: 300 * time.Millisecond}, result{Again: 700 * time.Millisecond}},
		"begun again":  {&unresolved{err: &known, again: 1}, unresolved{err: &known, pending: 3 * time.Second}, result{v1alpha1.TaskPending, failed, 0}},
		"slow": {nil, unresolved{pending: time.Second}, result{v1alpha1.TaskPending, []string{
			"True", v1alpha1.ReasonEntrypointUnresolved, `step "a": resolving the command of image "app"; set command to skip the look-up`,
		}, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			task := newTask(corev1.Container{Name: "a", Image: "app"})
			f := facts{task: task, now: lookedAt, startGrace: time.Minute, unresolved: c.before}
			if c.before != nil {
				task.Status = decide(f).TaskStatus
			}
			f.unresolved = &c.why
			status := decide(f)
			got := result{Phase: status.Phase, Again: status.again}
			if condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing); condition != nil {
				got.Progress = []string{string(condition.Status), condition.Reason, condition.Message}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
		})
	}
}

// permanentFailure fails with an error that no retry fixes.
type permanentFailure struct{}

// answer resolves each image to the same command.
type answer struct{ command *entrypoint.Command }

func (a answer) Resolve(context.Context, entrypoint.Request) (entrypoint.Command, error) {
	return *a.command, nil
}

func (permanentFailure) Resolve(context.Context, entrypoint.Request) (entrypoint.Command, error) {
	return entrypoint.Command{}, &entrypoint.Error{Permanent: true, Image: "x", Reason: "x", Cause: "has no command", Remedy: "set command"}
}

// TestFilledCommands proves that a step without a command runs what it would run without taskflow.
func TestFilledCommands(t *testing.T) {
	type argv struct{ Command, Args []string }
	var (
		own   = argv{[]string{"sh", "-c"}, []string{"echo $(A)"}}
		image = func(entry, cmd []string) *entrypoint.Command { return &entrypoint.Command{Entrypoint: entry, Cmd: cmd} }
	)
	cases := map[string]struct {
		step  argv
		image *entrypoint.Command
		want  argv
	}{
		"its own command":                      {own, nil, own},
		"ENTRYPOINT":                           {argv{}, image([]string{"/app", "run"}, nil), argv{[]string{"/app", "run"}, nil}},
		"ENTRYPOINT and CMD":                   {argv{}, image([]string{"/app"}, []string{"--help"}), argv{[]string{"/app"}, []string{"--help"}}},
		"ENTRYPOINT, args in the place of CMD": {argv{nil, []string{"$(A)"}}, image([]string{"/app"}, []string{"--help"}), argv{[]string{"/app"}, []string{"$(A)"}}},
		"CMD":                                  {argv{}, image(nil, []string{"sh", "$(A)"}), argv{[]string{"sh", "$$(A)"}, nil}},
		"args in the place of CMD":             {argv{nil, []string{"env", "$(A)"}}, image(nil, []string{"sh"}), argv{[]string{"env", "$(A)"}, nil}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := newTask(
				corev1.Container{Name: "first", Command: []string{"first"}},
				corev1.Container{Name: "step", Command: c.step.Command, Args: c.step.Args},
			)
			commands, err := newLookups(answer{c.image}, accounts{}, time.Now).resolve(t.Context(), questionsOf(task))
			if err != nil {
				t.Fatal(err)
			}
			containers := podspec.New(task, 1, commands).Spec.Containers
			if diff := cmp.Diff(argv{Command: []string{"first"}}, argv{containers[0].Command, containers[0].Args}); diff != "" {
				t.Errorf("what the other step runs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, argv{containers[1].Command, containers[1].Args}); diff != "" {
				t.Errorf("what the step runs (-want +got):\n%s", diff)
			}
		})
	}
}
