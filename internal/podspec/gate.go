package podspec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// gatePod adds to the patch what makes the steps run one after another, and warnings for the user. It adds nothing to a Pod that is not sequential,
// and to one that needs nothing more: the API server may call a webhook twice for one Pod (reinvocationPolicy). Containers that another webhook
// added in between are not steps.
func (m *Mutation) gatePod(agent Agent) error {
	pod, p := m.pod, &m.Patch
	if !IsSequential(pod) {
		return nil
	}
	isMutated := IsMutated(pod)
	if isMutated {
		if err := checkAgentImage(pod, agent.Image); err != nil {
			return err
		}
	} else if err := checkPod(pod, contract.ScriptsVolume); err != nil {
		return err
	}
	steps, err := stepIndexes(pod)
	if err != nil {
		return err
	}
	options, err := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	if err != nil {
		return err
	}
	for i := range pod.Spec.Containers {
		check := checkHelper
		if slices.Contains(steps, i) {
			check = checkStep
		}
		if err := check(&pod.Spec.Containers[i]); err != nil {
			return err
		}
	}
	plan := Plan(StepNames(pod), options)
	early := make([][]earlyMount, len(steps)) // a second call adds nothing
	if !isMutated {
		early = earlyMounts(pod, steps, plan)
		if err := checkStart(pod, early); err != nil {
			return err
		}
		m.Warnings = slices.Concat(m.Warnings, startWarnings(early), probeWarnings(pod, steps))
	}
	for n, i := range steps {
		flags := stepFlags(pod, plan, n, options)
		flags.Mounts = checkedMounts(pod, early[n])
		if err := gateContainer(p, i, pod, flags); err != nil {
			return err
		}
	}
	// The caches of the controllers and the policies select Pods by this label. A mutated Pod may lack it, too.
	if pod.Labels[contract.SequentialLabel] != "true" {
		p.Set("true", "metadata", "labels", contract.SequentialLabel)
	}
	if isMutated {
		resetProgress(p, pod)
		return nil
	}
	p.Set(firstOrder(pod), "metadata", "annotations", contract.OrderAnnotation)
	isImage := isImageDelivery(pod, agent)
	if !isImage {
		jsonpatch.Add(p, len(pod.Spec.InitContainers), []corev1.Container{agentContainer(pod, agent)}, "spec", "initContainers")
	}
	jsonpatch.Add(p, len(pod.Spec.Volumes), addedVolumes(binVolume(agent, isImage), podInfoFiles(plan, options)), "spec", "volumes")
	return nil
}

// firstOrder releases the first step, unless the Pod has helpers: then the order controller releases it when they are ready.
func firstOrder(pod *corev1.Pod) string {
	if len(Helpers(pod)) > 0 {
		return "0"
	}
	return "1"
}

// resetProgress sets a Pod back to its first step. It may be the copy of a Pod that has run, such as a restored backup: all steps that were
// released in the original would start at once.
func resetProgress(p *jsonpatch.Patch, pod *corev1.Pod) {
	if order := pod.Annotations[contract.OrderAnnotation]; order != "0" && order != "1" {
		p.Set(firstOrder(pod), "metadata", "annotations", contract.OrderAnnotation)
	}
	for _, key := range progressAnnotations {
		if key != contract.OrderAnnotation && pod.Annotations[key] != "" {
			p.Set("", "metadata", "annotations", key)
		}
	}
}

// stepIndexes returns the indexes of the steps' containers, in the order of the steps.
func stepIndexes(pod *corev1.Pod) ([]int, error) {
	indexes := make(map[string]int, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		indexes[pod.Spec.Containers[i].Name] = i
	}
	var steps []int
	for _, name := range StepNames(pod) {
		i, ok := indexes[name]
		if !ok {
			return nil, fmt.Errorf("metadata.annotations: %s names %q, and the Pod has no container of that name: fix the name",
				contract.StepsAnnotation, name)
		}
		if slices.Contains(steps, i) {
			isName := func(c corev1.Container) bool { return c.Name == name }
			if slices.IndexFunc(pod.Spec.Containers, isName) < i { // the map has the last one; the annotation may be correct
				return nil, fmt.Errorf("spec.containers: two containers have the name %q: give each a name of its own", name)
			}
			return nil, fmt.Errorf("metadata.annotations: %s names %q twice: name each container once", contract.StepsAnnotation, name)
		}
		steps = append(steps, i)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("metadata.annotations: %s is missing: set it to the names of the containers in their order", contract.StepsAnnotation)
	}
	return steps, nil
}

