package webhook

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
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// taskImage is the image of a container that has that of the Task's step; and the name of one that only keeps a place, since
// the template of a Job must have a container.
const taskImage = "task"

// useTask puts the Task that the Pod names into it: steps, sidecars, volumes, pull secrets, and how steps are run. What the Pod itself has comes before
// what the Task says.
//
// The containers are merged as the API server would merge a strategic patch, on the Pod's own JSON, which is raw: so fields
// that nobody here knows stay. Each field that has changed becomes an operation of its own.
func (d *draft) useTask(raw []byte, task *v1alpha1.Task) error {
	names := contract.ParseSteps(d.pod.Annotations[contract.StepsAnnotation])
	if len(names) == 0 {
		for _, step := range task.Spec.Steps {
			names = append(names, step.Name)
		}
	}
	if err := checkStepNames(task, d.pod, names); err != nil {
		return err
	}
	if ignored := notForOthers(task); len(ignored) > 0 {
		d.warn("not taken from the Task %q, since it is for the Task's own Pod: %s", task.Name, strings.Join(ignored, ", "))
	}
	template := controller.TemplatePod(part(task, d.pod, names))

	var document struct {
		Spec struct {
			Containers     []fields `json:"containers"`
			InitContainers []fields `json:"initContainers"`
		} `json:"spec"`
	}
	if err := decodeExactly(raw, &document); err != nil {
		return err
	}
	if err := d.mergeContainers("containers", document.Spec.Containers, &d.pod.Spec.Containers, template.Spec.Containers); err != nil {
		return err
	}
	if err := d.mergeContainers("initContainers", document.Spec.InitContainers, &d.pod.Spec.InitContainers, template.Spec.InitContainers); err != nil {
		return err
	}
	for container := range containers(d.pod) {
		if container.Image == taskImage {
			return noImage(task, container.Name)
		}
	}
	addMissing(d, "volumes", &d.pod.Spec.Volumes, template.Spec.Volumes, func(v corev1.Volume) string { return v.Name })
	addMissing(d, "imagePullSecrets", &d.pod.Spec.ImagePullSecrets, template.Spec.ImagePullSecrets,
		func(s corev1.LocalObjectReference) string { return s.Name })

	annotations := map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)}
	for key, value := range template.Annotations {
		if _, own := d.pod.Annotations[key]; !own && key != contract.StepsAnnotation {
			annotations[key] = value
		}
	}
	d.annotate(annotations)
	return nil
}

// checkStepNames refuses names of steps that neither the Task nor the Pod has.
func checkStepNames(task *v1alpha1.Task, pod *corev1.Pod, names []string) error {
	for _, name := range names {
		isContainer := func(c corev1.Container) bool { return c.Name == name }
		if !hasStep(task, name) && !slices.ContainsFunc(pod.Spec.Containers, isContainer) {
			return fmt.Errorf("metadata.annotations: %s names %q, but neither the Task %q has a step nor the Pod a container of that name: correct the name (the Task's steps: %s)",
				contract.StepsAnnotation, name, task.Name, listSteps(task))
		}
	}
	return nil
}

// noImage says why a container with image: task gets no image from the Task.
func noImage(task *v1alpha1.Task, container string) error {
	if hasStep(task, container) {
		return fmt.Errorf("the container %q has image: %s, but metadata.annotations: %s leaves out the Task's step of that name: add it there, or remove the container",
			container, taskImage, contract.StepsAnnotation)
	}
	return fmt.Errorf("the container %q has image: %s, but the Task %q has no step %q: correct name or image (the Task's steps: %s)",
		container, taskImage, task.Name, container, listSteps(task))
}

func hasStep(task *v1alpha1.Task, name string) bool {
	return slices.ContainsFunc(task.Spec.Steps, func(step v1alpha1.Step) bool { return step.Name == name })
}

