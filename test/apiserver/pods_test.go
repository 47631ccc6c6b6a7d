//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

func sequentialLabel() map[string]string { return map[string]string{contract.SequentialLabel: "true"} }

func taskLabel(name string) map[string]string { return map[string]string{contract.TaskLabel: name} }

// agents returns, for each step of the Pod, its number and the command behind its agent.
func agents(t *testing.T, pod *corev1.Pod) map[string]string {
	t.Helper()
	all := map[string]string{}
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	for _, container := range pod.Spec.Containers {
		if !slices.Contains(steps, container.Name) || !slices.Equal(container.Command, []string{contract.AgentPath}) {
			continue
		}
		flags, err := contract.ParseAgentFlags(container.Args)
		if err != nil {
			t.Fatal(err)
		}
		all[container.Name] = fmt.Sprint(flags.WaitContent, " ", strings.Join(flags.Command, " "))
	}
	return all
}

// wantEvents waits until an object has as many events as wanted, and compares them.
func wantEvents(t *testing.T, object client.Object, want ...string) {
	t.Helper()
	var got []string
	wait.For(t, "the events", func(ctx context.Context) error {
		var list eventsv1.EventList
		if err := cluster.List(ctx, &list, client.InNamespace(object.GetNamespace())); err != nil {
			return err
		}
		got = nil
		for _, event := range list.Items {
			if event.Regarding.UID == object.GetUID() {
				note := event.Type + " " + event.Reason + ": " + event.Note
				if event.Series != nil {
					note += fmt.Sprintf(" (%d times)", event.Series.Count)
				}
				got = append(got, note)
			}
		}
		if len(got) < len(want) {
			return fmt.Errorf("there are %q", got)
		}
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestPlainPod proves that a labelled Pod needs no Task: its annotations and events show the progress, and each step has one event. The
// first step waits until the helper is ready.
func TestPlainPod(t *testing.T) {
	pod := podWithLabels(cluster.NewNamespace(t, "privileged"), "plain", sequentialLabel(), echo("a"), echo("helper"), echo("b"))
	pod.Annotations = map[string]string{contract.StepsAnnotation: "a,b"}
	cluster.Make(t, pod)
	if diff := cmp.Diff(map[string]string{"a": "1 echo a", "b": "2 echo b"}, agents(t, pod)); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	if got := pod.Annotations[contract.OrderAnnotation]; got != "0" {
		t.Errorf("the order is %q before the helper is ready", got)
	}
	setStates(t, pod, corev1.PodRunning, running(), running(), running())
	before := pod.DeepCopy()
	pod.Status.ContainerStatuses[1].Ready = true
	if err := cluster.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	awaitOrder(t, pod, "1")
	setStates(t, pod, corev1.PodRunning, ended(0), running(), running())
	awaitOrder(t, pod, "2")
	wantEvents(t, pod, `Normal StepStarted: step "a" started`, `Normal StepSucceeded: step "a" succeeded`, `Normal StepStarted: step "b" started`)
	setStates(t, pod, corev1.PodRunning, ended(0), running(), ended(42))
	wait.For(t, "the halt", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Annotations[contract.HaltAnnotation] != `step "b" failed with exit code 42` {
			return fmt.Errorf("the annotations are %v", pod.Annotations)
		}
		return nil
	})
	setStates(t, pod, corev1.PodFailed, ended(0), ended(0), ended(42))
	wantEvents(t, pod, `Normal StepStarted: step "a" started`, `Normal StepSucceeded: step "a" succeeded`,
		`Normal StepStarted: step "b" started`, `Warning StepFailed: step "b" failed with exit code 42`,
		`Warning Halted: no further step starts: step "b" failed with exit code 42`)
}

// TestTaskEventsNameEachStep proves that the events of a Task name each of its steps. The API merges events with the same reason about the
// same object.
func TestTaskEventsNameEachStep(t *testing.T) {
	task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "told", "a", "b")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, running(), running())
	cluster.AwaitTask(t, task, "step a", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "a" && s.Phase == v1alpha1.TaskRunning })
	setStates(t, pod, corev1.PodRunning, ended(0), running())
	awaitOrder(t, pod, "2")
	cluster.AwaitTask(t, task, "step b", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "b" && s.Order == 2 })
	setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0))
	cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
	wantEvents(t, task, `Normal PodCreated: created the Pod "told"`, `Normal StepStarted: step "a" started`, `Normal StepSucceeded: step "a" succeeded`,
		`Normal StepStarted: step "b" started`, `Normal StepSucceeded: step "b" succeeded`, "Normal Complete: all steps succeeded")
}