// gateContainer puts the agent in front of the command of the container at index i. The flags hold what doesn't follow from the container.
func gateContainer(p *jsonpatch.Patch, i int, pod *corev1.Pod, flags contract.AgentFlags) error {
	container := &pod.Spec.Containers[i]
	if slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.BinVolume }) {
		return regateContainer(p, i, container)
	}
	if len(container.Command) == 0 {
		return fmt.Errorf("the container %q has no command: set command", container.Name)
	}
	// The API server silently replaces each byte of JSON that isn't UTF-8 with this character.
	flags.Command = slices.Concat(container.Command, container.Args)
	if slices.ContainsFunc(flags.Command, func(arg string) bool { return strings.ContainsRune(arg, utf8.RuneError) }) {
		return fmt.Errorf("the container %q has U+FFFD in command or args, in place of bytes that aren't UTF-8: write them with a program, such as printf '\\377'",
			container.Name)
	}
	podInfo := contract.PodInfoDir
	for _, mount := range container.VolumeMounts {
		if overlap(mount.MountPath, contract.OwnDir) && mount.Name != contract.ScriptsVolume {
			return fmt.Errorf("the container %q mounts %q at %s, which is reserved for taskflow: choose another mountPath",
				container.Name, mount.Name, mount.MountPath)
		}
		if overlap(mount.MountPath, contract.PodInfoDir) {
			podInfo = contract.PodInfoDirAside
		}
	}
	workDir := workDir(pod, container)
	flags.WorkDir = literal(workDir)
	flags.Wait = podInfo + "/" + contract.OrderFile
	flags.Halt = podInfo + "/" + contract.HaltFile
	if flags.IsFinal {
		flags.Halt = podInfo + "/" + contract.HaltFinallyFile
	}
	if flags.Cancel != "" {
		flags.Cancel = podInfo + "/" + flags.Cancel
	}
	if flags.IsFinal || len(flags.When) > 0 {
		flags.Outcome = podInfo + "/" + contract.OutcomeFile
	}
	flags.TerminationLog = container.TerminationMessagePath
	flags.FallbackToLogs = container.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError
	if container.Lifecycle != nil && container.Lifecycle.StopSignal != nil {
		flags.StopSignal = string(*container.Lifecycle.StopSignal)
	}
	p.Set([]string{contract.AgentPath}, "spec", "containers", strconv.Itoa(i), "command")
	p.Set(flags.Args(), "spec", "containers", strconv.Itoa(i), "args")
	jsonpatch.Add(p, len(container.VolumeMounts), stepMounts(flags, podInfo), "spec", "containers", strconv.Itoa(i), "volumeMounts")
	gateProbes(p, i, container, flags)
	enterWorkDir(p, i, container, workDir)
	return nil
}

// regateContainer checks a container that is already gated. Another webhook may have put a program of its own in front, which does no harm, or
// may have added probes.
func regateContainer(p *jsonpatch.Patch, i int, container *corev1.Container) error {
	argv := slices.Concat(container.Command, container.Args)
	agent := slices.Index(argv, contract.AgentPath)
	if agent < 0 {
		return fmt.Errorf("another webhook removed the agent from the container %q, which would start at once: configure that webhook to keep command and args",
			container.Name)
	}
	// During an upgrade of the operator, a newer replica may have answered the first call, with flags that this one doesn't know.
	if flags, err := contract.ParseAgentFlags(argv[agent+1:]); err == nil {
		gateProbes(p, i, container, flags)
		enterWorkDir(p, i, container, strings.ReplaceAll(flags.WorkDir, "$$", "$"))
	}
	return nil
}

// stepMounts returns the mounts of a step: the agent, the annotations that release it, and the run directory. The step can read the records of
// others there, and write to its own directory.
func stepMounts(flags contract.AgentFlags, podInfo string) []corev1.VolumeMount {
	mounts := []corev1.VolumeMount{
		{Name: contract.BinVolume, MountPath: contract.BinDir, ReadOnly: true}, {Name: contract.PodInfoVolume, MountPath: podInfo, ReadOnly: true},
	}
	// The first step, too: at its end it looks for the start of the second. Conditions and inputs are in the directories of other steps.
	if !flags.ControllerOnly || len(flags.When)+len(flags.Inputs) > 0 {
		mounts = append(mounts, corev1.VolumeMount{Name: contract.RunVolume, MountPath: flags.Run, ReadOnly: true})
	}
	return append(mounts, corev1.VolumeMount{
		Name: contract.RunVolume, MountPath: contract.StepDir(flags.Run, flags.Number()), SubPath: strconv.Itoa(flags.Number()),
	})
}

// overlap reports whether two directories are the same, or one lies in the other.
func overlap(a, b string) bool {
	a, b = path.Clean("/"+a)+"/", path.Clean("/"+b)+"/"
	return a == "//" || strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}
