package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestIsAgentImage proves which images count as the agent's: those of other versions and mirrors do, and those of other programs don't.
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
		"a digest that nobody asks for": {"busybox@sha256:1", tagged, false},
	} {
		if got := isAgentImage(c.found, c.image); got != c.want {
			t.Errorf("%s: isAgentImage(%q, %q) = %v", name, c.found, c.image, got)
		}
	}
}

// TestPlanRefusesAnotherAgent proves that a Pod which looks as if the webhook had mutated it isn't believed to be so, if it has another program in
// place of the agent.
func TestPlanRefusesAnotherAgent(t *testing.T) {
	for delivery, want := range map[string]string{
		contract.DeliveryInit:  `spec.initContainers: "taskflow-agent" has the image "busybox:1.28", which isn't taskflow's agent: set it to "` + testAgent.Image + `", or create the Pod as it was before taskflow changed it`,
		contract.DeliveryImage: `spec.volumes: "taskflow-bin" has the image "busybox:1.28", which isn't taskflow's agent: set it to "` + testAgent.Image + `", or create the Pod as it was before taskflow changed it`,
	} {
		t.Run(delivery, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"))
			pod.Annotations[contract.DeliveryAnnotation] = delivery
			pod = mutatePod(t, pod)
			for i := range pod.Spec.InitContainers {
				pod.Spec.InitContainers[i].Image = "busybox:1.28"
			}
			for i := range pod.Spec.Volumes {
				if image := pod.Spec.Volumes[i].Image; image != nil {
					image.Reference = "busybox:1.28"
				}
			}
			_, err := planRaw(t, encode(t, pod))
			if err == nil {
				t.Fatal("the Pod was taken for a mutated one")
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("the refusal (-want +got):\n%s", diff)
			}
		})
	}
}
