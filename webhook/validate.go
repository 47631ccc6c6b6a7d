package webhook

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// checkLabel refuses a label that says neither yes nor no: its Pod would run all at once, and nobody would know why.
func checkLabel(pod *corev1.Pod) error {
	switch value, set := pod.Labels[contract.SequentialLabel]; {
	case !set, value == "true", value == "false":
		return nil
	default:
		return fmt.Errorf("metadata.labels: %s is %q: set it to \"true\", or remove it", contract.SequentialLabel, value)
	}
}

// checkUsers refuses a Pod of a user's that can't be made sequential, whatever its steps are.
func checkUsers(pod *corev1.Pod) error {
	for key := range pod.Annotations {
		if key == contract.OptionsAnnotation || strings.HasPrefix(key, contract.ScriptAnnotationPrefix) {
			return fmt.Errorf("metadata.annotations: %s is set by taskflow alone: remove it, and name a Task with the label %s", key, contract.TaskLabel)
		}
	}
	if err := checkAnnotations(pod); err != nil {
		return err
	}
	if owner := metav1.GetControllerOf(pod); owner != nil && startsForEver(*owner) {
		return fmt.Errorf("metadata.ownerReferences: the %s %q starts its Pods again for ever, and steps end: use a Job, or remove the taskflow labels from the Pod template",
			owner.Kind, owner.Name)
	}
	return checkNames(pod, "")
}

// startsForEver says whether the owner makes a new Pod for each that has ended well.
func startsForEver(owner metav1.OwnerReference) bool {
	group, _, grouped := strings.Cut(owner.APIVersion, "/")
	switch owner.Kind {
	case "ReplicaSet", "StatefulSet", "DaemonSet":
		return grouped && group == "apps"
	case "ReplicationController":
		return !grouped
	}
	return false
}

// checkAnnotations refuses what would open gates before their time, or in a way that there isn't.
func checkAnnotations(pod *corev1.Pod) error {
	for _, annotation := range []string{contract.OrderAnnotation, contract.HaltAnnotation} {
		if _, set := pod.Annotations[annotation]; set {
			return fmt.Errorf("metadata.annotations: %s is set by taskflow alone: remove it", annotation)
		}
	}
	if handoff, set := pod.Annotations[contract.HandoffAnnotation]; set && handoff != contract.HandoffController {
		return fmt.Errorf("metadata.annotations: %s is %q: set it to %s, or remove it", contract.HandoffAnnotation, handoff, contract.HandoffController)
	}
	if delivery, set := pod.Annotations[contract.DeliveryAnnotation]; set && delivery != contract.DeliveryInit && delivery != contract.DeliveryImage {
		return fmt.Errorf("metadata.annotations: %s is %q: set it to %s or %s, or remove it",
			contract.DeliveryAnnotation, delivery, contract.DeliveryInit, contract.DeliveryImage)
	}
	return nil
}

// checkNames refuses volumes and containers that would be taken for taskflow's own, but one volume.
func checkNames(pod *corev1.Pod, but string) error {
	reserved := func(name string) bool { return strings.HasPrefix(name, contract.ReservedPrefix) && name != but }
	for _, volume := range pod.Spec.Volumes {
		if reserved(volume.Name) {
			return fmt.Errorf("spec.volumes: %q starts with %s, which is for taskflow's own: choose another name", volume.Name, contract.ReservedPrefix)
		}
	}
	for container := range containers(pod) {
		if reserved(container.Name) {
			return fmt.Errorf("the container name %q starts with %s, which is for taskflow's own: choose another name", container.Name, contract.ReservedPrefix)
		}
		for _, mount := range container.VolumeMounts {
			if reserved(mount.Name) {
				return fmt.Errorf("the container %q mounts %q, and volume names that start with %s are for taskflow's own: choose another volume",
					container.Name, mount.Name, contract.ReservedPrefix)
			}
		}
	}
	return nil
}

// check refuses what can't be made sequential, or would be taken for taskflow's own.
func check(pod *corev1.Pod) error {
	if err := checkAnnotations(pod); err != nil {
		return err
	}
	if pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows {
		return errors.New("spec.os.name: steps run on Linux nodes only: set it to linux, or leave it out")
	}
	return checkNames(pod, contract.ScriptsVolume)
}

// checkStep refuses a step that would do something before its turn, or again and again.
func checkStep(container *corev1.Container) error {
	switch {
	case container.Lifecycle != nil && container.Lifecycle.PostStart != nil:
		return fmt.Errorf("the step %q has lifecycle.postStart, which would run before its turn: put it into the command", container.Name)
	case container.RestartPolicy != nil || len(container.RestartPolicyRules) > 0:
		return fmt.Errorf("the step %q has a restartPolicy of its own, which isn't supported: set spec.restartPolicy", container.Name)
	}
	if err := checkProcess1(container); err != nil {
		return err
	}
	for _, device := range container.VolumeDevices {
		if overlap(device.DevicePath, contract.OwnDir) || overlap(device.DevicePath, contract.PodInfoDir) {
			return fmt.Errorf("the container %q has the device %q at %s, which is for taskflow's own: choose another devicePath",
				container.Name, device.Name, device.DevicePath)
		}
	}
	return nil
}

// checkHelper refuses a container beside the steps that doesn't end, or isn't started again, as the Pod says: what it means for the first step,
// and for the end of the Pod, couldn't be told from the Pod's restartPolicy.
func checkHelper(container *corev1.Container) error {
	if container.RestartPolicy != nil || len(container.RestartPolicyRules) > 0 {
		return fmt.Errorf("the container %q is no step and has a restartPolicy of its own, which isn't supported: remove it, or make it an init container with restartPolicy: Always",
			container.Name)
	}
	return nil
}

// checkOwner refuses a Pod that only looks as if the operator had created it for a Task: the Task would take the Pod's end for its own.
func checkOwner(pod *corev1.Pod) error {
	if task := controllingTask(pod); task != "" {
		return fmt.Errorf("metadata.ownerReferences: only taskflow creates the Pods of a Task: remove the owner reference to the Task %q, and name the Task in the label %s",
			task, contract.TaskLabel)
	}
	if _, marked := pod.Annotations[contract.TaskUIDAnnotation]; marked {
		return fmt.Errorf("metadata.annotations: only taskflow sets %s: remove it", contract.TaskUIDAnnotation)
	}
	return nil
}

// checkContinue refuses a failure that doesn't matter and is run again for ever. In a Task the API server refuses it.
func checkContinue(pod *corev1.Pod) error {
	options, err := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	if err != nil || pod.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return err
	}
	for _, name := range contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]) {
		if options[name].ContinueOnError {
			return fmt.Errorf("spec.restartPolicy: OnFailure would run the step %q again for ever, whose Task says onError: Continue: set it to Never", name)
		}
	}
	return nil
}