// TestPodThatNamesATask proves that a suspended Task serves as a template, even for a Pod of its own name, and that this Pod's end doesn't
// change the Task.
func TestPodThatNamesATask(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "build", Namespace: namespace}}
	task.Spec.Suspend = true
	task.Spec.Steps = []v1alpha1.Step{
		{Container: echo("fetch")},
		{Container: corev1.Container{Name: "compile", Image: "busybox", Args: []string{"all"}}, Script: "make $1"},
	}
	task.Spec.Sidecars = []corev1.Container{echo("db")}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the suspension", harness.InPhase(v1alpha1.TaskSuspended))
	version := task.ResourceVersion

	fetch := corev1.Container{Name: "fetch", Image: "task", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}
	pod := podWithLabels(namespace, "build", taskLabel("build"), fetch)
	cluster.Make(t, pod)
	if diff := cmp.Diff(map[string]string{"fetch": "1 echo fetch", "compile": "2 /bin/sh /taskflow/scripts/2 all"}, agents(t, pod)); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	if got := pod.Spec.Containers[0]; got.Image != "busybox" || got.ImagePullPolicy != corev1.PullAlways || len(got.Env) != 1 {
		t.Errorf("the overridden step is %+v", got)
	}
	setStates(t, pod, corev1.PodRunning, running(), running())
	setStates(t, pod, corev1.PodRunning, ended(0), running())
	awaitOrder(t, pod, "2")
	setStates(t, pod, corev1.PodFailed, ended(0), ended(1))
	wantEvents(t, pod, `Normal StepStarted: step "fetch" started`, `Normal StepSucceeded: step "fetch" succeeded`,
		`Normal StepStarted: step "compile" started`, `Warning StepFailed: step "compile" failed with exit code 1`)
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(version, task.ResourceVersion); diff != "" {
		t.Errorf("the Task was touched (-before +after), its status is now %+v:\n%s", task.Status, diff)
	}
}

// TestForgedPod proves that a Pod which names a Task, and has the name that the Task's own Pod would have, doesn't count as the Task's own.
func TestForgedPod(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	task := makeEchoTask(t, namespace, "real", "a")
	awaitPod(t, task)
	forged := podWithLabels(namespace, "real-retry-1", taskLabel("real"), corev1.Container{Name: "task", Image: "task"})
	forged.OwnerReferences = []metav1.OwnerReference{{APIVersion: "api.practice.com/v1alpha1", Kind: "Task", Name: "real", UID: "11111111-1111-1111-1111-111111111111"}}
	cluster.Make(t, forged)
	before := cluster.AwaitTask(t, task, "the Pod", func(s v1alpha1.TaskStatus) bool { return s.PodName == "real" })
	setStates(t, forged, corev1.PodRunning, ended(1))
	wait.For(t, "the halt of the forged Pod", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(forged), forged); err != nil {
			return err
		}
		if forged.Annotations[contract.HaltAnnotation] == "" {
			return errors.New("it isn't halted")
		}
		return nil
	})
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, task.Status); diff != "" {
		t.Errorf("the status of the Task (-before +after):\n%s", diff)
	}
}

