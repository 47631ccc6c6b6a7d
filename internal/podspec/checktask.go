package podspec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// ValidateTask rejects a Task whose steps, stepTemplate, params or workspace can't work. The error is one sentence for the user, with the path and the
// remedy. It does not repeat what the API server checks of every Task.
func ValidateTask(task *v1alpha1.Task) error {
	for _, check := range []func(*v1alpha1.Task) error{checkShared, checkEnds, checkParams, checkWorkspace} {
		if err := check(task); err != nil {
			return err
		}
	}
	steps := EffectiveSteps(task)
	list := listOf(task, steps)
	for i := range steps {
		if steps[i].Image == "" {
			return list.errorf(i, ".image", "the step %q has no image: set it here or in spec.stepTemplate", steps[i].Name)
		}
	}
	return list.check()
}

// TaskWarnings returns sentences for the user of a Task that is valid.
func TaskWarnings(task *v1alpha1.Task) []string { return listOf(task, EffectiveSteps(task)).warnings() }

// listOf returns the list of a Task with these effective steps.
func listOf(task *v1alpha1.Task, steps []v1alpha1.Step) *stepList {
	list := &stepList{path: "spec.steps", task: task, restartPolicy: corev1.RestartPolicyNever, restartPath: "spec.template.spec.restartPolicy"}
	if task.Spec.Template != nil {
		list.restartPolicy = cmp.Or(task.Spec.Template.Spec.RestartPolicy, list.restartPolicy)
	}
	for i := range steps {
		list.steps = append(list.steps, listedStep{name: steps[i].Name, options: steps[i].StepOptions, env: steps[i].Env})
	}
	return list
}

// checkEnds rejects fields about the end of a Task that have no effect.
func checkEnds(task *v1alpha1.Task) error {
	switch spec := &task.Spec; {
	case spec.FinallyTimeout != nil && spec.Timeout == nil:
		return errors.New("spec.finallyTimeout has no effect without timeout: set spec.timeout, or remove finallyTimeout")
	case spec.FinallyTimeout != nil && !slices.ContainsFunc(spec.Steps, func(step v1alpha1.Step) bool { return step.Finally }):
		return errors.New("spec.finallyTimeout has no effect without a final step: set finally: true of a step, or remove finallyTimeout")
	case spec.CancelFinally && !spec.Cancel:
		return errors.New("spec.cancelFinally has no effect without cancel: set spec.cancel to true, too, or remove cancelFinally")
	}
	return nil
}

func checkParams(task *v1alpha1.Task) error {
	seen := map[string]bool{}
	for i, param := range task.Spec.Params {
		path := fmt.Sprintf("spec.params[%d].name", i)
		switch {
		case !variableName.MatchString(param.Name):
			return fmt.Errorf("%s: %s can't be the name of a variable: use letters, digits and _, and don't begin with a digit", path, quoteShort(param.Name))
		case strings.HasPrefix(param.Name, ownVariables):
			return fmt.Errorf("%s: variables that start with %s are reserved for taskflow: choose another name", path, ownVariables)
		case seen[param.Name]:
			return fmt.Errorf("%s: the param %s is there twice: remove one", path, param.Name)
		}
		seen[param.Name] = true
	}
	return nil
}

func checkWorkspace(task *v1alpha1.Task) error {
	workspace := task.Spec.Workspace
	if workspace == nil {
		return nil
	}
	isTaken := func(v corev1.Volume) bool { return v.Name == workspaceVolume }
	switch {
	case workspace.Size != nil && workspace.ClaimName != "":
		return errors.New("spec.workspace: size makes a claim, and claimName names another one: set only one of them")
	case workspace.Size != nil && workspace.Size.Sign() <= 0:
		return fmt.Errorf("spec.workspace.size: %s must be above 0, such as 1Gi", workspace.Size)
	case workspace.StorageClassName != nil && workspace.Size == nil:
		return errors.New("spec.workspace.storageClassName has no effect without size: set size, or remove storageClassName")
	case task.Spec.Template != nil && slices.ContainsFunc(task.Spec.Template.Spec.Volumes, isTaken):
		return fmt.Errorf("spec.template.spec.volumes: the name %q is the volume of spec.workspace: rename the volume, or remove workspace", workspaceVolume)
	}
	return nil
}
