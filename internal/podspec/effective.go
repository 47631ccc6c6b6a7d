package podspec

import (
	"cmp"
	"maps"
	"path"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

const (
	// workspaceVolume is the volume of a Task's workspace.
	workspaceVolume = "workspace"
	// workspaceDir is where it is mounted.
	workspaceDir = "/workspace"
)

// EffectiveSteps returns the steps of a Task as they run: with the Task's stepTemplate, params and workspace. The caller must not change them.
func EffectiveSteps(task *v1alpha1.Task) []v1alpha1.Step {
	spec := &task.Spec
	if spec.StepTemplate == nil && len(spec.Params) == 0 && spec.Workspace == nil {
		return spec.Steps
	}
	template := v1alpha1.StepTemplate{}
	if spec.StepTemplate != nil {
		template = *spec.StepTemplate.DeepCopy()
	}
	var params []corev1.EnvVar
	for _, param := range spec.Params {
		params = append(params, corev1.EnvVar{Name: param.Name, Value: param.Value})
	}
	template.Env = mergeByKey(params, template.Env, envName)
	steps := make([]v1alpha1.Step, len(spec.Steps))
	for i := range spec.Steps {
		steps[i] = *spec.Steps[i].DeepCopy()
		applyTemplate(&steps[i], &template)
		if spec.Workspace != nil {
			mountWorkspace(&steps[i].Container)
		}
	}
	return steps
}

// withEffectiveSteps returns the Task, or a shallow copy of it, with EffectiveSteps in place of what they come from.
func withEffectiveSteps(task *v1alpha1.Task) *v1alpha1.Task {
	effective := *task
	effective.Spec.Steps = EffectiveSteps(task)
	effective.Spec.StepTemplate, effective.Spec.Params = nil, nil
	return &effective
}

func envName(v corev1.EnvVar) string { return v.Name }

// applyTemplate fills what a step does not set, as a strategic merge patch of the template with the step would.
func applyTemplate(step *v1alpha1.Step, template *v1alpha1.StepTemplate) {
	step.Image = cmp.Or(step.Image, template.Image)
	step.ImagePullPolicy = cmp.Or(step.ImagePullPolicy, template.ImagePullPolicy)
	step.WorkingDir = cmp.Or(step.WorkingDir, template.WorkingDir)
	step.Env = mergeByKey(template.Env, step.Env, envName)
	step.EnvFrom = mergeEnvFrom(template.EnvFrom, step.EnvFrom)
	step.VolumeMounts = mergeByKey(template.VolumeMounts, step.VolumeMounts, func(m corev1.VolumeMount) string { return m.MountPath })
	step.Resources.Requests = mergeResources(template.Resources.Requests, step.Resources.Requests)
	step.Resources.Limits = mergeResources(template.Resources.Limits, step.Resources.Limits)
	if len(step.Resources.Claims) == 0 {
		step.Resources.Claims = template.Resources.Claims
	}
	if template.SecurityContext != nil {
		own := template.SecurityContext.DeepCopy()
		if step.SecurityContext != nil {
			overrideFields(reflect.ValueOf(own).Elem(), reflect.ValueOf(step.SecurityContext).Elem())
		}
		step.SecurityContext = own
	}
	if step.Timeout == nil {
		step.Timeout = template.Timeout
	}
	if step.Retries == nil {
		step.Retries = template.Retries
	}
}

// mergeByKey returns a list with the elements of another one over it: in the place of the element with the same key, or at the end. Elements that
// share a key stay, too: of variables, the last one counts.
func mergeByKey[T any](base, over []T, key func(T) string) []T {
	if len(base) == 0 || len(over) == 0 {
		return slices.Concat(base, over)
	}
	own := make(map[string][]T, len(over))
	for _, element := range over {
		own[key(element)] = append(own[key(element)], element)
	}
	merged := make([]T, 0, len(base)+len(over))
	used := make(map[string]bool, len(base))
	for _, element := range base {
		k := key(element)
		if elements, isOverridden := own[k]; !isOverridden {
			merged = append(merged, element)
		} else if !used[k] {
			used[k] = true
			merged = append(merged, elements...)
		}
	}
	for _, element := range over {
		if !used[key(element)] {
			merged = append(merged, element)
		}
	}
	return merged
}

// mergeEnvFrom appends the sources that the base lacks.
func mergeEnvFrom(base, over []corev1.EnvFromSource) []corev1.EnvFromSource {
	merged := slices.Clone(base)
	for _, source := range over {
		if !slices.ContainsFunc(base, func(b corev1.EnvFromSource) bool { return reflect.DeepEqual(b, source) }) {
			merged = append(merged, source)
		}
	}
	return merged
}

func mergeResources(base, over corev1.ResourceList) corev1.ResourceList {
	if len(base) == 0 {
		return over
	}
	merged := base.DeepCopy()
	maps.Copy(merged, over)
	return merged
}

// overrideFields sets the fields of an object that another one sets, too. Objects in it are merged likewise, but profiles, which hold one of several
// alternatives.
func overrideFields(base, over reflect.Value) {
	for i := range over.NumField() {
		to, from := base.Field(i), over.Field(i)
		isObject := from.Kind() == reflect.Pointer && from.Type().Elem().Kind() == reflect.Struct
		switch name := over.Type().Field(i).Name; {
		case from.IsZero():
		case isObject && !to.IsNil() && name != "SeccompProfile" && name != "AppArmorProfile":
			overrideFields(to.Elem(), from.Elem())
		default:
			to.Set(from)
		}
	}
}

// mountWorkspace mounts the workspace unless the container has a mount of its own there.
func mountWorkspace(container *corev1.Container) {
	if !slices.Contains(mountPaths(container), workspaceDir) {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: workspaceVolume, MountPath: workspaceDir})
	}
}

// defaultWorkDir returns the directory in which a step runs if neither it nor its image sets one, or "".
func defaultWorkDir(task *v1alpha1.Task, container *corev1.Container) string {
	isWorkspace := func(m corev1.VolumeMount) bool {
		return m.Name == workspaceVolume && path.Clean("/"+m.MountPath) == workspaceDir
	}
	if task.Spec.Workspace == nil || container.WorkingDir != "" || !slices.ContainsFunc(container.VolumeMounts, isWorkspace) {
		return ""
	}
	return workspaceDir
}

// WorkspaceClaim returns the PersistentVolumeClaim of a Task's workspace, or nil if its workspace is something else.
func WorkspaceClaim(task *v1alpha1.Task) *corev1.PersistentVolumeClaim {
	workspace := task.Spec.Workspace
	if workspace == nil || workspace.Size == nil {
		return nil
	}
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: task.Name + "-workspace", Namespace: task.Namespace,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(task, v1alpha1.TaskKind)},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *workspace.Size}},
			StorageClassName: workspace.StorageClassName,
		},
	}
}

// workspaceOf returns the volume of the Task's workspace. In the Task's own Pods, a claim is the Task's; in others, it is the Pod's.
func workspaceOf(task *v1alpha1.Task, isOwn bool) corev1.Volume {
	source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	claim, claimName := WorkspaceClaim(task), task.Spec.Workspace.ClaimName
	if claim != nil && isOwn {
		claimName = claim.Name
	}
	switch {
	case claimName != "":
		source = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName}}
	case claim != nil:
		source = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claim.Spec},
		}}
	}
	return corev1.Volume{Name: workspaceVolume, VolumeSource: source}
}
