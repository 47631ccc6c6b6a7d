package harness

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// Shell returns a container that runs the script.
func Shell(name, script string) corev1.Container {
	return corev1.Container{Name: name, Image: "busybox:1.28", Command: []string{"sh", "-c", script}}
}

// NewTask returns a Task whose steps are the containers.
func NewTask(namespace, name string, steps ...corev1.Container) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, step := range steps {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	return task
}

// NewPod returns a Pod that never restarts its containers.
func NewPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: containers},
	}
}

// NewSequentialPod returns a Pod whose containers are the steps, and which ends soon after its deletion.
func NewSequentialPod(namespace, name string, containers ...corev1.Container) *corev1.Pod {
	pod := NewPod(namespace, name, containers...)
	pod.Labels = map[string]string{contract.SequentialLabel: "true"}
	pod.Spec.TerminationGracePeriodSeconds = new(int64(2))
	return pod
}

// StepLines returns a line for each step: its name, its state, its reason, its exit code and its retries, without those that are not set.
func StepLines(steps []v1alpha1.StepStatus) []string {
	var lines []string
	for _, step := range steps {
		line := step.Name + " " + string(step.State)
		if step.Reason != "" {
			line += " " + step.Reason
		}
		if step.ExitCode != nil {
			line += fmt.Sprintf(" %d", *step.ExitCode)
			if step.StartedAt == nil && step.FinishedAt != nil {
				line += " never started"
			}
		}
		if step.Retries != 0 {
			line += fmt.Sprintf(", %d retries", step.Retries)
		}
		lines = append(lines, line)
	}
	return lines
}