// listSteps returns the names of the Task's first steps: a Task may have a hundred.
func listSteps(task *v1alpha1.Task) string {
	const most = 10
	var names []string
	for _, step := range task.Spec.Steps[:min(most, len(task.Spec.Steps))] {
		names = append(names, step.Name)
	}
	if len(task.Spec.Steps) > most {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// notForOthers are the fields of a Task that are about its own Pod, and that the user might expect in another.
func notForOthers(task *v1alpha1.Task) []string {
	var ignored []string
	if template := task.Spec.Template; template != nil {
		if annotations := template.Metadata.Annotations; len(annotations) > len(forAll(annotations)) {
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
	return ignored
}

// forAll are those annotations of a Task's template that say how steps are run, in whichever Pod.
func forAll(annotations map[string]string) map[string]string {
	annotations = maps.Clone(annotations)
	maps.DeleteFunc(annotations, func(key, _ string) bool {
		return key != contract.HandoffAnnotation && key != contract.DeliveryAnnotation
	})
	return annotations
}

// part is of a Task what a Pod takes from it: the named steps. A command of the Pod's own takes the place of a step's command, args
// and script, which belong together.
func part(task *v1alpha1.Task, pod *corev1.Pod, names []string) *v1alpha1.Task {
	task = task.DeepCopy()
	if template := task.Spec.Template; template != nil {
		task.Spec.Template = &v1alpha1.PodTemplate{
			Metadata: metav1.ObjectMeta{Annotations: forAll(template.Metadata.Annotations)},
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

// mergeContainers brings the Task's containers into a list of the Pod's: into the container of the same name, else into the one that
// only keeps a place, else to the end.
func (d *draft) mergeContainers(list string, raw []fields, containers *[]corev1.Container, ofTask []corev1.Container) error {
	placeholder := slices.IndexFunc(*containers, func(c corev1.Container) bool {
		named := slices.ContainsFunc(ofTask, func(t corev1.Container) bool { return t.Name == taskImage })
		return list == "containers" && c.Name == taskImage && c.Image == taskImage && !named
	})
	ranges := limitRanges(d.pod)
	var added []corev1.Container
	for _, container := range ofTask {
		i := slices.IndexFunc(*containers, func(c corev1.Container) bool { return c.Name == container.Name })
		var merged fields
		var err error
		switch {
		case i >= 0:
			merged, err = override(container, raw[i], ranges)
		case placeholder >= 0:
			i, placeholder = placeholder, -1
			merged, err = replace(raw[i], (*containers)[i], container)
		default:
			added = append(added, container)
			continue
		}
		if err != nil {
			return fmt.Errorf("merging the container %q with that of the Task: %w", container.Name, err)
		}
		d.setFields(raw[i], merged, "spec", list, strconv.Itoa(i))
		if (*containers)[i], err = containerOf(merged); err != nil {
			return err
		}
	}
	jsonpatch.Add(&d.patch, len(*containers), added, "spec", list)
	*containers = append(*containers, added...)
	if placeholder >= 0 && len(*containers) > 1 { // every step has a container of its own
		d.patch.Remove("spec", list, strconv.Itoa(placeholder))
		*containers = slices.Delete(*containers, placeholder, placeholder+1)
	}
	return nil
}

// setFields writes what has become of an object's fields.
func (d *draft) setFields(before, after fields, path ...string) {
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if old, had := before[key]; !had || !reflect.DeepEqual(old, after[key]) {
			d.patch.Set(after[key], append(slices.Clip(path), key)...)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, has := after[key]; !has {
			d.patch.Remove(append(slices.Clip(path), key)...)
		}
	}
}

// addMissing adds those of the Task's to a list that the Pod has none of the same name of.
func addMissing[T any](d *draft, list string, own *[]T, ofTask []T, name func(T) string) {
	used := make(map[string]bool, len(*own))
	for _, element := range *own {
		used[name(element)] = true
	}
	var missing []T
	for _, element := range ofTask {
		if !used[name(element)] {
			missing = append(missing, element)
		}
	}
	jsonpatch.Add(&d.patch, len(*own), missing, "spec", list)
	*own = append(*own, missing...)
}
