package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// Mutation gates one new Pod. The caller goes through NewMutation, Complete and Gate. Each of them can reject the Pod: the error is one sentence
// for the user. A Pod that is not sequential passes all three unchanged.
type Mutation struct {
	// Patch holds all changes to the Pod.
	Patch jsonpatch.Patch
	// Warnings are sentences for the user of a Pod that is accepted.
	Warnings []string

	raw []byte
	pod *corev1.Pod
	// isIncomplete means that Complete has to settle the Pod's steps. The Task controller creates complete Pods.
	isIncomplete bool
	// entries are what the user's list of steps sets, by the names of the steps.
	entries map[string]stepEntry
	// unresolved are the indexes of the steps without a command.
	unresolved []int
}

// NewMutation checks a Pod as the API server has received it: raw is its JSON and pod the same Pod decoded. The Mutation writes into pod.
// IsOperator means that the operator creates the Pod; nobody else may create one that belongs to a Task.
func NewMutation(raw []byte, pod *corev1.Pod, isOperator bool) (*Mutation, error) {
	m := &Mutation{raw: raw, pod: pod}
	if err := checkLabel(pod); err != nil || !IsSequential(pod) {
		return m, err
	}
	if !isOperator {
		if err := checkOwner(pod); err != nil {
			return nil, err
		}
	}
	_, namesTask := pod.Labels[contract.TaskLabel]
	isOfTask := isOperator && namesTask && OwnerTask(pod) != ""
	m.isIncomplete = !isOfTask && !IsMutated(pod)
	if m.isIncomplete {
		if err := m.readStepList(); err != nil {
			return nil, err
		}
	}
	if err := checkSize(pod); err != nil {
		return nil, err
	}
	if m.isIncomplete {
		return m, checkUserPod(pod)
	}
	return m, nil
}

// TaskName returns the name of the Task that Complete needs, if it needs one.
func (m *Mutation) TaskName() (name string, isNeeded bool) {
	name, isNeeded = m.pod.Labels[contract.TaskLabel]
	return name, isNeeded && m.isIncomplete
}

// Complete merges the Task that the Pod names, and settles which containers are the steps. The Task is nil if the Pod names none. Complete returns
// the steps without a command: Gate needs the commands of their images.
func (m *Mutation) Complete(task *v1alpha1.Task) (unresolved []*corev1.Container, err error) {
	if !m.isIncomplete {
		return nil, nil
	}
	list := stepList{path: stepsPath, task: task, isChosen: task != nil && len(StepNames(m.pod)) > 0, restartPath: "spec.restartPolicy"}
	if task != nil {
		if err := checkTaskSize(task); err != nil {
			return nil, err
		}
		task = withEffectiveSteps(task)
		if err := m.mergeTask(task); err != nil {
			return nil, err
		}
		if err := checkSize(m.pod); err != nil {
			return nil, err
		}
	}
	m.settleSteps()
	steps, err := stepIndexes(m.pod)
	if err != nil {
		return nil, err
	}
	if err := m.settleOptions(&list, task, steps); err != nil {
		return nil, err
	}
	for _, i := range steps {
		if container := &m.pod.Spec.Containers[i]; len(container.Command) == 0 {
			m.unresolved = append(m.unresolved, i)
			unresolved = append(unresolved, container)
		}
	}
	return unresolved, nil
}

// Gate puts the agent in front of the command of each step. The commands, by the names of their steps, are for the steps that Complete returned.
func (m *Mutation) Gate(agent Agent, commands map[string]Command) error {
	for _, i := range m.unresolved { // gateContainer adds the commands to the patch
		container := &m.pod.Spec.Containers[i]
		command := commands[container.Name]
		container.Command, container.Args = command.Command, command.Args
		if command.Image != "" {
			container.Image = command.Image
			m.Patch.Set(command.Image, "spec", "containers", strconv.Itoa(i), "image")
		}
	}
	return m.gatePod(agent)
}

// settleSteps settles which containers are the steps, and which restartPolicy the Pod has.
func (m *Mutation) settleSteps() {
	names := StepNames(m.pod)
	if len(names) == 0 {
		for i := range m.pod.Spec.Containers {
			names = append(names, m.pod.Spec.Containers[i].Name)
		}
	}
	m.annotate(map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)})

	if policy := m.pod.Spec.RestartPolicy; policy != corev1.RestartPolicyNever && policy != corev1.RestartPolicyOnFailure {
		m.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
		m.Patch.Set(corev1.RestartPolicyNever, "spec", "restartPolicy")
		m.warn("spec.restartPolicy was changed from Always to Never, because steps must be able to finish: set it to Never or OnFailure")
	}
	if helpers := Helpers(m.pod); len(helpers) > 0 {
		m.warn("containers that are not steps: %s; the Pod finishes only after they exit, unless they are init containers with restartPolicy: Always",
			strings.Join(helpers, ", "))
	}
}

// readStepList reads the user's list of steps if it is in YAML, and writes the names of the steps in its place.
func (m *Mutation) readStepList() error {
	value := m.pod.Annotations[contract.StepsAnnotation]
	if !isStepList(value) {
		return checkStepText(value)
	}
	entries, err := parseStepList(value)
	if err != nil {
		return err
	}
	m.entries = make(map[string]stepEntry, len(entries))
	names := make([]string, len(entries))
	for i, entry := range entries {
		m.entries[entry.name], names[i] = entry, entry.name
	}
	m.annotate(map[string]string{contract.StepsAnnotation: contract.FormatSteps(names)})
	return nil
}

// settleOptions fills the list, and settles the options of its steps: those of the Task, and over them the user's. The indexes are those of the
// steps' containers.
func (m *Mutation) settleOptions(list *stepList, task *v1alpha1.Task, steps []int) error {
	ofTask := map[string]int{}
	if task != nil {
		for i := range task.Spec.Steps {
			ofTask[task.Spec.Steps[i].Name] = i
		}
	}
	list.restartPolicy = m.pod.Spec.RestartPolicy
	workDirs := map[string]string{}
	for _, i := range steps {
		container := &m.pod.Spec.Containers[i]
		step := listedStep{name: container.Name, env: container.Env}
		entry := m.entries[step.name]
		if n, has := ofTask[step.name]; has {
			step.options, step.own = task.Spec.Steps[n].StepOptions, entry.fields
			step.ofTask = fmt.Sprintf("the Task %q: spec.steps[%d]", task.Name, n)
			workDirs[step.name] = defaultWorkDir(task, container)
		}
		step.options = entry.override(step.options)
		list.steps = append(list.steps, step)
	}
	if err := list.check(); err != nil {
		return err
	}
	for _, warning := range list.warnings() {
		m.warn("%s", warning)
	}
	options := list.options()
	for name, dir := range workDirs {
		if dir != "" {
			o := options[name]
			o.DefaultWorkDir = dir
			options[name] = o
		}
	}
	if value := options.Marshal(); value != "" {
		m.annotate(map[string]string{contract.OptionsAnnotation: value})
	}
	return nil
}

func (m *Mutation) annotate(values map[string]string) {
	if len(m.pod.Annotations) == 0 {
		m.pod.Annotations = maps.Clone(values)
		m.Patch.Set(values, "metadata", "annotations")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if m.pod.Annotations[key] != values[key] {
			m.pod.Annotations[key] = values[key]
			m.Patch.Set(values[key], "metadata", "annotations", key)
		}
	}
}

func (m *Mutation) warn(format string, args ...any) {
	m.Warnings = append(m.Warnings, fmt.Sprintf(format, args...))
}
