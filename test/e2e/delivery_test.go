//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// Where the agent's image can't be pulled, the Task says so of either delivery, blames no step, and fails when the grace is over
// (PEERS row 14).
func TestAgentCannotBePulled(t *testing.T) {
	changeOperator(t, func(operator *corev1.Container) {
		setFlag(operator, "--agent-image", "nobody/has-this-agent:1")
		setFlag(operator, "--start-grace-period", "5s")
	})
	namespace := newNamespace(t, "baseline")
	tasks := map[*v1alpha1.Task]string{}
	for delivery, says := range map[string]string{
		"init":  `container "taskflow-agent" can't start: `,
		"image": `the image of taskflow's agent can't be mounted: `,
	} {
		task := newTask(namespace, "no-agent-"+delivery, shell("first", "true"), shell("second", "true"))
		deliver(task, delivery)
		create(t, task)
		tasks[task] = says
	}
	for task, says := range tasks {
		status := awaitTask(t, task, "the reason", func(status v1alpha1.TaskStatus) bool {
			return len(status.Conditions) > 0 && status.Conditions[0].Reason == v1alpha1.ReasonImagePullBackOff
		})
		wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonImagePullBackOff, says)
		wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonImagePullBackOff, "nobody/has-this-agent:1")
	}
	for task, says := range tasks {
		status := awaitTask(t, task, "the Task to fail", inPhase(v1alpha1.TaskFailed))
		wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonImagePullBackOff, says)
		for _, step := range status.Steps {
			if step.State != v1alpha1.StepSkipped {
				t.Errorf("%s: the step is %+v", task.Name, step)
			}
		}
		wait.For(t, "the Pod to end", func(ctx context.Context) error {
			var pod corev1.Pod
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
				return err
			}
			if pod.Status.Phase != corev1.PodFailed {
				return fmt.Errorf("its phase is %s", pod.Status.Phase)
			}
			return nil
		})
	}
}

// With --agent-delivery=auto a real node is found to be able, and Pods have no container but their own.
func TestAgentDeliveryAuto(t *testing.T) {
	changeOperator(t, func(operator *corev1.Container) { setFlag(operator, "--agent-delivery", "auto") })
	namespace := newNamespace(t, "baseline")
	number := 0
	wait.For(t, "the operator to know its nodes", func(ctx context.Context) error {
		number++
		pod := sequentialPod(namespace, fmt.Sprint("pod-", number), shell("a", "true"))
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			return err
		}
		if len(pod.Spec.InitContainers) > 0 {
			return fmt.Errorf("there are the init containers %+v", pod.Spec.InitContainers)
		}
		return nil
	})
	pod := sequentialPod(namespace, "in-order", shell("a", "true"), shell("b", "true"))
	createPod(t, pod)
	awaitPodPhase(t, pod, corev1.PodSucceeded)
	if len(pod.Spec.InitContainers) > 0 {
		t.Errorf("the Pod has the init containers %+v", pod.Spec.InitContainers)
	}
}