// TestTaskAndPodAtOnce proves that a Task and a Pod that names it can be created at the same time, and that a Pod whose Task is missing is
// refused with a sentence.
func TestTaskAndPodAtOnce(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	for i := range 20 {
		name := fmt.Sprintf("at-once-%d", i)
		task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
		task.Spec.Suspend, task.Spec.Steps = true, []v1alpha1.Step{{Container: echo("a")}}
		cluster.Make(t, task)
		cluster.Make(t, podWithLabels(namespace, name, taskLabel(name), corev1.Container{Name: "task", Image: "task"}))
	}
	err := cluster.Create(t.Context(), podWithLabels(namespace, "missing", taskLabel("missing"), corev1.Container{Name: "task", Image: "task"}))
	want := fmt.Sprintf(`metadata.labels: taskflow.practice.com/task names the Task "missing", which doesn't exist in the namespace %q: create it, or fix the name`, namespace)
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, and not %q", err, want)
	}
}

// TestPodsOfOthers proves that the creator of a Pod reads what is wrong with it, and that taskflow ignores Pods without a label and Pods in
// the cluster's own namespaces.
func TestPodsOfOthers(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	t.Run("refused", func(t *testing.T) {
		pod := podWithLabels(namespace, "refused", map[string]string{contract.SequentialLabel: "True"}, echo("a"))
		err := cluster.Create(t.Context(), pod)
		if want := `metadata.labels: taskflow.practice.com/sequential is "True": set it to "true", or remove it`; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, and not %q", err, want)
		}
	})
	untouched := map[string]*corev1.Pod{
		"no label":         podWithLabels(namespace, "unlabelled", nil, echo("a")),
		"false":            podWithLabels(namespace, "false", map[string]string{contract.SequentialLabel: "false"}, echo("a")),
		"in kube-system":   podWithLabels("kube-system", "labelled", sequentialLabel(), echo("a")),
		"the steps' alone": podWithLabels(namespace, "annotated", nil, echo("a")),
	}
	untouched["the steps' alone"].Annotations = map[string]string{contract.StepsAnnotation: "a"}
	for name, pod := range untouched {
		t.Run(name, func(t *testing.T) {
			want := pod.DeepCopy()
			cluster.Make(t, pod)
			t.Cleanup(func() {
				if err := cluster.Delete(context.WithoutCancel(t.Context()), pod, client.GracePeriodSeconds(0)); err != nil {
					t.Error(err)
				}
			})
			if diff := cmp.Diff(want.Annotations, pod.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if len(pod.Spec.InitContainers)+len(pod.Spec.Volumes) > 0 || !slices.Equal(pod.Spec.Containers[0].Command, []string{"echo"}) {
				t.Errorf("the Pod was changed: %+v", pod.Spec)
			}
		})
	}
}

// TestLimitRange proves that the defaults of a LimitRange, which the API server writes into a Pod before it calls the webhook, don't
// override the Task's values, and apply where the Task has none.
func TestLimitRange(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "defaults", Namespace: namespace}}
	limits.Spec.Limits = []corev1.LimitRangeItem{{
		Type:           corev1.LimitTypeContainer,
		Default:        corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")},
		DefaultRequest: corev1.ResourceList{"cpu": resource.MustParse("50m")},
	}}
	cluster.Make(t, limits)
	large := func(name string) v1alpha1.Step {
		step := v1alpha1.Step{Container: echo(name)}
		step.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("2")}
		step.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("4")}
		return step
	}
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "large", Namespace: namespace}}
	task.Spec.Suspend, task.Spec.Steps = true, []v1alpha1.Step{large("placed"), large("overridden"), large("added")}
	cluster.Make(t, task)
	pod := podWithLabels(namespace, "x", taskLabel("large"), corev1.Container{Name: "task", Image: "task"}, corev1.Container{Name: "overridden", Image: "task"})
	wait.For(t, "the LimitRange to count", func(ctx context.Context) error {
		plain := podWithLabels(namespace, "plain", nil, echo("a"))
		if err := cluster.Create(ctx, plain, client.DryRunAll); err != nil {
			return err
		}
		if len(plain.Spec.Containers[0].Resources.Limits) == 0 {
			return errors.New("it doesn't yet")
		}
		return nil
	})
	cluster.Make(t, pod)
	got := map[string]string{}
	for _, container := range pod.Spec.Containers {
		r := container.Resources
		got[container.Name] = fmt.Sprint(r.Requests.Cpu(), " ", r.Limits.Cpu(), " ", r.Limits.Memory())
	}
	want := map[string]string{"placed": "2 4 64Mi", "overridden": "2 4 64Mi", "added": "2 4 64Mi"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request and limit of cpu, limit of memory (-want +got):\n%s", diff)
	}
}

