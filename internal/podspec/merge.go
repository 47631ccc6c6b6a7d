package podspec

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// taskImage is the image of a container that takes the image of the Task's step. It is also the name of a placeholder: the template of a Job must
// have a container.
const taskImage = "task"

// mergeTask merges a Task into the Pod: steps, sidecars, volumes, pull secrets, and the annotations for all Pods. The Pod's own fields take
// precedence.
//
// It merges containers as the API server merges a strategic patch, but on the Pod's own JSON: so unknown fields survive. Each field that changes
// becomes one operation.
func (m *Mutation) mergeTask(task *v1alpha1.Task) error {
	names := StepNames(m.pod)
	if len(names) == 0 {
		for _, step := range task.Spec.Steps {
			names = append(names, step.Name)
		}
	}
	if err := checkStepNames(task, m.pod, names); err != nil {
		return err
	}
	if m.entries != nil {
		m.warnLeftOut(task, names)
	}
	if ignored := ownPodFields(task); len(ignored) > 0 {
		m.warn("ignored fields of the Task %q, which apply to its own Pod only: %s", task.Name, strings.Join(ignored, ", "))
	}
	template := newPod(taskSubset(task, m.pod, names), 1, nil, false)

	var document struct {
		Spec struct {
			Containers     []fields `json:"containers"`
			InitContainers []fields `json:"initContainers"`
		} `json:"spec"`
	}
	if err := decodeExactly(m.raw, &document); err != nil {
		return err
	}
	if err := m.mergeContainers("containers", document.Spec.Containers, &m.pod.Spec.Containers, template.Spec.Containers); err != nil {
		return err
	}
	if err := m.mergeContainers("initContainers", document.Spec.InitContainers, &m.pod.Spec.InitContainers, template.Spec.InitContainers); err != nil {
		return err
	}
	for container := range containers(m.pod) {
		if container.Image == taskImage {
			return noImage(task, container.Name)
		}
	}
	addMissing(m, "volumes", &m.pod.Spec.Volumes, template.Spec.Volumes, func(v corev1.Volume) string { return v.Name })
	addMissing(m, "imagePullSecrets", &m.pod.Spec.ImagePullSecrets, template.Spec.ImagePullSecrets,
		func(s corev1.LocalObjectReference) string { return s.Name })

	annotations := map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)}
	for key, value := range template.Annotations {
		if _, own := m.pod.Annotations[key]; !own && key != contract.StepsAnnotation && key != contract.OptionsAnnotation {
			annotations[key] = value
		}
	}
	m.annotate(annotations)
	return nil
}

// warnLeftOut warns of the Task's steps that a list with options leaves out: users may expect that it changes single steps only.
func (m *Mutation) warnLeftOut(task *v1alpha1.Task, names []string) {
	var leftOut []string
	for _, step := range task.Spec.Steps {
		if !slices.Contains(names, step.Name) {
			leftOut = append(leftOut, step.Name)
		}
	}
	if len(leftOut) > 0 {
		m.warn("steps of the Task %q that this Pod leaves out: %s: name them in the list to run them", task.Name, someNames(leftOut))
	}
}

// checkStepNames rejects names that are neither a step of the Task nor a container of the Pod.
func checkStepNames(task *v1alpha1.Task, pod *corev1.Pod, names []string) error {
	for _, name := range names {
		isContainer := func(c corev1.Container) bool { return c.Name == name }
		if !hasStep(task, name) && !slices.ContainsFunc(pod.Spec.Containers, isContainer) {
			return fmt.Errorf("metadata.annotations: %s names %q, which is neither a step of the Task %q nor a container of the Pod: fix the name (the Task's steps: %s)",
				contract.StepsAnnotation, name, task.Name, listSteps(task))
		}
	}
	return nil
}

// noImage returns the reason why a container with image: task gets no image from the Task.
func noImage(task *v1alpha1.Task, container string) error {
	if hasStep(task, container) {
		return fmt.Errorf("the container %q has image: %s, but the annotation %s omits the Task's step of that name: add the step to the annotation, or remove the container",
			container, taskImage, contract.StepsAnnotation)
	}
	return fmt.Errorf("the container %q has image: %s, but the Task %q has no step %q: fix its name or image (the Task's steps: %s)",
		container, taskImage, task.Name, container, listSteps(task))
}

func hasStep(task *v1alpha1.Task, name string) bool {
	return slices.ContainsFunc(task.Spec.Steps, func(step v1alpha1.Step) bool { return step.Name == name })
}

// listSteps returns the names of the Task's first steps.
func listSteps(task *v1alpha1.Task) string {
	names := make([]string, len(task.Spec.Steps))
	for i := range task.Spec.Steps {
		names[i] = task.Spec.Steps[i].Name
	}
	return someNames(names)
}

// someNames returns the first names: a Task may have a hundred steps.
func someNames(names []string) string {
	const most = 10
	if len(names) > most {
		names = append(slices.Clone(names[:most]), "...")
	}
	return strings.Join(names, ", ")
}

