//go:build apiserver

package apiserver

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestStartGrace proves that a Task waits for a container that can't be started, with the reason in its status, and fails when the start
// grace period is over. Its Pod is told to end, and stays with its logs.
func TestStartGrace(t *testing.T) {
	init := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.AgentContainer, State: waiting(reason, message)}}
		}
	}
	step := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.ContainerStatuses[1].State = waiting(reason, message) }
	}
	each := func(reason, message string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			for i := range pod.Status.ContainerStatuses {
				pod.Status.ContainerStatuses[i].State = waiting(reason, message)
			}
		}
	}
	const gaveUp = "; this lasted 3s (--start-grace-period); the Task has failed: fix the cause, then create the Task again"
	tests := map[string]struct {
		delivery string // of the agent. Empty: the operator's default
		before   []corev1.ContainerState
		// status has the writes of the Pod's status, in order: the kubelet's reasons alternate.
		status []func(*corev1.Pod)
		// waits is the condition Progressing while the Task waits.
		waits string
		want  outcome
	}{
		"an image that can't be pulled": {
			before: []corev1.ContainerState{ended(0), waiting("ContainerCreating", "")},
			status: []func(*corev1.Pod){
				step("ErrImagePull", `failed to pull image "x": not found`),
				step("ImagePullBackOff", `Back-off pulling image "x"`),
				step("ErrImagePull", `failed to pull image "x": not found`),
				step("ImagePullBackOff", `Back-off pulling image "x"`),
			},
			waits: `ImagePullBackOff: container "b" cannot start: failed to pull image "x": not found`,
			want: outcome{
				v1alpha1.TaskFailed, `ImagePullBackOff: container "b" cannot start: failed to pull image "x": not found` + gaveUp,
				[]string{"a Succeeded Completed 0", "b Failed ImagePullBackOff"}, "2",
			},
		},
		"a ConfigMap that isn't there": {
			before: []corev1.ContainerState{ended(0), waiting("ContainerCreating", "")},
			status: []func(*corev1.Pod){step("CreateContainerConfigError", `configmap "settings" not found`)},
			waits:  `CreateContainerConfigError: container "b" cannot start: configmap "settings" not found`,
			want: outcome{
				v1alpha1.TaskFailed, `CreateContainerConfigError: container "b" cannot start: configmap "settings" not found` + gaveUp,
				[]string{"a Succeeded Completed 0", "b Failed CreateContainerConfigError"}, "2",
			},
		},
		"the agent's own image": {
			before: []corev1.ContainerState{waiting("PodInitializing", ""), waiting("PodInitializing", "")},
			status: []func(*corev1.Pod){init("ImagePullBackOff", `Back-off pulling image "taskflow/agent"`)},
			waits:  `ImagePullBackOff: container "taskflow-agent" cannot start: Back-off pulling image "taskflow/agent"`,
			want: outcome{
				v1alpha1.TaskFailed, `ImagePullBackOff: container "taskflow-agent" cannot start: Back-off pulling image "taskflow/agent"` + gaveUp,
				[]string{"a Skipped Skipped", "b Skipped Skipped"}, "1",
			},
		},
		"the agent's own image, mounted": {
			delivery: contract.DeliveryImage,
			before:   []corev1.ContainerState{waiting("ContainerCreating", ""), waiting("ContainerCreating", "")},
			status: []func(*corev1.Pod){
				each("ErrImagePull", `failed to pull image "docker.io/taskflow/agent": not found`),
				each("ImagePullBackOff", `Back-off pulling image "taskflow/agent"`),
			},
			waits: `ImagePullBackOff: the image of taskflow's agent cannot be mounted: failed to pull image "docker.io/taskflow/agent": not found`,
			want: outcome{
				v1alpha1.TaskFailed, `ImagePullBackOff: the image of taskflow's agent cannot be mounted: failed to pull image "docker.io/taskflow/agent": not found` + gaveUp,
				[]string{"a Skipped Skipped", "b Skipped Skipped"}, "1",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := echoTask(cluster.NewNamespace(t, "privileged"), "waits", "a", "b")
			if test.delivery != "" {
				task.Spec.Template = &v1alpha1.PodTemplate{Metadata: metav1.ObjectMeta{
					Annotations: map[string]string{contract.DeliveryAnnotation: test.delivery},
				}}
			}
			cluster.Make(t, task)
			pod := awaitPod(t, task)
			setStates(t, pod, corev1.PodPending, test.before...)
			awaitOrder(t, pod, test.want.Order)
			began := time.Now()
			for _, write := range test.status {
				writeStatus(t, pod, write)
				status := cluster.AwaitTask(t, task, "what it waits for", func(s v1alpha1.TaskStatus) bool {
					condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
					return condition != nil && condition.Reason+": "+condition.Message == test.waits
				})
				if status.CompletionTime != nil && time.Since(began) < startGrace {
					t.Errorf("it ended before its grace did: %+v", status)
				}
			}
			assertOutcome(t, task, test.want)
			if took := time.Since(began); took < startGrace-time.Second { // the API server keeps whole seconds
				t.Errorf("it ended after %s, and the grace is %s", took, startGrace)
			}
			wait.For(t, "the Pod to be halted and ended", func(ctx context.Context) error {
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
					return err
				}
				if pod.Annotations[contract.HaltAnnotation] == "" || ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0) != 1 || pod.DeletionTimestamp != nil {
					return fmt.Errorf("it has the annotations %v, the deadline %v, and is deleted: %v", pod.Annotations, pod.Spec.ActiveDeadlineSeconds, pod.DeletionTimestamp)
				}
				return nil
			})
		})
	}
}

