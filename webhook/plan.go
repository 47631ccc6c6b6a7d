package webhook

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// Agent is how the agent gets into a Pod.
type Agent struct {
	// Image that has it.
	Image string
	// PullPolicy of that image. Empty: Kubernetes' own default.
	PullPolicy corev1.PullPolicy
	// Delivery into the Pods that don't say: contract.DeliveryInit, contract.DeliveryImage or DeliveryAuto.
	Delivery string
	// ImageVolumes is what DeliveryAuto depends on: every node can mount an image as a volume.
	ImageVolumes bool
	// Resources of the init container that delivers it.
	Resources corev1.ResourceRequirements
	// Medium of the volume that it copies the agent into: on a node that mounts its disk noexec, nothing could be run from there.
	Medium corev1.StorageMedium
}

// DeliveryAuto is contract.DeliveryImage where every node can do it, and else contract.DeliveryInit.
const DeliveryAuto = "auto"

// byImage says whether the Pod mounts the agent's image. What the Pod says comes first. A node can't tell of its runtime classes: sandboxes
// such as Kata Containers and gVisor don't mount images, although the node's container runtime does.
func byImage(pod *corev1.Pod, agent Agent) bool {
	delivery, chosen := pod.Annotations[contract.DeliveryAnnotation]
	if !chosen {
		delivery = agent.Delivery
	}
	if delivery == DeliveryAuto {
		return agent.ImageVolumes && pod.Spec.RuntimeClassName == nil
	}
	return delivery == contract.DeliveryImage
}

// agentUser is any user but root: the init container writes to an emptyDir, which everybody may.
const agentUser = 65532

// plan returns what is to be added to a Pod so that its steps run one after another. It is empty for a Pod without
// steps, and for one that has all of it: a webhook may be called twice for one Pod (reinvocationPolicy), and containers that
// came in between are not steps. An error is one sentence for the user.
func plan(pod *corev1.Pod, agent Agent) (jsonpatch.Patch, error) {
	if !isSequential(pod) {
		return nil, nil
	}
	planned := isPlanned(pod)
	if planned {
		if err := checkAgentImage(pod, agent.Image); err != nil {
			return nil, err
		}
	} else if err := check(pod); err != nil {
		return nil, err
	}
	steps, err := stepContainers(pod)
	if err != nil {
		return nil, err
	}
	options, err := contract.ParseOptions(pod.Annotations[contract.OptionsAnnotation])
	if err != nil {
		return nil, err
	}

	for i := range pod.Spec.Containers {
		check := checkHelper
		if slices.Contains(steps, i) {
			check = checkStep
		}
		if err := check(&pod.Spec.Containers[i]); err != nil {
			return nil, err
		}
	}

	early := make([][]earlyMount, len(steps)) // a second call has nothing to add
	if !planned {
		early = earlyMounts(pod, steps)
		if err := checkStart(pod, early); err != nil {
			return nil, err
		}
	}

	p := make(jsonpatch.Patch, 0, 3*len(steps)+4) // command, args and volumeMounts of each step, and what the Pod gets
	var before contract.StepOptions
	for number, i := range steps {
		container := &pod.Spec.Containers[i]
		flags := stepFlags(pod, number+1, options[container.Name], before)
		before = options[container.Name]
		flags.Mounts = checked(pod, early[number])
		if err := wrap(&p, i, pod, flags); err != nil {
			return nil, err
		}
	}
	// The controllers' caches and the policies select Pods by this label. A Pod that already has an agent may come without it, too.
	if pod.Labels[contract.SequentialLabel] != "true" {
		p.Set("true", "metadata", "labels", contract.SequentialLabel)
	}
	if planned {
		startAgain(&p, pod)
		return p, nil
	}
	p.Set(firstOrder(pod), "metadata", "annotations", contract.OrderAnnotation)
	bin := copied(agent)
	if byImage(pod, agent) {
		bin = mounted(agent)
	} else {
		if pod.Spec.Resources != nil {
			agent.Resources = corev1.ResourceRequirements{} // those of the Pod are for all; its containers may not have more
		}
		jsonpatch.Add(&p, len(pod.Spec.InitContainers), []corev1.Container{agentContainer(agent)}, "spec", "initContainers")
	}
	jsonpatch.Add(&p, len(pod.Spec.Volumes), volumes(bin), "spec", "volumes")
	return p, nil
}