// ownPodFields returns the set fields of a Task that apply to the Task's own Pod only. Users might expect them in other Pods, too.
func ownPodFields(task *v1alpha1.Task) []string {
	var ignored []string
	if template := task.Spec.Template; template != nil {
		if annotations := template.Metadata.Annotations; len(annotations) > len(sharedAnnotations(annotations)) {
			ignored = append(ignored, "template.metadata.annotations")
		}
		if len(template.Metadata.Labels) > 0 {
			ignored = append(ignored, "template.metadata.labels")
		}
		spec := template.Spec.DeepCopy()
		spec.Volumes, spec.ImagePullSecrets, spec.Containers, spec.RestartPolicy = nil, nil, nil, ""
		for _, field := range slices.Sorted(maps.Keys(fieldsOf(spec))) {
			if field != "containers" {
				ignored = append(ignored, "template.spec."+field)
			}
		}
	}
	if task.Spec.Timeout != nil {
		ignored = append(ignored, "timeout")
	}
	if task.Spec.FinallyTimeout != nil {
		ignored = append(ignored, "finallyTimeout")
	}
	return ignored
}

// sharedAnnotations returns the annotations of a Task's template that apply to every Pod with the Task's steps.
func sharedAnnotations(annotations map[string]string) map[string]string {
	annotations = maps.Clone(annotations)
	maps.DeleteFunc(annotations, func(key, _ string) bool {
		return key != contract.HandoffAnnotation && key != contract.DeliveryAnnotation
	})
	return annotations
}

// taskSubset returns a copy of the Task with what a Pod that names the Task takes from it: the named steps, and of the template the volumes, pull
// secrets and shared annotations. A command of the Pod replaces a step's command, args and script, which belong together.
func taskSubset(task *v1alpha1.Task, pod *corev1.Pod, names []string) *v1alpha1.Task {
	task = task.DeepCopy()
	if template := task.Spec.Template; template != nil {
		task.Spec.Template = &v1alpha1.PodTemplate{
			Metadata: metav1.ObjectMeta{Annotations: sharedAnnotations(template.Metadata.Annotations)},
			Spec:     corev1.PodSpec{Volumes: template.Spec.Volumes, ImagePullSecrets: template.Spec.ImagePullSecrets},
		}
	}
	task.Spec.Steps = slices.DeleteFunc(task.Spec.Steps, func(step v1alpha1.Step) bool { return !slices.Contains(names, step.Name) })
	for i := range task.Spec.Steps {
		step := &task.Spec.Steps[i]
		own := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == step.Name })
		if own >= 0 && len(pod.Spec.Containers[own].Command) > 0 {
			step.Command, step.Args, step.Script = nil, nil, ""
		}
	}
	return task
}

// mergeContainers merges the Task's containers into a list of the Pod: each into the container of its name, else into the placeholder, else at the
// end.
func (m *Mutation) mergeContainers(list string, raw []fields, containers *[]corev1.Container, ofTask []corev1.Container) error {
	placeholder := slices.IndexFunc(*containers, func(c corev1.Container) bool {
		named := slices.ContainsFunc(ofTask, func(t corev1.Container) bool { return t.Name == taskImage })
		return list == "containers" && c.Name == taskImage && c.Image == taskImage && !named
	})
	ranges := limitRanges(m.pod)
	var added []corev1.Container
	for _, container := range ofTask {
		i := slices.IndexFunc(*containers, func(c corev1.Container) bool { return c.Name == container.Name })
		var merged fields
		var err error
		switch {
		case i >= 0:
			merged, err = overrideContainer(container, raw[i], ranges)
		case placeholder >= 0:
			i, placeholder = placeholder, -1
			merged, err = replacePlaceholder(raw[i], (*containers)[i], container)
		default:
			added = append(added, container)
			continue
		}
		if err != nil {
			return fmt.Errorf("merging the container %q with the Task's container: %w", container.Name, err)
		}
		m.setFields(raw[i], merged, "spec", list, strconv.Itoa(i))
		if (*containers)[i], err = containerOf(merged); err != nil {
			return err
		}
	}
	jsonpatch.Add(&m.Patch, len(*containers), added, "spec", list)
	*containers = append(*containers, added...)
	if placeholder >= 0 && len(*containers) > 1 { // no step needed it
		m.Patch.Remove("spec", list, strconv.Itoa(placeholder))
		*containers = slices.Delete(*containers, placeholder, placeholder+1)
	}
	return nil
}

// setFields patches the fields of an object that differ.
func (m *Mutation) setFields(before, after fields, path ...string) {
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if old, had := before[key]; !had || !reflect.DeepEqual(old, after[key]) {
			m.Patch.Set(after[key], append(slices.Clip(path), key)...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[key]; !has {
			m.Patch.Remove(append(slices.Clip(path), key)...)
		}
	}
}

// addMissing appends the Task's list entries whose name the Pod does not use yet.
func addMissing[T any](m *Mutation, list string, own *[]T, ofTask []T, name func(T) string) {
	used := make(map[string]bool, len(*own))
	for _, element := range *own {
		used[name(element)] = true
	}
	missing := slices.DeleteFunc(slices.Clone(ofTask), func(element T) bool { return used[name(element)] })
	jsonpatch.Add(&m.Patch, len(*own), missing, "spec", list)
	*own = append(*own, missing...)
}
