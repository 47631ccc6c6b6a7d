//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// makeReleased makes TestMakeReleasedPods write the files that TestReleasedPods reads, with the release that is installed.
var makeReleased = flag.String("make-released", "", "commit of the installed release: write testdata/released")

const releasedDir = "testdata/released"

// TestReleasedPods proves that a Pod which an earlier release mutated runs to its end under this one: such Pods are in flight during an upgrade,
// and backups restore them. The webhook leaves the Pod as it is. The agent is the only part that a test has to replace: a Pod in flight has the
// old agent already, and the registry of a new cluster doesn't have its image.
func TestReleasedPods(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	for name, c := range releasedCases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := readReleased(t, name)
			pod.Namespace, pod.Name = namespace, name
			replaceImages(t, pod, c)
			creator := client.Client(cluster)
			var task *v1alpha1.Task
			if c.isOwn {
				task = c.task.DeepCopy()
				task.Namespace, task.Name = namespace, name
				// The API server refuses every Pod that the operator makes for this Task: so the operator follows the one that is made here.
				task.Spec.Template.Spec.ServiceAccountName = "missing"
				cluster.Make(t, task)
				pod.OwnerReferences[0].UID = task.UID
				pod.Annotations[contract.TaskUIDAnnotation] = string(task.UID)
				creator = cluster.AsOperator(t)
			}
			if c.job != nil {
				pod.OwnerReferences = nil // the Job controller adopts the Pod
			}
			want := pod.DeepCopy()
			if err := creator.Create(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asReleased(want), asReleased(pod)); diff != "" {
				t.Errorf("the webhook has changed the Pod (-want +got):\n%s", diff)
			}
			var job *batchv1.Job
			if c.job != nil {
				job = c.job.DeepCopy()
				job.Namespace, job.Name = namespace, name
				job.Spec.ManualSelector, job.Spec.Selector = new(true), &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
				job.Spec.Template.Labels["app"] = name
				cluster.Make(t, job)
			}
			c.wantEnd(t, pod)
			if c.isOwn {
				c.wantTask(t, task)
			}
			if c.job != nil {
				awaitJob(t, job, "the Job to end", func() error { return jobIs(job, c.jobEnds) })
			}
		})
	}
}

