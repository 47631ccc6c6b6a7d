//go:build e2e

package attack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// The attacker has the built-in ClusterRole edit in a namespace, or all rights on the Pods there, including subresources that edit doesn't
// have.

// TestEditorReadsNoPath has a user with the role edit read what a caller of the webhook must know. They can't.
func TestEditorReadsNoPath(t *testing.T) {
	t.Parallel()
	user := cluster.WithClusterRole(t, cluster.NewNamespace(t, "baseline"), "edit")
	if err := user.Get(t.Context(), client.ObjectKey{Name: "taskflow"}, &admissionregistrationv1.MutatingWebhookConfiguration{}); err == nil {
		t.Error("the webhook's configuration can be read")
	}
	if err := user.Get(t.Context(), client.ObjectKey{Name: "taskflow"}, &admissionregistrationv1.ValidatingWebhookConfiguration{}); err == nil {
		t.Error("the configuration of the webhook for Tasks can be read")
	}
	if err := user.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-webhook-cert"}, &corev1.Secret{}); err == nil {
		t.Error("the webhook's certificate can be read")
	}
}

// TestEditorForgesAnnotations has a user with all rights on Pods change what releases or selects the steps of a Pod, or hides the Pod from
// the operator: by updates and patches of the Pod, its status, its ephemeral containers and its size, and by a binding to a node. Nothing
// changes.
func TestEditorForgesAnnotations(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithRights(t, namespace, "pods", rbacv1.PolicyRule{
		APIGroups: []string{""}, Verbs: []string{"*"},
		Resources: []string{"pods", "pods/status", "pods/ephemeralcontainers", "pods/resize", "pods/binding", "bindings"},
	})
	newHeldPod := func(name string) *corev1.Pod {
		pod := harness.NewSequentialPod(namespace, name, harness.Shell("first", "true"), harness.Shell("second", "true"))
		pod.Spec.SchedulerName = "nobody" // the Pod waits for a binding
		pod.Annotations = map[string]string{contract.HandoffAnnotation: contract.HandoffController}
		cluster.Make(t, pod)
		return pod
	}
	pod := newHeldPod("held")
	before := metadata(t, pod)
	metadataOf := map[string]string{
		"order":             `{"annotations":{"` + contract.OrderAnnotation + `":"2"}}`,
		"a removed order":   `{"annotations":{"` + contract.OrderAnnotation + `":null}}`,
		"halt":              `{"annotations":{"` + contract.HaltAnnotation + `":"mine"}}`,
		"halt-finally":      `{"annotations":{"` + contract.HaltFinallyAnnotation + `":"mine"}}`,
		"cancel":            `{"annotations":{"` + contract.CancelAnnotation + `":"Cancelled"}}`,
		"outcome":           `{"annotations":{"` + contract.OutcomeAnnotation + `":"{\"status\":\"Succeeded\"}"}}`,
		"steps":             `{"annotations":{"` + contract.StepsAnnotation + `":"second"}}`,
		"options":           `{"annotations":{"` + contract.OptionsAnnotation + `":"{}"}}`,
		"a script":          `{"annotations":{"` + contract.ScriptAnnotationPrefix + `1":"true"}}`,
		"a removed handoff": `{"annotations":{"` + contract.HandoffAnnotation + `":null}}`,
		"all annotations":   `{"annotations":null}`,
		"the label":         `{"labels":{"` + contract.SequentialLabel + `":null}}`,
		"another value":     `{"labels":{"` + contract.SequentialLabel + `":"false"}}`,
		"the other label":   `{"labels":{"` + contract.TaskLabel + `":"other"}}`,
		"both":              `{"labels":{"` + contract.SequentialLabel + `":null},"annotations":{"` + contract.OrderAnnotation + `":"2"}}`,
	}
	for name, change := range metadataOf {
		for _, subresource := range []string{"", "status", "ephemeralcontainers", "resize"} {
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":`+change+`}`))
			if subresource == "" {
				if err := user.Patch(t.Context(), pod.DeepCopy(), patch); err == nil {
					t.Errorf("%s: the patch was accepted", name)
				}
			} else {
				_ = user.SubResource(subresource).Patch(t.Context(), pod.DeepCopy(), patch) // some subresources ignore metadata
			}
			if now := metadata(t, pod); now != before {
				t.Fatalf("%s, by %q: the Pod has %s, and had %s", name, subresource, now, before)
			}
		}
	}
	// Removing the label first and the annotation next would be two updates that are harmless one by one.
	for name, binding := range map[string]metav1.ObjectMeta{
		"order":  {Annotations: map[string]string{contract.OrderAnnotation: "2"}},
		"steps":  {Annotations: map[string]string{contract.StepsAnnotation: "second"}},
		"halt":   {Annotations: map[string]string{contract.HaltAnnotation: "mine"}},
		"cancel": {Annotations: map[string]string{contract.CancelAnnotation: "Cancelled"}},
		"label":  {Labels: map[string]string{contract.SequentialLabel: "false"}},
	} {
		bound := newHeldPod("bound-" + name)
		before := metadata(t, bound)
		binding.Namespace, binding.Name = namespace, bound.Name
		object := &corev1.Binding{ObjectMeta: binding, Target: corev1.ObjectReference{Kind: "Node", Name: "nowhere"}}
		if err := user.SubResource("binding").Create(t.Context(), bound.DeepCopy(), object); err == nil {
			t.Errorf("a binding with %s was accepted", name)
		}
		object = &corev1.Binding{ObjectMeta: binding, Target: corev1.ObjectReference{Kind: "Node", Name: "nowhere"}}
		if err := user.Create(t.Context(), object); err == nil {
			t.Errorf("a binding with %s, by the old way, was accepted", name)
		}
		if now := metadata(t, bound); now != before {
			t.Errorf("%s, by a binding: the Pod has %s, and had %s", name, now, before)
		}
	}
	// A Pod without taskflow's label can't be given one.
	foreign := harness.NewPod(namespace, "foreign", harness.Shell("only", "true"))
	foreign.Spec.SchedulerName = "nobody"
	cluster.Make(t, foreign)
	for _, labels := range []string{`{"` + contract.SequentialLabel + `":"true"}`, `{"` + contract.SequentialLabel + `":"true","` + contract.TaskLabel + `":"other"}`} {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":`+labels+`}}`))
		if err := user.Patch(t.Context(), foreign.DeepCopy(), patch); err == nil {
			t.Errorf("the labels %s were put on a Pod that the webhook hasn't seen", labels)
		}
	}
}

