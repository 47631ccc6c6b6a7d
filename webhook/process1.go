package webhook

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// inits are programs that end at once unless they are process 1 of their container: /init is the one of s6-overlay. A path counts as it
// stands, because a program of such a name elsewhere may be anything.
var inits = []string{
	"/init",
	"/sbin/init", "/usr/sbin/init",
	"/lib/systemd/systemd", "/usr/lib/systemd/systemd",
}

// checkProcess1 refuses a step whose program has to be process 1, which is the agent.
func checkProcess1(container *corev1.Container) error {
	if len(container.Command) == 0 || !slices.Contains(inits, container.Command[0]) {
		return nil
	}
	return fmt.Errorf("the step %q runs %s, which has to be process 1, and that is taskflow's agent: set command to the program that it would start",
		container.Name, container.Command[0])
}
