package controller

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// podName is that of a Task's Pod: the Task's name, so that `kubectl logs TASK -c STEP` works. Later ones, after a failure,
// have a number.
func podName(task *v1alpha1.Task, attempt int32) string {
	if attempt <= 1 {
		return task.Name
	}
	return fmt.Sprintf("%s-retry-%d", task.Name, attempt-1)
}

// newPod is a Pod of a Task. Its steps have the commands given by name, where they set none themselves. The webhook makes it
// sequential.
func newPod(task *v1alpha1.Task, attempt int32, commands map[string]entrypoint.Command) *corev1.Pod {
	pod := &corev1.Pod{}
	if template := task.Spec.Template; template != nil {
		pod.Labels = maps.Clone(template.Metadata.Labels)
		pod.Annotations = maps.Clone(template.Metadata.Annotations)
		pod.Spec = *template.Spec.DeepCopy()
	}
	pod.Name, pod.Namespace = podName(task, attempt), task.Namespace
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)}
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	if timeout := task.Spec.Timeout; timeout != nil {
		pod.Spec.ActiveDeadlineSeconds = new(int64(math.Ceil(timeout.Seconds())))
	}
	for _, sidecar := range task.Spec.Sidecars {
		container := *sidecar.DeepCopy()
		container.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, container)
	}

	var names []string
	options := contract.Options{}
	var scripts []corev1.DownwardAPIVolumeFile
	for i, step := range task.Spec.Steps {
		container := *step.Container.DeepCopy()
		if command, ok := commands[step.Name]; ok {
			container.Command, container.Args = command.Fill(container.Args)
			if command.Image != "" {
				container.Image = command.Image
			}
		}
		if step.Script != "" {
			file := strconv.Itoa(i + 1)
			scripts = append(scripts, addScript(pod, &container, file, step.Script))
		}
		if o := stepOptions(step); o != (contract.StepOptions{}) {
			options[step.Name] = o
		}
		pod.Spec.Containers = append(pod.Spec.Containers, container)
		names = append(names, step.Name)
	}
	if len(scripts) > 0 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
			Name:         contract.ScriptsVolume,
			VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: scripts}},
		})
	}
	metav1.SetMetaDataLabel(&pod.ObjectMeta, contract.TaskLabel, task.Name)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.StepsAnnotation, contract.FormatSteps(names))
	if value := options.Marshal(); value != "" {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, contract.OptionsAnnotation, value)
	}
	return pod
}

func stepOptions(step v1alpha1.Step) contract.StepOptions {
	o := contract.StepOptions{Retries: int(step.Retries), ContinueOnError: step.OnError == v1alpha1.OnErrorContinue}
	if step.Timeout != nil {
		o.Timeout = step.Timeout.Duration
	}
	return o
}

// addScript makes the container run a script, which comes to it in an annotation and a file. The interpreter is named in the
// command, not left to the kernel to find: so the file need not be executable, nor the volume allow it.
func addScript(pod *corev1.Pod, container *corev1.Container, file, script string) corev1.DownwardAPIVolumeFile {
	annotation := contract.ScriptAnnotationPrefix + file
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotation, script)
	container.Command = append(interpreter(script), contract.ScriptsDir+"/"+file)
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
		Name: contract.ScriptsVolume, MountPath: contract.ScriptsDir, ReadOnly: true,
	})
	return corev1.DownwardAPIVolumeFile{
		Path:     file,
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.annotations['%s']", annotation)},
	}
}

// interpreter is what the first line of a script names: a program and at most one argument (execve(2)). The kubelet would
// expand $(VAR) in both, so a $ is escaped.
func interpreter(script string) []string {
	line, _, _ := strings.Cut(script, "\n")
	line, named := strings.CutPrefix(line, "#!")
	program, argument, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
	if !named || program == "" {
		return []string{"/bin/sh"}
	}
	command := []string{strings.ReplaceAll(program, "$", "$$")}
	if argument = strings.TrimSpace(argument); argument != "" {
		command = append(command, strings.ReplaceAll(argument, "$", "$$"))
	}
	return command
}