// stepFlags are the agent's flags for step n that don't depend on its container alone. Before are the options of the step before it.
func stepFlags(pod *corev1.Pod, n int, own, before contract.StepOptions) contract.AgentFlags {
	flags := contract.AgentFlags{
		WaitContent:       n,
		Run:               contract.RunDir,
		ControllerOnly:    pod.Annotations[contract.HandoffAnnotation] == contract.HandoffController,
		RestartsOnFailure: pod.Spec.RestartPolicy != corev1.RestartPolicyNever,
		Timeout:           own.Timeout,
		Retries:           own.Retries,
	}
	switch {
	case n == 1 || flags.ControllerOnly:
	case flags.RestartsOnFailure:
		flags.AfterFailure = contract.AfterFailureWait
	case before.ContinueOnError:
		flags.AfterFailure = contract.AfterFailureContinue
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		flags.Grace = max(time.Second, time.Duration(*grace)*time.Second)
	}
	return flags
}

// firstOrder releases the first step, unless there are helpers: the order controller does it when these are ready.
func firstOrder(pod *corev1.Pod) string {
	if len(helpers(pod)) > 0 {
		return "0"
	}
	return "1"
}

// startAgain puts a Pod back to its beginning that is the copy of one which has run (a backup that is restored, say): else all
// that was released in that one would start at once.
func startAgain(p *jsonpatch.Patch, pod *corev1.Pod) {
	if order := pod.Annotations[contract.OrderAnnotation]; order != "0" && order != "1" {
		p.Set(firstOrder(pod), "metadata", "annotations", contract.OrderAnnotation)
	}
	if pod.Annotations[contract.HaltAnnotation] != "" {
		p.Set("", "metadata", "annotations", contract.HaltAnnotation)
	}
}

