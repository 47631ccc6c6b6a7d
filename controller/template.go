package controller

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TemplatePod is the Pod that a Task would make, for those that take from it what they need. Its steps have no other commands than
// the Task says.
func TemplatePod(task *v1alpha1.Task) *corev1.Pod { return newPod(task, 1, nil) }