// TestMakeReleasedPods writes testdata/released. It isn't a test: it runs only with -make-released, while the release in question is installed.
func TestMakeReleasedPods(t *testing.T) {
	if *makeReleased == "" {
		t.Skip("-make-released is not set")
	}
	namespace := cluster.NewNamespace(t, "baseline")
	for name, c := range releasedCases(t) {
		pod := makePod(t, namespace, name, c, map[string]string{"released": "nowhere"})
		content, err := yaml.Marshal(asReleased(pod))
		if err != nil {
			t.Fatal(err)
		}
		header := fmt.Sprintf(`# This Pod is as the webhook of release %s left it at the API server, before a node took it. TestMakeReleasedPods read it there
# (go test -tags e2e -run TestMakeReleasedPods ./test/e2e -args -make-released COMMIT). Don't edit it: such Pods are in flight.
`, *makeReleased)
		if err := os.WriteFile(filepath.Join(releasedDir, name+".yaml"), append([]byte(header), content...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// makePod creates the Pod of a case as its user would, for these nodes.
func makePod(t *testing.T, namespace, name string, c releasedCase, nodes map[string]string) *corev1.Pod {
	t.Helper()
	if c.task != nil {
		task := c.task.DeepCopy()
		task.Namespace, task.Name = namespace, name
		if c.isOwn {
			task.Spec.Template.Spec.NodeSelector = nodes
		}
		cluster.Make(t, task)
	}
	pod := &corev1.Pod{}
	switch {
	case c.job != nil:
		job := c.job.DeepCopy()
		job.Namespace, job.Name = namespace, name
		job.Spec.Template.Labels["app"] = name
		job.Spec.Template.Spec.NodeSelector = nodes
		cluster.Make(t, job)
		wait.For(t, "the Job's Pod", func(context.Context) error {
			pods := podsOf(t, job)
			if len(pods) == 0 {
				return fmt.Errorf("the Job %q has no Pod", name)
			}
			pod = &pods[0]
			return nil
		})
	case c.isOwn:
		wait.For(t, "the Task's Pod", func(ctx context.Context) error {
			return cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, pod)
		})
	default:
		pod = c.pod.DeepCopy()
		pod.Namespace, pod.Name = namespace, name
		pod.Spec.NodeSelector = nodes
		cluster.Make(t, pod)
	}
	return pod
}

// asReleased returns the Pod without what the API server and the maker of the files add.
func asReleased(pod *corev1.Pod) *corev1.Pod {
	released := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Labels: pod.Labels, Annotations: pod.Annotations, OwnerReferences: pod.OwnerReferences, Finalizers: pod.Finalizers,
		},
		Spec: *pod.Spec.DeepCopy(),
	}
	released.Spec.NodeSelector = nil
	return released
}

func readReleased(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(releasedDir, name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(content, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

// replaceImages gives the Pod the installed agent, and its steps the images that this test has pushed.
func replaceImages(t *testing.T, pod *corev1.Pod, c releasedCase) {
	t.Helper()
	agent := agentImage(t)
	for i := range pod.Spec.InitContainers {
		if container := &pod.Spec.InitContainers[i]; container.Name == contract.AgentContainer {
			container.Image = agent
		}
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == contract.BinVolume && volume.Image != nil {
			volume.Image.Reference = agent
		}
	}
	for i := range pod.Spec.Containers {
		if image := c.images[pod.Spec.Containers[i].Name]; image != "" {
			pod.Spec.Containers[i].Image = image
		}
	}
}

// agentImage is the image of the agent that the installed operator puts into Pods.
func agentImage(t *testing.T) string {
	t.Helper()
	for _, arg := range installedOperator(t).Args {
		if image, ok := strings.CutPrefix(arg, "--agent-image="); ok {
			return image
		}
	}
	t.Fatal("the operator has no --agent-image")
	return ""
}

// wantEnd waits for the end of the Pod, and checks how its containers ended and which commands ran, in which order.
func (c releasedCase) wantEnd(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	cluster.AwaitPod(t, pod, c.phase())
	got := map[string]int32{}
	for _, status := range pod.Status.ContainerStatuses {
		got[status.Name] = -1
		if end := status.State.Terminated; end != nil {
			got[status.Name] = end.ExitCode
		}
	}
	if diff := cmp.Diff(c.exitCodes, got); diff != "" {
		t.Errorf("exit codes (-want +got):\n%s", diff)
	}
	ran := map[string]span{}
	for _, step := range contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]) {
		if s := readSpan(t, cluster.Log(t, pod.Namespace, pod.Name, step)); s.begin != 0 {
			ran[step] = s
		}
	}
	order := slices.SortedFunc(maps.Keys(ran), func(a, b string) int { return int(100 * (ran[a].begin - ran[b].begin)) })
	if diff := cmp.Diff(c.ran, order); diff != "" {
		t.Errorf("steps whose command ran (-want +got):\n%s", diff)
	}
	for i := 1; i < len(order); i++ {
		if ran[order[i]].begin < ran[order[i-1]].end {
			t.Errorf("the step %q began before the step %q had ended: %v", order[i], order[i-1], ran)
		}
	}
	if isHalted := pod.Annotations[contract.HaltAnnotation] != ""; isHalted != c.isHalted {
		t.Errorf("the Pod is halted: %t, want %t; its annotations are %v", isHalted, c.isHalted, pod.Annotations)
	}
}

// wantTask waits for the end of the Task whose own Pod it is.
func (c releasedCase) wantTask(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	status := cluster.AwaitTask(t, task, "the Task to end", func(status v1alpha1.TaskStatus) bool {
		return status.Phase == v1alpha1.TaskSucceeded || status.Phase == v1alpha1.TaskFailed
	})
	kind, reason := v1alpha1.ConditionComplete, v1alpha1.ReasonStepsSucceeded
	if c.isHalted {
		kind, reason = v1alpha1.ConditionFailed, v1alpha1.ReasonStepFailed
	}
	if condition := meta.FindStatusCondition(status.Conditions, kind); condition == nil || condition.Reason != reason {
		t.Errorf("want the condition %s with the reason %s: %+v", kind, reason, status.Conditions)
	}
	states := map[string]v1alpha1.StepState{}
	for _, step := range status.Steps {
		states[step.Name] = step.State
	}
	if diff := cmp.Diff(c.states, states); diff != "" {
		t.Errorf("states of the steps (-want +got):\n%s", diff)
	}
}