// metadata returns taskflow's labels and annotations of a Pod.
func metadata(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	var now corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(pod), &now); err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{}
	for _, values := range []map[string]string{now.Labels, now.Annotations} {
		for key, value := range values {
			if strings.HasPrefix(key, contract.Group) {
				ours[key] = value
			}
		}
	}
	return fmt.Sprint(ours)
}

// TestEditorSlowsForeignPods has a user put 40,000 annotations on a Pod that has nothing to do with taskflow. An update of the Pod takes as
// long as without taskflow's policies.
func TestEditorSlowsForeignPods(t *testing.T) {
	// Even without the policies, the slowest update took up to thirteen times as long as the quickest one. An evaluated policy takes fifty
	// times as long.
	const annotations, rounds, each, bound = 40_000, 3, 4, 2
	namespace := cluster.NewNamespace(t, "baseline")
	pod := harness.NewPod(namespace, "foreign", harness.Shell("only", "true"))
	pod.Spec.SchedulerName = "nobody"
	pod.Annotations = map[string]string{}
	for i := range annotations {
		pod.Annotations[fmt.Sprintf("a%d", i)] = ""
	}
	cluster.Make(t, pod)
	updates := 0
	update := func() time.Duration {
		updates++
		began := time.Now()
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"update":"%d"}}}`, updates))
		if err := cluster.Patch(t.Context(), pod.DeepCopy(), patch); err != nil {
			t.Fatal(err)
		}
		return time.Since(began).Round(time.Millisecond)
	}
	update() // the first update compiles the policies
	var with, without []time.Duration
	for range rounds {
		for range each {
			with = append(with, update())
		}
		putBack := unbindPolicies(t, namespace)
		for range each {
			without = append(without, update())
		}
		putBack()
	}
	ratio := median(with).Seconds() / median(without).Seconds()
	t.Logf("an update of a Pod with %d annotations: %s without the policies, %s with them: %.2f times as long (%v, %v)", annotations, median(without), median(with), ratio, without, with)
	if ratio > bound {
		t.Errorf("with the policies an update took %.2f times as long, more than %.1f", ratio, float64(bound))
	}
}

// unbindPolicies disables taskflow's policies until its result is called or the test ends.
func unbindPolicies(t *testing.T, namespace string) (putBack func()) {
	t.Helper()
	var bindings admissionregistrationv1.ValidatingAdmissionPolicyBindingList
	if err := cluster.List(t.Context(), &bindings); err != nil {
		t.Fatal(err)
	}
	var removed []admissionregistrationv1.ValidatingAdmissionPolicyBinding
	for _, binding := range bindings.Items {
		if strings.HasPrefix(binding.Name, "taskflow-") {
			if err := cluster.Delete(t.Context(), &binding); err != nil {
				t.Fatal(err)
			}
			removed = append(removed, binding)
		}
	}
	if len(removed) == 0 {
		t.Fatal("no policy of taskflow's is in force")
	}
	witness := harness.NewSequentialPod(namespace, fmt.Sprintf("witness-%d", time.Now().UnixNano()), harness.Shell("only", "true"))
	witness.Spec.SchedulerName = "nobody"
	cluster.Make(t, witness)
	inForce := func(ctx context.Context, want bool) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+contract.OrderAnnotation+`":"2"}}}`))
		if refused := cluster.Patch(ctx, witness.DeepCopy(), patch, client.DryRunAll) != nil; refused != want {
			return fmt.Errorf("a forged order is refused: %t", refused)
		}
		return nil
	}
	restore := func(ctx context.Context) error {
		var failed []error
		for _, binding := range removed {
			failed = append(failed, cluster.Create(ctx, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
				ObjectMeta: metav1.ObjectMeta{Name: binding.Name, Labels: binding.Labels, Annotations: binding.Annotations}, Spec: binding.Spec,
			}))
		}
		removed = nil
		return errors.Join(failed...)
	}
	t.Cleanup(func() {
		if err := restore(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("putting the policies back: %v", err)
		}
	})
	wait.For(t, "the policies to be out of force", func(ctx context.Context) error { return inForce(ctx, false) })
	return func() {
		t.Helper()
		if err := restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait.For(t, "the policies to be in force", func(ctx context.Context) error { return inForce(ctx, true) })
	}
}

