package podspec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// checkLabel rejects a label that is neither true nor false: the steps would start at once, for no visible reason.
func checkLabel(pod *corev1.Pod) error {
	switch value, set := pod.Labels[contract.SequentialLabel]; {
	case !set, value == "true", value == "false":
		return nil
	default:
		return fmt.Errorf("metadata.labels: %s is %q: set it to \"true\", or remove it", contract.SequentialLabel, value)
	}
}

// checkUserPod rejects a user's Pod that can't be gated, regardless of its steps.
func checkUserPod(pod *corev1.Pod) error {
	for key := range pod.Annotations {
		if key == contract.OptionsAnnotation || strings.HasPrefix(key, contract.ScriptAnnotationPrefix) {
			return fmt.Errorf("metadata.annotations: only taskflow sets %s: remove it, and name a Task with the label %s", key, contract.TaskLabel)
		}
	}
	if owner := metav1.GetControllerOf(pod); owner != nil && replacesFinishedPods(*owner) {
		return fmt.Errorf("metadata.ownerReferences: the %s %q replaces Pods that have succeeded, and steps must be able to finish: use a Job, or remove the taskflow labels from the Pod template",
			owner.Kind, owner.Name)
	}
	return checkPod(pod, "")
}

// replacesFinishedPods reports whether the owner creates a new Pod for each one that succeeded.
func replacesFinishedPods(owner metav1.OwnerReference) bool {
	group, _, grouped := strings.Cut(owner.APIVersion, "/")
	switch owner.Kind {
	case "ReplicaSet", "StatefulSet", "DaemonSet":
		return grouped && group == "apps"
	case "ReplicationController":
		return !grouped
	}
	return false
}

// progressAnnotations are what the controllers tell the agents of a Pod.
var progressAnnotations = []string{
	contract.OrderAnnotation, contract.HaltAnnotation, contract.HaltFinallyAnnotation, contract.CancelAnnotation, contract.OutcomeAnnotation,
}

// checkPod rejects annotations that would release steps early or that name an unknown hand-off or delivery, Windows, and volumes and containers with
// taskflow's own names, except for one volume.
func checkPod(pod *corev1.Pod, except string) error {
	for _, annotation := range progressAnnotations {
		if _, set := pod.Annotations[annotation]; set {
			return fmt.Errorf("metadata.annotations: only taskflow sets %s: remove it", annotation)
		}
	}
	if handoff, set := pod.Annotations[contract.HandoffAnnotation]; set && handoff != contract.HandoffController {
		return fmt.Errorf("metadata.annotations: %s is %q: set it to %s, or remove it", contract.HandoffAnnotation, handoff, contract.HandoffController)
	}
	if delivery, set := pod.Annotations[contract.DeliveryAnnotation]; set && delivery != contract.DeliveryInit && delivery != contract.DeliveryImage {
		return fmt.Errorf("metadata.annotations: %s is %q: set it to %s or %s, or remove it",
			contract.DeliveryAnnotation, delivery, contract.DeliveryInit, contract.DeliveryImage)
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows {
		return errors.New("spec.os.name: steps run on Linux nodes only: set it to linux, or leave it out")
	}
	reserved := func(name string) bool { return strings.HasPrefix(name, contract.ReservedPrefix) && name != except }
	for _, volume := range pod.Spec.Volumes {
		if reserved(volume.Name) {
			return fmt.Errorf("spec.volumes: %q starts with %s, which is reserved for taskflow: choose another name", volume.Name, contract.ReservedPrefix)
		}
	}
	for container := range containers(pod) {
		if reserved(container.Name) {
			return fmt.Errorf("the container name %q starts with %s, which is reserved for taskflow: choose another name", container.Name, contract.ReservedPrefix)
		}
		for _, mount := range container.VolumeMounts {
			if reserved(mount.Name) {
				return fmt.Errorf("the container %q mounts %q, and volume names that start with %s are reserved for taskflow: choose another volume",
					container.Name, mount.Name, contract.ReservedPrefix)
			}
		}
	}
	return nil
}

// inits are programs that exit at once unless they are process 1 of their container, which is the agent. /init is s6-overlay's. Only these paths
// count: a program of the same name elsewhere may be anything.
var inits = []string{
	"/init",
	"/sbin/init", "/usr/sbin/init",
	"/lib/systemd/systemd", "/usr/lib/systemd/systemd",
}

// checkStep rejects a step that would do something before its turn, that the kubelet would restart against the Pod's restartPolicy, or that can't
// run below the agent.
func checkStep(container *corev1.Container) error {
	switch {
	case container.Lifecycle != nil && container.Lifecycle.PostStart != nil:
		return fmt.Errorf("the step %q has lifecycle.postStart, which would run before its turn: put it into the command", container.Name)
	case container.RestartPolicy != nil || len(container.RestartPolicyRules) > 0:
		return fmt.Errorf("the step %q has a restartPolicy of its own, which isn't supported: set spec.restartPolicy", container.Name)
	case len(container.Command) > 0 && slices.Contains(inits, container.Command[0]):
		return fmt.Errorf("the step %q runs %s, which must be process 1, but taskflow's agent is: set command to the program that it starts",
			container.Name, container.Command[0])
	}
	for _, device := range container.VolumeDevices {
		if overlap(device.DevicePath, contract.OwnDir) || overlap(device.DevicePath, contract.PodInfoDir) {
			return fmt.Errorf("the container %q has the device %q at %s, which is reserved for taskflow: choose another devicePath",
				container.Name, device.Name, device.DevicePath)
		}
	}
	return nil
}

// checkHelper rejects a helper with a restart policy of its own: what its end means for the first step and for the end of the Pod follows from the
// Pod's restartPolicy.
func checkHelper(container *corev1.Container) error {
	if container.RestartPolicy != nil || len(container.RestartPolicyRules) > 0 {
		return fmt.Errorf("the container %q is a helper and has a restartPolicy of its own, which isn't supported: remove the restartPolicy, or make it an init container with restartPolicy: Always",
			container.Name)
	}
	return nil
}

// checkOwner rejects a Pod that only looks as if the operator had created it for a Task: the Task would finish when the Pod does.
func checkOwner(pod *corev1.Pod) error {
	if task := OwnerTask(pod); task != "" {
		return fmt.Errorf("metadata.ownerReferences: only taskflow creates the Pods of a Task: remove the owner reference to the Task %q, and name the Task in the label %s",
			task, contract.TaskLabel)
	}
	if _, marked := pod.Annotations[contract.TaskUIDAnnotation]; marked {
		return fmt.Errorf("metadata.annotations: only taskflow sets %s: remove it", contract.TaskUIDAnnotation)
	}
	return nil
}
