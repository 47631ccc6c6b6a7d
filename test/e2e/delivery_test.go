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
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestAgentCannotBePulled proves that a Task reports, in both deliveries, that the agent's image can't be pulled. It blames no step, and
// fails when the start grace period is over.
func TestAgentCannotBePulled(t *testing.T) {
	changeOperator(t, func(operator *corev1.Container) {
		setFlag(operator, "--agent-image", "nobody/has-this-agent:1")
		setFlag(operator, "--start-grace-period", "5s")
	})
	namespace := cluster.NewNamespace(t, "baseline")
	tasks := map[*v1alpha1.Task]string{}
	for delivery, says := range map[string]string{
		"init":  `container "taskflow-agent" cannot start: `,
		"image": `the image of taskflow's agent cannot be mounted: `,
	} {
		task := harness.NewTask(namespace, "no-agent-"+delivery, harness.Shell("first", "true"), harness.Shell("second", "true"))
		deliver(&task.Spec, delivery)
		cluster.Make(t, task)
		tasks[task] = says
	}
	for task, says := range tasks {
		status := cluster.AwaitTask(t, task, "the reason", func(status v1alpha1.TaskStatus) bool {
			return len(status.Conditions) > 0 && status.Conditions[0].Reason == v1alpha1.ReasonImagePullBackOff
		})
		wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonImagePullBackOff, says)
		wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonImagePullBackOff, "nobody/has-this-agent:1")
	}
	for task, says := range tasks {
		status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
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

// TestAgentDeliveryAuto proves that --agent-delivery=auto finds a real node able to mount images, and that Pods have no additional
// container then.
func TestAgentDeliveryAuto(t *testing.T) {
	changeOperator(t, func(operator *corev1.Container) { setFlag(operator, "--agent-delivery", "auto") })
	namespace := cluster.NewNamespace(t, "baseline")
	number := 0
	wait.For(t, "the operator to know its nodes", func(ctx context.Context) error {
		number++
		pod := harness.NewSequentialPod(namespace, fmt.Sprint("pod-", number), harness.Shell("a", "true"))
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			return err
		}
		if len(pod.Spec.InitContainers) > 0 {
			return fmt.Errorf("there are the init containers %+v", pod.Spec.InitContainers)
		}
		return nil
	})
	pod := harness.NewSequentialPod(namespace, "in-order", harness.Shell("a", "true"), harness.Shell("b", "true"))
	cluster.Make(t, pod)
	cluster.AwaitPod(t, pod, corev1.PodSucceeded)
	if len(pod.Spec.InitContainers) > 0 {
		t.Errorf("the Pod has the init containers %+v", pod.Spec.InitContainers)
	}
}