// TestStartGraceInTime proves that a problem which is fixed within the grace period leaves no trace.
func TestStartGraceInTime(t *testing.T) {
	t.Parallel()
	task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "fixed", "a")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodPending, waiting("ImagePullBackOff", "back-off"))
	waits := cluster.AwaitTask(t, task, "the reason", func(s v1alpha1.TaskStatus) bool {
		return slices.ContainsFunc(s.Conditions, func(c metav1.Condition) bool { return c.Reason == v1alpha1.ReasonImagePullBackOff })
	})
	assertEvent(t, task, corev1.EventTypeWarning, v1alpha1.ReasonImagePullBackOff, `container "a" cannot start: back-off`)
	setStates(t, pod, corev1.PodRunning, running())
	since := meta.FindStatusCondition(waits.Conditions, v1alpha1.ConditionProgressing).LastTransitionTime
	wait.For(t, "the grace to pass", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
			return err
		}
		if task.Status.CompletionTime != nil {
			t.Fatalf("it has ended: %+v", task.Status)
		}
		if time.Since(since.Time) < startGrace+2*time.Second {
			return errors.New("not yet")
		}
		return nil
	})
	if task.Status.CurrentStep != "a" || task.Status.Steps[0].State != v1alpha1.StepRunning {
		t.Errorf("step a doesn't run: %+v", task.Status)
	}
}

// TestInjectedContainer proves that a container which another webhook adds is no step, wherever it is in the list. It starts at once, may
// run forever, and doesn't keep the Task from completing.
func TestInjectedContainer(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	injectProxies(t, namespace)
	task := makeEchoTask(t, namespace, "injected", "a", "b")
	pod := awaitPod(t, task)

	var commands [][]string
	for _, container := range pod.Spec.Containers {
		commands = append(commands, append([]string{container.Name}, container.Command...))
	}
	want := [][]string{{"proxy", "/proxy"}, {"a", contract.AgentPath}, {"b", contract.AgentPath}}
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Fatalf("the containers and their commands (-want +got):\n%s", diff)
	}
	for i, step := range []string{"a", "b"} { // the second call of the webhook gates nothing twice
		flags, err := contract.ParseAgentFlags(pod.Spec.Containers[i+1].Args)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"echo", step}, flags.Command); diff != "" {
			t.Errorf("what the agent of %s runs (-want +got):\n%s", step, diff)
		}
	}

	setStates(t, pod, corev1.PodRunning, running(), running(), running())
	setStates(t, pod, corev1.PodRunning, running(), ended(0), running())
	if halt := awaitOrder(t, pod, "2"); halt != "" {
		t.Errorf("the Pod was halted: %s", halt)
	}
	setStates(t, pod, corev1.PodRunning, running(), ended(0), ended(0))
	status := cluster.AwaitTask(t, task, "the end", func(s v1alpha1.TaskStatus) bool { return s.CompletionTime != nil })
	if !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionComplete) || status.Progress != "2/2" || len(status.Steps) != 2 {
		t.Errorf("the status is %+v", status)
	}
}

