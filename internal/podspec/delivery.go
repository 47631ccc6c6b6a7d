package podspec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// Agent configures how the agent gets into Pods.
type Agent struct {
	// Image contains the agent.
	Image string
	// PullPolicy of the image. Default: Kubernetes' own.
	PullPolicy corev1.PullPolicy
	// Delivery is contract.DeliveryInit, contract.DeliveryImage or DeliveryAuto. The annotation of a Pod takes precedence. Default: DeliveryInit.
	Delivery string
	// ImageVolumes means that every node can mount an image as a volume. DeliveryAuto depends on it.
	ImageVolumes bool
	// Resources of the init container that copies the agent.
	Resources corev1.ResourceRequirements
	// Medium of the volume that holds the copy. Memory is for nodes that mount their disk noexec.
	Medium corev1.StorageMedium
}

// DeliveryAuto is contract.DeliveryImage if every node can mount images, and contract.DeliveryInit otherwise.
const DeliveryAuto = "auto"

// isImageDelivery reports whether the Pod mounts the agent's image. A runtime class rules that out for DeliveryAuto: sandboxes such as Kata
// Containers and gVisor don't mount images, although the node's container runtime does.
func isImageDelivery(pod *corev1.Pod, agent Agent) bool {
	delivery, chosen := pod.Annotations[contract.DeliveryAnnotation]
	if !chosen {
		delivery = agent.Delivery
	}
	if delivery == DeliveryAuto {
		return agent.ImageVolumes && pod.Spec.RuntimeClassName == nil
	}
	return delivery == contract.DeliveryImage
}

// agentUser can be any user but root: the init container writes to an emptyDir, which is open to all.
const agentUser = 65532

func isAgentContainer(c corev1.Container) bool {
	return c.Name == contract.AgentContainer && slices.Equal(c.Args, installArgs())
}

// AgentVolume returns the volume of the Pod that mounts the agent's image, or nil.
func AgentVolume(pod *corev1.Pod) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == contract.BinVolume && v.Image != nil {
			return v
		}
	}
	return nil
}

func installArgs() []string { return []string{contract.InstallCommand, contract.AgentPath} }

// agentContainer returns the init container that copies the agent into BinVolume. It satisfies the PodSecurity level restricted. It has no resources
// if the Pod has some: those are for all containers, and none may have more.
func agentContainer(pod *corev1.Pod, agent Agent) corev1.Container {
	resources := agent.Resources
	if pod.Spec.Resources != nil {
		resources = corev1.ResourceRequirements{}
	}
	return corev1.Container{
		Name:            contract.AgentContainer,
		Image:           agent.Image,
		ImagePullPolicy: agent.PullPolicy,
		Args:            installArgs(),
		Resources:       resources,
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

// binVolume returns what holds the agent: its image, which the kubelet pulls with the Pod's pull secrets, or a directory for the copy.
func binVolume(agent Agent, isImage bool) corev1.VolumeSource {
	if isImage {
		return corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: agent.Image, PullPolicy: agent.PullPolicy}}
	}
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: agent.Medium}}
}

// podInfoFiles returns the annotations that PodInfoVolume projects, by their files.
func podInfoFiles(plan sequence.Plan, options contract.Options) []corev1.DownwardAPIVolumeFile {
	hasFinal := plan.Work() < len(plan.Steps)
	hasCondition := slices.ContainsFunc(plan.Steps, func(step sequence.Step) bool { return len(options[step.Name].When) > 0 })
	var files []corev1.DownwardAPIVolumeFile
	for _, f := range []struct {
		key, file string
		isNeeded  bool
	}{
		{contract.OrderAnnotation, contract.OrderFile, true},
		{contract.HaltAnnotation, contract.HaltFile, true},
		{contract.CancelAnnotation, contract.CancelFile, !plan.IsChain()},
		{contract.HaltFinallyAnnotation, contract.HaltFinallyFile, hasFinal},
		{contract.OutcomeAnnotation, contract.OutcomeFile, hasFinal || hasCondition},
	} {
		if f.isNeeded {
			files = append(files, corev1.DownwardAPIVolumeFile{
				Path:     f.file,
				FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.annotations['%s']", f.key)},
			})
		}
	}
	return files
}

// addedVolumes returns the volumes that the webhook adds. Bin holds the agent.
func addedVolumes(bin corev1.VolumeSource, podInfo []corev1.DownwardAPIVolumeFile) []corev1.Volume {
	return []corev1.Volume{
		{Name: contract.BinVolume, VolumeSource: bin},
		{
			Name:         contract.RunVolume,
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		},
		{
			Name:         contract.PodInfoVolume,
			VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: podInfo}},
		},
	}
}

// checkAgentImage rejects a Pod that looks mutated but has another program in place of the agent. It can't demand the operator's own image:
// another webhook may have replaced it with the image of a mirror before this call; during an upgrade, a replica of another version may
// have answered the first call; and a Pod restored from a backup has the image of its time. isAgentImage compares what these have in
// common. This guards against mistakes, not against the Pod's creator, who may run any image: an agent can do no more than the other
// containers of its Pod.
func checkAgentImage(pod *corev1.Pod, image string) error {
	refusal := func(field, found string) error {
		return fmt.Errorf("%s has the image %q, which is not taskflow's agent: set it to %q, or create the original Pod, without taskflow's changes", field, found, image)
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == contract.AgentContainer && !isAgentImage(c.Image, image) {
			return refusal(fmt.Sprintf("spec.initContainers: %q", c.Name), c.Image)
		}
	}
	if v := AgentVolume(pod); v != nil && !isAgentImage(v.Image.Reference, image) {
		return refusal(fmt.Sprintf("spec.volumes: %q", v.Name), v.Image.Reference)
	}
	return nil
}

// isAgentImage reports whether an image can be the agent's, in any version and from any registry: it has the same digest, or the same name after
// the last slash. A mirror may prefix that name.
func isAgentImage(found, image string) bool {
	name := func(image string) (name, digest string) {
		name, digest, _ = strings.Cut(path.Base(image), "@")
		name, _, _ = strings.Cut(name, ":")
		return name, digest
	}
	foundName, foundDigest := name(found)
	wantName, wantDigest := name(image)
	return strings.HasSuffix(foundName, wantName) || wantDigest != "" && foundDigest == wantDigest
}
