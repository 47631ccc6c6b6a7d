package podspec

import (
	"cmp"
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
)

// Command is what a container without a command runs, by the configuration of its image.
type Command struct {
	// Command and Args become the container's. They include the args that the container has itself.
	Command, Args []string
	// Image replaces the container's image, if it is not empty: the command is known for this digest only.
	Image string
}

// Name returns the name of a Task's Pod: the Task's own name, so that `kubectl logs TASK -c STEP` works. The Pods of later attempts have a
// number.
func Name(task *v1alpha1.Task, attempt int32) string {
	if attempt <= 1 {
		return task.Name
	}
	return fmt.Sprintf("%s-retry-%d", task.Name, attempt-1)
}

// New returns the Pod for an attempt of a Task. The commands, by the names of their steps, are for the steps that have neither a command nor a
// script. The webhook gates the Pod when it is created.
func New(task *v1alpha1.Task, attempt int32, commands map[string]Command) *corev1.Pod {
	return newPod(task, attempt, commands, true)
}

// newPod is New. If the Pod isn't the Task's own, its claim isn't either.
func newPod(task *v1alpha1.Task, attempt int32, commands map[string]Command, isOwn bool) *corev1.Pod {
	pod := &corev1.Pod{}
	if template := task.Spec.Template; template != nil {
		pod.Labels = maps.Clone(template.Metadata.Labels)
		pod.Annotations = maps.Clone(template.Metadata.Annotations)
		pod.Spec = *template.Spec.DeepCopy()
	}
	pod.Name, pod.Namespace = Name(task, attempt), task.Namespace
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
	for i, step := range EffectiveSteps(task) {
		container := *step.Container.DeepCopy()
		if command, ok := commands[step.Name]; ok {
			container.Command, container.Args = command.Command, command.Args
			container.Image = cmp.Or(command.Image, container.Image)
		}
		if step.Script != "" {
			file := strconv.Itoa(i + 1)
			scripts = append(scripts, addScript(pod, &container, file, step.Script))
		}
		o := toOptions(step.StepOptions)
		if o.DefaultWorkDir = defaultWorkDir(task, &container); !o.IsZero() {
			options[step.Name] = o
		}
		pod.Spec.Containers = append(pod.Spec.Containers, container)
		names = append(names, step.Name)
	}
	if task.Spec.Workspace != nil {
		pod.Spec.Volumes = append(pod.Spec.Volumes, workspaceOf(task, isOwn))
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

// addScript makes the container run a script, which an annotation and a file bring into it. The command names the interpreter instead of leaving
// it to the kernel: so the file need not be executable, and the volume may be mounted noexec.
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

// interpreter returns what the first line of a script names: a program and at most one argument, as execve(2) reads it. It escapes each $, because
// the kubelet would expand $(VAR).
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