// TestInjectedContainerFails proves that the failure of a container which is no step doesn't fail the Task.
func TestInjectedContainerFails(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	injectProxies(t, namespace)
	task := makeEchoTask(t, namespace, "injected", "a", "b")
	pod := awaitPod(t, task)
	setStates(t, pod, corev1.PodRunning, ended(1), running(), running())
	setStates(t, pod, corev1.PodRunning, ended(1), ended(0), running())
	if halt := awaitOrder(t, pod, "2"); halt != "" {
		t.Errorf("the Pod was halted: %s", halt)
	}
	setStates(t, pod, corev1.PodFailed, ended(1), ended(0), ended(0))
	cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))
}

// injectProxies installs a webhook that adds a container before all others of the namespace's Pods. The API server calls taskflow's webhook
// again after it.
func injectProxies(t *testing.T, namespace string) {
	t.Helper()
	inject := admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
		return admission.Patched("", jsonpatch.NewOperation("add", "/spec/containers/0", map[string]any{
			"name": "proxy", "image": "proxy", "command": []string{"/proxy"},
		}))
	})
	server := httptest.NewTLSServer(&ctrlwebhook.Admission{Handler: inject})
	t.Cleanup(server.Close)
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "zz-after-taskflow-" + namespace}, // webhooks are called in the order of their names
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "proxies.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL:      &server.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			NamespaceSelector:       named(namespace),
			SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
	createWebhooks(t, hook)
	wait.For(t, "the API server to call the other webhook", func(ctx context.Context) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "probe", Namespace: namespace},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}},
		}
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			return err
		}
		if len(pod.Spec.Containers) != 2 {
			return errors.New("it isn't called")
		}
		return nil
	})
}

// TestObservedGeneration proves that status.observedGeneration follows the spec, even if nothing else in the status changes.
func TestObservedGeneration(t *testing.T) {
	t.Parallel()
	task := makeTask(t, func(task *v1alpha1.Task) { task.Spec.Suspend = true })
	cluster.AwaitTask(t, task, "the Task to be suspended", func(s v1alpha1.TaskStatus) bool {
		return s.ObservedGeneration == 1 && s.Phase == v1alpha1.TaskSuspended
	})
	for number, patch := range []string{`{"spec":{"backoffLimit":1}}`, `{"spec":{"suspend":false}}`} {
		if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		status := cluster.AwaitTask(t, task, "the new generation", func(s v1alpha1.TaskStatus) bool { return s.ObservedGeneration == int64(2+number) })
		for _, condition := range status.Conditions {
			if condition.Status == metav1.ConditionTrue && condition.ObservedGeneration > status.ObservedGeneration {
				t.Errorf("the condition is of a later generation than the status: %+v", condition)
			}
		}
	}
	status := cluster.AwaitTask(t, task, "the Pod", func(s v1alpha1.TaskStatus) bool { return s.PodName != "" })
	if condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionSuspended); condition == nil || condition.Status != metav1.ConditionFalse {
		t.Errorf("the condition Suspended is %+v", condition)
	}
	assertEvent(t, task, corev1.EventTypeNormal, v1alpha1.ReasonSuspended, "spec.suspend is true: set it to false to run the Task")
	assertEvent(t, task, corev1.EventTypeNormal, v1alpha1.ReasonResumed, "spec.suspend is false")
}
