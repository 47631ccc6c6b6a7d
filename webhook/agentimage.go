package webhook

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// checkAgentImage refuses a Pod that looks as if the webhook had mutated it, and that has another program in place of the agent. It can't demand
// the operator's own image: another webhook may have replaced it by that of a mirror, by the time of this call; during an upgrade the first call may
// have come to a replica of another version; and a Pod that is restored from a backup has the image of its time. So it compares what these have in
// common (isAgentImage). That is a guard against mistakes, not against the Pod's creator, who may run any image: the agent of a Pod can do no more
// than its other containers.
func checkAgentImage(pod *corev1.Pod, image string) error {
	refusal := func(field, found string) error {
		return fmt.Errorf("%s has the image %q, which isn't taskflow's agent: set it to %q, or create the Pod as it was before taskflow changed it", field, found, image)
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == contract.AgentContainer && !isAgentImage(c.Image, image) {
			return refusal(fmt.Sprintf("spec.initContainers: %q", c.Name), c.Image)
		}
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; isAgentVolume(*v) && !isAgentImage(v.Image.Reference, image) {
			return refusal(fmt.Sprintf("spec.volumes: %q", v.Name), v.Image.Reference)
		}
	}
	return nil
}

// isAgentImage reports whether an image can be the agent's, of whichever version and registry: it has the same digest, or the same name after the
// last slash. A mirror may put more before that name.
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
