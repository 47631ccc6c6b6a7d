package controller

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/contract"
	"github.com/taskflow/taskflow-operator/entrypoint"
)

// newPod is the Pod of a Task. Its steps have the commands given by name, where they set none themselves. It has the Task's
// name, so that `kubectl logs TASK -c STEP` works. The webhook makes it sequential.
func newPod(task *v1alpha1.Task, commands map[string]entrypoint.Command) *corev1.Pod {
	pod := &corev1.Pod{}
	if template := task.Spec.Template; template != nil {
		pod.Labels = maps.Clone(template.Metadata.Labels)
		pod.Annotations = maps.Clone(template.Metadata.Annotations)
		pod.Spec = *template.Spec.DeepCopy()
	}
	pod.Name, pod.Namespace = task.Name, task.Namespace
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)}
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}

	var names []string
	for _, step := range task.Spec.Steps {
		container := *step.Container.DeepCopy()
		if command, ok := commands[step.Name]; ok {
			container.Command, container.Args = command.Fill(container.Args)
		}
		pod.Spec.Containers = append(pod.Spec.Containers, container)
		names = append(names, step.Name)
	}
	metav1.SetMetaDataLabel(&pod.ObjectMeta, contract.TaskLabel, task.Name)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.StepsAnnotation, contract.FormatSteps(names))
	return pod
}

// architecture is the one that the Task's Pod asks for, or empty.
func architecture(task *v1alpha1.Task) string {
	if task.Spec.Template == nil {
		return ""
	}
	return task.Spec.Template.Spec.NodeSelector[corev1.LabelArchStable]
}
