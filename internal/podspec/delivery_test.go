package podspec

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestIsAgentImage proves that images of other versions and mirrors count as the agent's, and images of other programs don't.
func TestIsAgentImage(t *testing.T) {
	const tagged, pinned = "ghcr.io/me/agent:v2", "ghcr.io/me/agent@sha256:2"
	for name, c := range map[string]struct {
		found, image string
		want         bool
	}{
		"the same":                      {tagged, tagged, true},
		"the same, by digest":           {pinned, pinned, true},
		"another version":               {"ghcr.io/me/agent:v1", tagged, true},
		"another digest":                {"ghcr.io/me/agent@sha256:1", pinned, true},
		"a mirror":                      {"mirror.example.com:5000/ghcr.io/me/agent@sha256:2", tagged, true},
		"a mirror with a flat name":     {"mirror.example.com/me-agent:v2", tagged, true},
		"a mirror with another name":    {"mirror.example.com/x@sha256:2", pinned, true},
		"a tag and a digest":            {"ghcr.io/me/agent:v2@sha256:2", pinned, true},
		"another program":               {"busybox:1.28", tagged, false},
		"another program, by digest":    {"busybox@sha256:1", pinned, false},
		"another program of that owner": {"ghcr.io/me/operator:v2", tagged, false},
		"the name as a tag":             {"busybox:agent", tagged, false},
		"no image":                      {"", tagged, false},
		"a digest beside a tag":         {"busybox@sha256:1", tagged, false},
	} {
		if got := isAgentImage(c.found, c.image); got != c.want {
			t.Errorf("%s: isAgentImage(%q, %q) = %v", name, c.found, c.image, got)
		}
	}
}

