package podspec

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// gateProbes makes the probes of a step count from its release. The kubelet runs no other probe of a container before its startupProbe has
// succeeded: so gateProbes adds a startupProbe that fails while the step waits, or puts that check in front of the probe's own command. The check
// goes on failing for the delay of the probes (probeDelay). How long a step waits is unknown, so the failureThreshold never ends it. A startupProbe
// that asks the network needs no check, because nothing listens before the step's command has started. A second call adds nothing.
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
// kubelet counts that field from the start of the container (doProbe in pkg/kubelet/prober/worker.go), long before the step's turn. So the one
// startupProbe waits for all probes. A probe that begins early kills a healthy step or reports it ready too soon; one that begins late does
// neither.
func probeDelay(container *corev1.Container) time.Duration {
	return time.Duration(max(initialDelay(container.LivenessProbe), initialDelay(container.ReadinessProbe), initialDelay(container.StartupProbe))) * time.Second
}

func initialDelay(probe *corev1.Probe) int32 {
	return ptr.Deref(probe, corev1.Probe{}).InitialDelaySeconds
}

// probeWarnings returns a sentence for each step whose livenessProbe or readinessProbe begins at another time than its initialDelaySeconds says. It
// returns at most ten, because the API server truncates warnings.
func probeWarnings(pod *corev1.Pod, steps []int) []string {
	const most = 10
	var warnings []string
	for i := range pod.Spec.Containers {
		if warning := probeWarning(&pod.Spec.Containers[i]); warning != "" && slices.Contains(steps, i) && len(warnings) < most {
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
			return fmt.Sprintf("the step %q has a startupProbe without exec, so initialDelaySeconds of its other probes has no effect: set exec in startupProbe, or remove startupProbe",
				container.Name)
		}
	case liveness != nil && readiness != nil && initialDelay(liveness) != initialDelay(readiness):
		return fmt.Sprintf("the step %q has different initialDelaySeconds in livenessProbe and readinessProbe, so both start after %d seconds: set the same initialDelaySeconds in both",
			container.Name, delay)
	}
	return ""
}