// stepContainers are the indexes of the steps' containers, in the order of the steps.
func stepContainers(pod *corev1.Pod) ([]int, error) {
	indexes := make(map[string]int, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		indexes[pod.Spec.Containers[i].Name] = i
	}
	var steps []int
	for _, name := range contract.ParseSteps(pod.Annotations[contract.StepsAnnotation]) {
		i, ok := indexes[name]
		if !ok {
			return nil, fmt.Errorf("metadata.annotations: %s names %q, and the Pod has no container of that name: correct the name",
				contract.StepsAnnotation, name)
		}
		if slices.Contains(steps, i) {
			isName := func(c corev1.Container) bool { return c.Name == name }
			if slices.IndexFunc(pod.Spec.Containers, isName) < i { // the index is that of the last one: the annotation may not be the user's
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

// wrap puts the agent before the command of the container at index i. The flags have what the container itself doesn't say.
func wrap(p *jsonpatch.Patch, i int, pod *corev1.Pod, flags contract.AgentFlags) error {
	container := &pod.Spec.Containers[i]
	if mountsAgent(container) {
		return wrapAgain(p, i, container)
	}
	if len(container.Command) == 0 {
		return fmt.Errorf("the container %q has no command: set command", container.Name)
	}
	// The API server puts this character in the place of each byte of JSON that isn't UTF-8, and says nothing.
	flags.Command = slices.Concat(container.Command, container.Args)
	if slices.ContainsFunc(flags.Command, func(arg string) bool { return strings.ContainsRune(arg, utf8.RuneError) }) {
		return fmt.Errorf("the container %q has U+FFFD in command or args, which stands for bytes that aren't UTF-8 and are lost: let a program write them, such as printf '\\377'",
			container.Name)
	}
	podInfo := contract.PodInfoDir
	for _, mount := range container.VolumeMounts {
		if overlap(mount.MountPath, contract.OwnDir) && mount.Name != contract.ScriptsVolume {
			return fmt.Errorf("the container %q mounts %q at %s, which is for taskflow's own: choose another mountPath",
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

// wrapAgain looks at a container that was wrapped before: another webhook may have put a program of its own in front, which does no harm, or
// have added probes.
func wrapAgain(p *jsonpatch.Patch, i int, container *corev1.Container) error {
	argv := slices.Concat(container.Command, container.Args)
	agent := slices.Index(argv, contract.AgentPath)
	if agent < 0 {
		return fmt.Errorf("the container %q has lost its agent to another webhook and would start at once: let that webhook keep command and args",
			container.Name)
	}
	// During an upgrade of the operator the first call may have come to a newer one, with flags that aren't known here.
	if flags, err := contract.ParseAgentFlags(argv[agent+1:]); err == nil {
		gateProbes(p, i, container, flags)
		enterWorkDir(p, i, container, strings.ReplaceAll(flags.WorkDir, "$$", "$"))
	}
	return nil
}

// stepMounts give a step the agent, what releases it, and the run directory: what others leave there to read, and its own directory to write to.
func stepMounts(flags contract.AgentFlags, podInfo string) []corev1.VolumeMount {
	mounts := make([]corev1.VolumeMount, 0, 4)
	mounts = append(mounts,
		corev1.VolumeMount{Name: contract.BinVolume, MountPath: contract.BinDir, ReadOnly: true},
		corev1.VolumeMount{Name: contract.PodInfoVolume, MountPath: podInfo, ReadOnly: true},
	)
	if !flags.ControllerOnly { // the first step, too: it gives way to the second one if that is there
		mounts = append(mounts, corev1.VolumeMount{Name: contract.RunVolume, MountPath: flags.Run, ReadOnly: true})
	}
	return append(mounts, corev1.VolumeMount{
		Name: contract.RunVolume, MountPath: contract.StepDir(flags.Run, flags.WaitContent), SubPath: strconv.Itoa(flags.WaitContent),
	})
}

func mountsAgent(container *corev1.Container) bool {
	return slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.BinVolume })
}

// overlap says whether one directory is the other, or lies in it.
func overlap(a, b string) bool {
	a, b = path.Clean("/"+a)+"/", path.Clean("/"+b)+"/"
	return a == "//" || strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

func isAgentContainer(c corev1.Container) bool {
	return c.Name == contract.AgentContainer && slices.Equal(c.Args, installArgs())
}

func isAgentVolume(v corev1.Volume) bool { return v.Name == contract.BinVolume && v.Image != nil }

func installArgs() []string { return []string{contract.InstallCommand, contract.AgentPath} }

// agentContainer copies the agent into BinVolume. It satisfies the PodSecurity level restricted.
func agentContainer(agent Agent) corev1.Container {
	return corev1.Container{
		Name:            contract.AgentContainer,
		Image:           agent.Image,
		ImagePullPolicy: agent.PullPolicy,
		Args:            installArgs(),
		Resources:       agent.Resources,
		VolumeMounts:    []corev1.VolumeMount{{Name: contract.BinVolume, MountPath: contract.BinDir}},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			ReadOnlyRootFilesystem:   new(true),
			RunAsNonRoot:             new(true),
			RunAsUser:                new(int64(agentUser)),
			RunAsGroup:               new(int64(agentUser)),
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

// copied is where the init container copies the agent to.
func copied(agent Agent) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: agent.Medium}}
}

// mounted is the agent's image itself. It is pulled as the Pod's containers' are, with the Pod's pull secrets.
func mounted(agent Agent) corev1.VolumeSource {
	return corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: agent.Image, PullPolicy: agent.PullPolicy}}
}

// volumes are those that the webhook adds. Bin is what holds the agent.
func volumes(bin corev1.VolumeSource) []corev1.Volume {
	annotation := func(key, file string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{
			Path:     file,
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.annotations['%s']", key)},
		}
	}
	return []corev1.Volume{
		{Name: contract.BinVolume, VolumeSource: bin},
		{
			Name:         contract.RunVolume,
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		},
		{
			Name: contract.PodInfoVolume,
			VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				annotation(contract.OrderAnnotation, contract.OrderFile),
				annotation(contract.HaltAnnotation, contract.HaltFile),
			}}},
		},
	}
}
