package webhook

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// gateProbes makes the probes of a step count from its release. The kubelet runs no other probe of a container before its startupProbe has
// succeeded: so gateProbes adds a startupProbe that fails while the step waits, or puts that check before the user's command. The check goes on
// failing for the delay of the probes (probeDelay). It may fail for as long as the step waits, which nobody knows: no other failureThreshold
// would be right. A startupProbe that asks the network stays as it is, because nothing of the step listens before its command has started.
// gateProbes adds nothing at a second call.
func gateProbes(p *jsonpatch.Patch, i int, container *corev1.Container, flags contract.AgentFlags) {
	const never = math.MaxInt32
	probe := container.StartupProbe
	flags.ProbeDelay = probeDelay(container)
	switch {
	case probe == nil && container.LivenessProbe == nil && container.ReadinessProbe == nil:
	case probe == nil:
		p.Set(corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
				Command: append([]string{contract.AgentPath}, flags.StartedArgs(nil)...),
			}},
			PeriodSeconds:    1,
			TimeoutSeconds:   5,
			FailureThreshold: never,
		}, "spec", "containers", strconv.Itoa(i), "startupProbe")
	default:
		if probe.Exec != nil && !slices.Contains(probe.Exec.Command, contract.AgentPath) {
			p.Set(append([]string{contract.AgentPath}, flags.StartedArgs(probe.Exec.Command)...),
				"spec", "containers", strconv.Itoa(i), "startupProbe", "exec", "command")
		}
		if probe.FailureThreshold != never {
			p.Set(never, "spec", "containers", strconv.Itoa(i), "startupProbe", "failureThreshold")
		}
	}
}

// probeDelay returns how long after the start of the command the probes of a container begin: the longest initialDelaySeconds of all. The
// kubelet counts that field from the start of the container (doProbe in pkg/kubelet/prober/worker.go), long before the step's turn, so the
// startupProbe has to wait in its place, and it is one for all probes. A probe that begins early ends a healthy step or reports it ready too
// soon; one that begins late does neither.
func probeDelay(container *corev1.Container) time.Duration {
	return time.Duration(max(initialDelay(container.LivenessProbe), initialDelay(container.ReadinessProbe), initialDelay(container.StartupProbe))) * time.Second
}

func initialDelay(probe *corev1.Probe) int32 {
	if probe == nil {
		return 0
	}
	return probe.InitialDelaySeconds
}

// probeWarnings returns a sentence for each step whose livenessProbe or readinessProbe doesn't begin when its initialDelaySeconds says, at most
// ten: the API server cuts what is longer.
func probeWarnings(pod *corev1.Pod) []string {
	const most = 10
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	var warnings []string
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		if !slices.Contains(steps, container.Name) {
			continue
		}
		if warning := probeWarning(container); warning != "" && len(warnings) < most {
			warnings = append(warnings, warning)
		}
	}
	return warnings
}

func probeWarning(container *corev1.Container) string {
	liveness, readiness := container.LivenessProbe, container.ReadinessProbe
	delay := max(initialDelay(liveness), initialDelay(readiness))
	switch startup := container.StartupProbe; {
	case startup != nil && startup.Exec == nil:
		if delay > 0 {
			return fmt.Sprintf("the step %q has a startupProbe that asks the network, so initialDelaySeconds of its other probes has no effect: set exec in startupProbe, or remove startupProbe",
				container.Name)
		}
	case liveness != nil && readiness != nil && initialDelay(liveness) != initialDelay(readiness):
		return fmt.Sprintf("the step %q has different initialDelaySeconds in livenessProbe and readinessProbe, and both begin after %d seconds: set the same initialDelaySeconds in both",
			container.Name, delay)
	}
	return ""
}