// TestEditorFloodsWithPods has a user create labelled Pods of thousands of containers or mounts. The API server refuses them soon, Pods of
// other tenants are admitted meanwhile, and the operator stays within its memory.
func TestEditorFloodsWithPods(t *testing.T) {
	const clients, many, cost = 4, 20_000, 5 * time.Second
	var containers []corev1.Container
	for i := range many {
		containers = append(containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: "a", Command: []string{"a"}})
	}
	mounting := []corev1.Container{harness.Shell("first", "true"), harness.Shell("second", "true")}
	for i := range mounting {
		for n := range many {
			mounting[i].VolumeMounts = append(mounting[i].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: fmt.Sprintf("/%d", n)})
		}
	}
	for name, containers := range map[string][]corev1.Container{"containers": containers, "mounts": mounting} {
		t.Run(name, func(t *testing.T) {
			before := replicas(t)
			namespace := cluster.NewNamespace(t, "baseline")
			user := cluster.WithClusterRole(t, namespace, "edit")
			huge := harness.NewSequentialPod(namespace, "huge", containers...)
			huge.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			attack := make(chan error, clients)
			for range clients {
				go func() { attack <- user.Create(t.Context(), huge.DeepCopy(), client.DryRunAll) }()
			}
			admitPods(t, 10, 10*time.Second)
			for range clients {
				if err := <-attack; err == nil {
					t.Error("the Pod was admitted")
				} else if len(err.Error()) > 2048 {
					t.Errorf("the refusal has %d bytes: %.300s", len(err.Error()), err)
				}
			}
			if computed := wantUnharmed(t, before); computed > cost {
				t.Errorf("the Pods cost the operator %s of processor time, more than %s", computed, cost)
			}
		})
	}
}

// TestEditorFloodsWithEvents has a user with the role edit create events of one megabyte each about a Pod whose volume is missing. The
// operator reads the events of such a Pod to report what it waits for. It stays within its memory, and still reports for another tenant.
func TestEditorFloodsWithEvents(t *testing.T) {
	const events, size, clients = 150, 1 << 20, 4
	before := replicas(t)
	waiting := func(namespace string) *v1alpha1.Task {
		task := harness.NewTask(namespace, "waits", harness.Shell("only", "true"))
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{
			Name: "missing", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "missing"}},
		}}}}
		task.Spec.Steps[0].VolumeMounts = []corev1.VolumeMount{{Name: "missing", MountPath: "/missing"}}
		cluster.Make(t, task)
		return task
	}
	namespace := cluster.NewNamespace(t, "baseline")
	user := cluster.WithClusterRole(t, namespace, "edit")
	attacker := waiting(namespace)
	var pod corev1.Pod
	wait.For(t, "the attacker's Pod", func(ctx context.Context) error {
		return cluster.Get(ctx, client.ObjectKeyFromObject(attacker), &pod)
	})
	var flood errgroup.Group
	flood.SetLimit(clients)
	for i := range events {
		flood.Go(func() error {
			return user.Create(t.Context(), &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("flood-%d", i)},
				InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod.Name, UID: pod.UID},
				Reason:         "FailedMount", Type: corev1.EventTypeWarning, Message: strings.Repeat("A", size),
			})
		})
	}
	if err := flood.Wait(); err != nil {
		t.Fatal(err)
	}
	cluster.AwaitTask(t, waiting(cluster.NewNamespace(t, "baseline")), "another tenant's Task to say what it waits for", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == "FailedMount"
	})
	wantUnharmed(t, before)
}
