//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestSomeNamespaces proves that taskflow can be installed for some namespaces only. There everything works as usual. In other namespaces
// the operator can read and write nothing, Tasks and labelled Pods are refused, and other Pods aren't affected. An installation for all
// namespaces restores the former state. A missing namespace is an error before anything changes.
func TestSomeNamespaces(t *testing.T) {
	wait.For(t, "the operator to be available", rolledOut)
	flags := operatorFlags(t)
	one, two, other := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	t.Cleanup(func() {
		deploy(t, flags, "default", "")
		if diff := cmp.Diff(rights{true, true, true}, operatorsRights(t, other)); diff != "" {
			t.Errorf("rights of the operator when it was installed for all namespaces again (-want +got):\n%s", diff)
		}
	})
	if output, err := tryToDeploy(t, flags, "default", one+",missing"); err == nil || !bytes.Contains(output, []byte(`namespaces "missing" not found`)) {
		t.Errorf("deploying for a namespace that isn't there: %v\n%s", err, output)
	}
	if diff := cmp.Diff(rights{true, true, true}, operatorsRights(t, other)); diff != "" {
		t.Errorf("rights of the operator after a deployment that was refused (-want +got):\n%s", diff)
	}
	deploy(t, flags, "default", one+", "+two)
	// The replicas may have started while they had all rights.
	kubectl(t, nil, "-n", harness.OperatorNamespace, "rollout", "restart", "deployment")
	wait.For(t, "the operator to be restarted", rolledOut)

	for _, namespace := range []string{one, two} {
		task := harness.NewTask(namespace, "watched", harness.Shell("only", "true"))
		cluster.Make(t, task)
		cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded)) // so the node has resolved the new replicas, too
		wait.For(t, "the refusal of a broken Task", refusesBrokenTasks(namespace))
		pod := labelledPod(namespace)
		cluster.Make(t, pod)
		wait.For(t, "the Pod to succeed", func(ctx context.Context) error {
			err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod)
			if err == nil && pod.Status.Phase != corev1.PodSucceeded {
				err = fmt.Errorf("its phase is %s", pod.Status.Phase)
			}
			return err
		})
	}

	err := cluster.Create(t.Context(), harness.NewTask(other, "unwatched", harness.Shell("only", "true")))
	if want := "taskflow was installed for some namespaces, and " + other + " is not one of them"; !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("a Task in another namespace: %v, want a refusal with %q", err, want)
	}
	err = cluster.Create(t.Context(), labelledPod(other))
	if want := "the webhook hasn't made it sequential"; !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("a labelled Pod in another namespace: %v, want a refusal with %q", err, want)
	}
	plain := labelledPod(other)
	plain.Labels = nil
	if err := cluster.Create(t.Context(), plain, client.DryRunAll); err != nil {
		t.Errorf("a Pod without labels in another namespace: %v", err)
	}

	for namespace, want := range map[string]rights{one: {true, true, true}, two: {true, true, true}, other: {}, "kube-system": {}, "": {}} {
		if diff := cmp.Diff(want, operatorsRights(t, namespace)); diff != "" {
			t.Errorf("rights of the operator in %q (-want +got):\n%s", namespace, diff)
		}
	}
}

func labelledPod(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "labelled", Labels: map[string]string{contract.SequentialLabel: "true"}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{harness.Shell("first", "true"), harness.Shell("second", "true")},
		},
	}
}

// rights are what the operator may do in a namespace.
type rights struct{ ReadPods, ReadSecrets, ReadTasks bool }

// operatorsRights returns the rights of the operator's ServiceAccount as `kubectl auth can-i` reports them. The empty namespace stands for
// all namespaces.
func operatorsRights(t *testing.T, namespace string) rights {
	t.Helper()
	may := func(group, resource string) bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + harness.OperatorNamespace + ":taskflow-operator",
			Groups: []string{
				"system:serviceaccounts", "system:serviceaccounts:" + harness.OperatorNamespace, "system:authenticated",
			},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "get", Group: group, Resource: resource},
		}}
		if err := cluster.Create(context.WithoutCancel(t.Context()), review); err != nil {
			t.Fatal(err)
		}
		return review.Status.Allowed
	}
	return rights{may("", "pods"), may("", "secrets"), may(v1alpha1.GroupVersion.Group, "tasks")}
}

// operatorFlags returns the flags of the installed operator, except those that deploy sets.
func operatorFlags(t *testing.T) []string {
	t.Helper()
	var flags []string
	for _, arg := range installedOperator(t).Args {
		name, _, _ := strings.Cut(arg, "=")
		if !slices.Contains([]string{"--agent-image", "--config", "--watch-namespace", "--cert-source"}, name) {
			flags = append(flags, arg)
		}
	}
	return flags
}

// deploy runs `make deploy` of a variant, for some namespaces or for all, with the images that exist.
func deploy(t *testing.T, flags []string, variant, namespaces string) {
	t.Helper()
	output, err := tryToDeploy(t, flags, variant, namespaces)
	if err != nil {
		t.Fatalf("deploying %s for %q: %v\n%s", variant, namespaces, err, output)
	}
	assertNoAlarm(t, output)
}

func tryToDeploy(t *testing.T, flags []string, variant, namespaces string) (output []byte, err error) {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), "../../hack/deploy.sh")
	command.Env = append(os.Environ(), "BUILD=false", "OPERATOR_FLAGS="+strings.Join(flags, " "), "CONFIG=test/e2e/operator.yaml",
		"VARIANT="+variant, "NAMESPACES="+namespaces)
	return command.CombinedOutput()
}

// assertNoAlarm fails the test if a script prints kubectl's message about a selector without matches: in the middle of an installation it
// reads like a failure.
func assertNoAlarm(t *testing.T, output []byte) {
	t.Helper()
	if bytes.Contains(output, []byte("No resources found")) {
		t.Errorf("a script says that there are no resources:\n%s", output)
	}
}
