//go:build e2e

package attack

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// The attacker may create and read Pods in a namespace, and nothing else: no Tasks, no Secrets. CI systems and workflow engines often have
// these rights.

func podCreator(t *testing.T, namespace string) client.Client {
	t.Helper()
	return cluster.WithRights(t, namespace, "pod-creator", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "get", "delete"}})
}

// TestPodCreatorForgesOwnership has a user create a Pod that claims to belong to another user's suspended Task. The Pod is refused, or the
// Task stays as it is.
func TestPodCreatorForgesOwnership(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := podCreator(t, namespace)
	task := harness.NewTask(namespace, "deploy", harness.Shell("check", "false"), harness.Shell("deploy", "false"))
	task.Spec.Suspend = true
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to be suspended", harness.InPhase(v1alpha1.TaskSuspended))
	pod := harness.NewSequentialPod(namespace, task.Name, harness.Shell("check", "true"), harness.Shell("deploy", "true"))
	pod.Labels[contract.TaskLabel] = task.Name
	pod.Annotations = map[string]string{contract.StepsAnnotation: "check,deploy", contract.OptionsAnnotation: `{"check":{"continueOnError":true}}`}
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)}
	if err := user.Create(t.Context(), pod); err != nil {
		t.Logf("the Pod was refused: %v", err)
	} else {
		cluster.AwaitPod(t, pod, corev1.PodSucceeded, corev1.PodFailed)
	}
	later := harness.NewTask(namespace, "later", harness.Shell("only", "true"))
	cluster.Make(t, later)
	cluster.AwaitTask(t, later, "a later Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
		t.Fatal(err)
	}
	if task.Status.Phase != v1alpha1.TaskSuspended || task.Status.PodName != "" {
		t.Errorf("the Task is %s with the Pod %q, because of a Pod of another user", task.Status.Phase, task.Status.PodName)
	}
}

// TestPodCreatorReadsTasks has a user read a Task through a Pod that names it, in a dry run. That is possible in their own namespace,
// because users who may create Pods there may run the Task (docs/security.md). It isn't possible in another namespace, regardless of how
// the name is written.
func TestPodCreatorReadsTasks(t *testing.T) {
	t.Parallel()
	namespace, elsewhere := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	user := podCreator(t, namespace)
	for _, in := range []string{namespace, elsewhere} {
		task := harness.NewTask(in, "backup-of-"+in, harness.Shell("dump", "true"))
		task.Spec.Steps[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: password}}
		task.Spec.Suspend = true
		cluster.Make(t, task)
	}
	reads := func(name string) bool {
		pod := harness.NewPod(namespace, "reader", corev1.Container{Name: "task", Image: "task"})
		pod.Labels = map[string]string{contract.TaskLabel: name}
		err := user.Create(t.Context(), pod, client.DryRunAll)
		return err == nil && slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Value == password })
		})
	}
	if !reads("backup-of-" + namespace) {
		t.Error("the Task of the own namespace can't be read: docs/security.md says that it can")
	}
	for _, name := range []string{"backup-of-" + elsewhere, elsewhere + ".backup-of-" + elsewhere, elsewhere + "/backup-of-" + elsewhere} {
		if reads(name) {
			t.Errorf("%s was read from another namespace", name)
		}
	}
}

// TestPodCreatorTakesThePriority has a user create a Pod with the operator's PriorityClass, which would preempt other Pods. It is refused.
func TestPodCreatorTakesThePriority(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	pod := harness.NewPod(namespace, "important", harness.Shell("only", "true"))
	pod.Spec.PriorityClassName = "taskflow-operator"
	if err := podCreator(t, namespace).Create(t.Context(), pod, client.DryRunAll); err == nil {
		t.Errorf("the Pod was admitted with priority %d", *pod.Spec.Priority)
	}
}

