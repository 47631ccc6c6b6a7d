//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestUpgrade proves that a Pod which one version of the operator has mutated succeeds under another version, in order, in both hand-off
// modes, at an upgrade and at the way back. The other version also gives the init container other resources. A LimitRange that refuses the
// default resources accepts these.
func TestUpgrade(t *testing.T) {
	const steps = 3
	namespace, strict := cluster.NewNamespace(t, "privileged"), cluster.NewNamespace(t, "baseline")
	small := resource.MustParse("20m")
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: strict, Name: "strict"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type:                 corev1.LimitTypeContainer,
			Min:                  corev1.ResourceList{corev1.ResourceCPU: small},
			MaxLimitRequestRatio: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		}}},
	}
	cluster.Make(t, limits)
	step := harness.Shell("only", "true")
	step.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: small}
	limited := harness.NewTask(strict, "limited", step)
	cluster.Make(t, limited)
	status := cluster.AwaitTask(t, limited, "the LimitRange to refuse the Pod", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonPodRefused
	})
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonPodRefused, "minimum cpu usage per Container is 20m")

	// One Task for each hand-off mode, created with the installed operator.
	begin := func(t *testing.T, version string) map[*v1alpha1.Task]string {
		t.Helper()
		journals := map[*v1alpha1.Task]string{}
		for name, annotations := range map[string]map[string]string{
			"local": nil, "controller": {contract.HandoffAnnotation: contract.HandoffController},
		} {
			task, journal := pausingTask(t, namespace, name+"-"+version, steps)
			task.Spec.Template.Metadata.Annotations = annotations
			cluster.Make(t, task)
			journals[task] = journal
		}
		for task := range journals {
			awaitFirstStep(t, task)
		}
		return journals
	}
	end := func(t *testing.T, journals map[*v1alpha1.Task]string, agent string) {
		t.Helper()
		for task, journal := range journals {
			resume(t, journal)
			cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
			if wrong := disorder(readJournal(t, journal), steps); len(wrong) > 0 {
				t.Errorf("the steps of %s ran out of order:\n%s", task.Name, strings.Join(wrong, "\n"))
			}
			var pod corev1.Pod
			if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &pod); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(agent, pod.Spec.InitContainers[0].Image); diff != "" {
				t.Errorf("agent of %s (-want +got):\n%s", task.Name, diff)
			}
		}
	}

	before := begin(t, "before")
	var oldAgent, newAgent string
	putBack := changeOperator(t, func(operator *corev1.Container) {
		for _, arg := range operator.Args {
			if image, ok := strings.CutPrefix(arg, "--agent-image="); ok {
				oldAgent = image
			}
		}
		operator.Image, newAgent = another(t, operator.Image), another(t, oldAgent)
		setFlag(operator, "--agent-image", newAgent)
		setFlag(operator, "--agent-requests", "cpu=20m,memory=16Mi")
		setFlag(operator, "--agent-limits", "cpu=40m,memory=32Mi")
	})
	end(t, before, oldAgent)
	cluster.AwaitTask(t, limited, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	after := begin(t, "after")
	putBack()
	end(t, after, newAgent)
}

// another pushes a copy of an image of taskflow's with a label, so that it has another digest, and returns its name.
func another(t *testing.T, image string) string {
	t.Helper()
	there := strings.Replace(image, "docker.io", clusterRegistry, 1)
	ref, err := name.ParseReference(there, oci.PlainHTTP)
	if err != nil {
		t.Fatal(err)
	}
	original, err := remote.Image(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	file, err := original.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config := *file.Config.DeepCopy()
	config.Labels = map[string]string{"version": "another"}
	changed, err := mutate.Config(original, config)
	if err != nil {
		t.Fatal(err)
	}
	repository, _, _ := strings.Cut(there, "@")
	return push(t, repository+":another", changed)
}