// TestGateRejectsAnotherAgent proves that a Pod that looks mutated is rejected if it has another program in place of the agent.
func TestGateRejectsAnotherAgent(t *testing.T) {
	for delivery, want := range map[string]string{
		contract.DeliveryInit:  `spec.initContainers: "taskflow-agent" has the image "busybox:1.28", which is not taskflow's agent: set it to "` + testAgent.Image + `", or create the original Pod, without taskflow's changes`,
		contract.DeliveryImage: `spec.volumes: "taskflow-bin" has the image "busybox:1.28", which is not taskflow's agent: set it to "` + testAgent.Image + `", or create the original Pod, without taskflow's changes`,
	} {
		t.Run(delivery, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"))
			pod.Annotations[contract.DeliveryAnnotation] = delivery
			pod = gateTyped(t, pod)
			for i := range pod.Spec.InitContainers {
				pod.Spec.InitContainers[i].Image = "busybox:1.28"
			}
			for i := range pod.Spec.Volumes {
				if image := pod.Spec.Volumes[i].Image; image != nil {
					image.Reference = "busybox:1.28"
				}
			}
			_, err := gateRaw(t, encode(t, pod))
			if err == nil {
				t.Fatal("the Pod was accepted")
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("the rejection (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodLevelResources proves that the agent's container has no resources if the Pod has some: the API server rejects a container that may use more
// than its Pod.
func TestPodLevelResources(t *testing.T) {
	pod := userPod(step("a"))
	pod.Spec.Resources = &corev1.ResourceRequirements{}
	raw, _ := admit(t, encode(t, pod))
	if diff := cmp.Diff(corev1.ResourceRequirements{}, decodePod(t, raw).Spec.InitContainers[0].Resources); diff != "" {
		t.Errorf("the agent's resources (-want +got):\n%s", diff)
	}
}

// TestAgentMedium proves that the agent can be kept in memory, for nodes that mount their disk noexec, and that the
// containers can't write to it.
func TestAgentMedium(t *testing.T) {
	for _, medium := range []corev1.StorageMedium{corev1.StorageMediumDefault, corev1.StorageMediumMemory} {
		pod := taskPod(step("a"))
		patch, err := gateWith(pod, Agent{Image: "agent", Medium: medium})
		if err != nil {
			t.Fatal(err)
		}
		planned := decodePod(t, apply(t, encode(t, pod), patch))
		want := corev1.Volume{Name: "taskflow-bin", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}}
		if diff := cmp.Diff(want, planned.Spec.Volumes[0]); diff != "" {
			t.Errorf("the agent's volume (-want +got):\n%s", diff)
		}
		if mount := planned.Spec.Containers[0].VolumeMounts[0]; mount.Name != "taskflow-bin" || !mount.ReadOnly {
			t.Errorf("the step's mount of it is %+v, want a read-only one", mount)
		}
	}
}

// TestDelivery proves that the Pod's annotation takes precedence over the operator's configuration, and that auto mounts the agent's image only if
// every node can, and never with a runtime class.
func TestDelivery(t *testing.T) {
	kata := func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = new("kata") }
	asks := func(delivery string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations[contract.DeliveryAnnotation] = delivery }
	}
	cases := map[string]struct {
		agent Agent
		edit  func(*corev1.Pod)
		want  string
	}{
		"init":                              {Agent{Delivery: "init", ImageVolumes: true}, nil, "init"},
		"init, and the Pod asks for image":  {Agent{Delivery: "init"}, asks("image"), "image"},
		"image":                             {Agent{Delivery: "image"}, nil, "image"},
		"image under a runtime class":       {Agent{Delivery: "image"}, kata, "image"},
		"image, and the Pod asks for init":  {Agent{Delivery: "image"}, asks("init"), "init"},
		"auto, and all nodes can":           {Agent{Delivery: "auto", ImageVolumes: true}, nil, "image"},
		"auto, and a node can't":            {Agent{Delivery: "auto"}, nil, "init"},
		"auto under a runtime class":        {Agent{Delivery: "auto", ImageVolumes: true}, kata, "init"},
		"auto, and the Pod asks for image":  {Agent{Delivery: "auto"}, asks("image"), "image"},
		"auto, and the Pod asks for init":   {Agent{Delivery: "auto", ImageVolumes: true}, asks("init"), "init"},
		"a program that doesn't say at all": {Agent{ImageVolumes: true}, nil, "init"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"))
			if c.edit != nil {
				c.edit(pod)
			}
			c.agent.Image, c.agent.PullPolicy = "agent", corev1.PullAlways
			patch, err := gateWith(pod, c.agent)
			if err != nil {
				t.Fatal(err)
			}
			planned := decodePod(t, apply(t, encode(t, pod), patch))
			type delivered struct {
				Containers int
				Volume     corev1.VolumeSource
			}
			want := map[string]delivered{
				"init":  {1, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				"image": {0, corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "agent", PullPolicy: corev1.PullAlways}}},
			}[c.want]
			if diff := cmp.Diff(want, delivered{len(planned.Spec.InitContainers), planned.Spec.Volumes[0].VolumeSource}); diff != "" {
				t.Errorf("how the agent is delivered (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGateAgentOnRestrictedNamespaces proves that what is added passes the PodSecurity level restricted, field by field as
// https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted lists them: the Pod's own settings may be missing,
// so the container has each.
func TestGateAgentOnRestrictedNamespaces(t *testing.T) {
	pod := gateTyped(t, taskPod(step("a")))
	agent := pod.Spec.InitContainers[0]
	security := agent.SecurityContext
	if security == nil || security.Capabilities == nil || security.SeccompProfile == nil {
		t.Fatalf("the security context of the agent's container isn't complete: %+v", security)
	}
	for field, holds := range map[string]bool{
		"allowPrivilegeEscalation is false":        ptr.Equal(security.AllowPrivilegeEscalation, new(false)),
		"privileged is not set":                    security.Privileged == nil,
		"capabilities.drop is ALL":                 slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"capabilities.add is empty":                len(security.Capabilities.Add) == 0,
		"runAsNonRoot is true":                     ptr.Equal(security.RunAsNonRoot, new(true)),
		"runAsUser is not root":                    ptr.Deref(security.RunAsUser, 0) > 0,
		"runAsGroup is not root":                   ptr.Deref(security.RunAsGroup, 0) > 0,
		"seccompProfile.type is RuntimeDefault":    security.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"seccompProfile.localhostProfile is unset": security.SeccompProfile.LocalhostProfile == nil,
		"readOnlyRootFilesystem is true":           ptr.Equal(security.ReadOnlyRootFilesystem, new(true)),
		"procMount is not set":                     security.ProcMount == nil,
		"seLinuxOptions is not set":                security.SELinuxOptions == nil,
		"appArmorProfile is not set":               security.AppArmorProfile == nil,
		"windowsOptions is not set":                security.WindowsOptions == nil,
		"there are no host ports":                  len(agent.Ports) == 0,
		"there are no handlers with a host":        agent.Lifecycle == nil && agent.LivenessProbe == nil && agent.ReadinessProbe == nil && agent.StartupProbe == nil,
	} {
		if !holds {
			t.Errorf("it isn't so that %s: %+v", field, security)
		}
	}
	for _, volume := range pod.Spec.Volumes {
		allowed := corev1.VolumeSource{EmptyDir: volume.EmptyDir, DownwardAPI: volume.DownwardAPI}
		if diff := cmp.Diff(allowed, volume.VolumeSource); diff != "" {
			t.Errorf("the volume %q is of a type that isn't allowed (-allowed +got):\n%s", volume.Name, diff)
		}
	}
}