// TestTaskWithoutTheWebhook proves that a Task fails, with a message, in a namespace that the webhook isn't called for. None of its steps
// runs, because all would start at once. The same holds if an operator created such a Pod and ended before it deleted it.
func TestTaskWithoutTheWebhook(t *testing.T) {
	for name, left := range map[string]bool{"nothing-there": false, "a-pod-left": true} {
		t.Run(name, func(t *testing.T) {
			task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-system"}}
			task.Spec.Steps = []v1alpha1.Step{{Container: echo("a")}, {Container: echo("b")}}
			task.Spec.Suspend = left
			cluster.Make(t, task)
			t.Cleanup(func() {
				if err := cluster.Delete(context.WithoutCancel(t.Context()), task); err != nil {
					t.Error(err)
				}
			})
			if left {
				pod := podWithLabels(task.Namespace, name, taskLabel(name), echo("a"), echo("b")) // as the operator creates it; the webhook adds the other label
				pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)}
				metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.TaskUIDAnnotation, string(task.UID))
				cluster.Make(t, pod)
				patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":false}}`))
				if err := cluster.Patch(t.Context(), task, patch); err != nil {
					t.Fatal(err)
				}
			}
			failed := awaitFailed(t, task)
			want := "the API server did not call taskflow's webhook for the Pod, so all steps would run at once: " +
				"create the Task in another namespace than kube-system, or install taskflow's MutatingWebhookConfiguration again"
			if diff := cmp.Diff([]string{v1alpha1.ReasonPodRefused, want}, []string{failed.Reason, failed.Message}); diff != "" {
				t.Errorf("condition (-want +got):\n%s", diff)
			}
			wantNoPod(t, task)
		})
	}
}

// TestEphemeralContainer proves that a debug container can be added to a Pod, that it is no step, and that no step waits for it.
func TestEphemeralContainer(t *testing.T) {
	pod := podWithLabels(cluster.NewNamespace(t, "privileged"), "debugged", sequentialLabel(), echo("a"), echo("b"))
	cluster.Make(t, pod)
	debugger := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: "busybox"}}
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, debugger)
	if err := cluster.SubResource("ephemeralcontainers").Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if got := pod.Spec.EphemeralContainers; len(got) != 1 || len(got[0].Command)+len(got[0].VolumeMounts) > 0 {
		t.Errorf("the ephemeral containers are %+v", got)
	}
	setStates(t, pod, corev1.PodRunning, ended(0), running())
	awaitOrder(t, pod, "2")
}

// TestDryRun proves that a dry run returns the mutated Pod and stores nothing.
func TestDryRun(t *testing.T) {
	pod := podWithLabels(cluster.NewNamespace(t, "privileged"), "", sequentialLabel(), echo("a"), echo("b"))
	pod.GenerateName = "dry-"
	cluster.Make(t, pod, client.DryRunAll)
	if diff := cmp.Diff(map[string]string{"a": "1 echo a", "b": "2 echo b"}, agents(t, pod)); diff != "" {
		t.Errorf("what the agents are told (-want +got):\n%s", diff)
	}
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(pod.Namespace)); err != nil || len(pods.Items) > 0 {
		t.Errorf("there are %d Pods, %v", len(pods.Items), err)
	}
}