// TestPodCreatorFakesTheAgent has a user create a Pod that looks mutated and has another program in place of the agent. It is refused.
func TestPodCreatorFakesTheAgent(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := podCreator(t, namespace)
	for _, delivery := range []string{contract.DeliveryInit, contract.DeliveryImage} {
		t.Run(delivery, func(t *testing.T) {
			pod := harness.NewSequentialPod(namespace, "fake", harness.Shell("first", "true"), harness.Shell("second", "true"))
			pod.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
			if err := user.Create(t.Context(), pod, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			fake := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "fake", Labels: pod.Labels, Annotations: pod.Annotations},
				Spec:       pod.Spec,
			}
			faked := false
			for i := range fake.Spec.InitContainers {
				if fake.Spec.InitContainers[i].Name == contract.AgentContainer {
					fake.Spec.InitContainers[i].Image, faked = "busybox:1.28", true
				}
			}
			for i := range fake.Spec.Volumes {
				if volume := &fake.Spec.Volumes[i]; volume.Name == contract.BinVolume && volume.Image != nil {
					volume.Image.Reference, faked = "busybox:1.28", true
				}
			}
			if !faked {
				t.Fatalf("the Pod has no agent by %s", delivery)
			}
			if err := user.Create(t.Context(), fake, client.DryRunAll); err == nil {
				t.Error("the Pod was admitted")
			}
		})
	}
}

// TestPodCreatorUsesRightsOfTheOperator has a user create Pods that direct the webhook to objects which the user can't read: a pull secret
// by a path, a Secret of another namespace. Each is refused, and the message reveals nothing about the object.
func TestPodCreatorUsesRightsOfTheOperator(t *testing.T) {
	t.Parallel()
	namespace, elsewhere := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	user := podCreator(t, namespace)
	cluster.Make(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths": {"` + clusterRegistry + `": {"username": "robot", "password": "` + password + `"}}}`)},
	})
	refusal := func(secret string) string {
		pod := harness.NewSequentialPod(namespace, "pod", corev1.Container{Name: "only", Image: clusterRegistry + "/attack/nothing:1"})
		pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret}}
		err := user.Create(t.Context(), pod, client.DryRunAll)
		if err == nil {
			t.Fatalf("a Pod with the pull secret %q was admitted", secret)
		}
		return strings.ReplaceAll(err.Error(), secret, "SECRET")
	}
	for here, there := range map[string]string{
		"none":                                 "pull",
		"../../" + elsewhere + "/secrets/none": "../../" + elsewhere + "/secrets/pull",
	} {
		if without, with := refusal(here), refusal(there); without != with {
			t.Errorf("a secret that exists elsewhere can be told from one that doesn't:\n%s\n%s", without, with)
		} else if strings.Contains(with, password) {
			t.Errorf("the refusal has the password: %s", with)
		}
	}
}

// TestPodCreatorForgesAStaticPod has a user create labelled Pods that claim to be static Pods of a kubelet, which the webhook doesn't
// mutate. Their annotations have hundreds of kilobytes that the operator would store and parse. They are refused.
func TestPodCreatorForgesAStaticPod(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	pod := harness.NewSequentialPod(namespace, "static", harness.Shell("a", "true"))
	pod.Annotations = map[string]string{
		corev1.MirrorPodAnnotationKey: "x",
		contract.OrderAnnotation:      "1",
		contract.StepsAnnotation:      strings.Repeat("a,", 100_000),
	}
	pod.Spec.NodeName, pod.Spec.AutomountServiceAccountToken = "nowhere", new(false)
	if err := podCreator(t, namespace).Create(t.Context(), pod, client.DryRunAll); err == nil {
		t.Error("the Pod was admitted")
	}
}

// TestPodCreatorNamesALargeTask has a user create many small Pods in parallel that name a Task of more than a megabyte. The operator stays
// within its memory, and Pods of other tenants are admitted meanwhile.
func TestPodCreatorNamesALargeTask(t *testing.T) {
	const steps, variables, clients = 100, 900, 25
	before := replicas(t)
	namespace := cluster.NewNamespace(t, "baseline")
	user := podCreator(t, namespace)
	task := harness.NewTask(namespace, "large")
	var containers []corev1.Container
	for i := range steps {
		step := harness.Shell(fmt.Sprintf("s%d", i), "true")
		for n := range variables {
			step.Env = append(step.Env, corev1.EnvVar{Name: fmt.Sprintf("e%d", n)})
		}
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
		containers = append(containers, corev1.Container{Name: step.Name, Image: "task"})
	}
	task.Spec.Suspend = true
	cluster.Make(t, task)
	pod := harness.NewPod(namespace, "small", append(containers, corev1.Container{Name: "wrong", Image: "task"})...)
	pod.Labels = map[string]string{contract.TaskLabel: task.Name}
	var attack sync.WaitGroup
	for range clients {
		attack.Go(func() { _ = user.Create(t.Context(), pod.DeepCopy(), client.DryRunAll) }) // it is refused, perhaps because it took too long
	}
	admitPods(t, 10, 10*time.Second)
	attack.Wait()
	wantUnharmed(t, before)
}
