package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestProbeWarnings proves that the webhook warns only of a step's probe that starts at another time than its initialDelaySeconds requests.
func TestProbeWarnings(t *testing.T) {
	exec := func(delay int32) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}, InitialDelaySeconds: delay}
	}
	grpc := func(delay int32) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}, InitialDelaySeconds: delay}
	}
	const (
		late    = `the step "a" has different initialDelaySeconds in livenessProbe and readinessProbe, so both start after 60 seconds: set the same initialDelaySeconds in both`
		network = `the step "a" has a startupProbe without exec, so initialDelaySeconds of its other probes has no effect: set exec in startupProbe, or remove startupProbe`
	)
	cases := map[string]struct {
		liveness, readiness, startup *corev1.Probe
		want                         []string
	}{
		"no probe":                              {nil, nil, nil, nil},
		"one with a delay":                      {exec(5), nil, nil, nil},
		"two with one delay":                    {exec(5), grpc(5), nil, nil},
		"a later livenessProbe":                 {exec(60), grpc(5), nil, []string{late}},
		"a later readinessProbe":                {grpc(0), exec(60), nil, []string{late}},
		"a later startupProbe":                  {exec(5), nil, exec(60), nil},
		"a startupProbe of the network":         {exec(0), grpc(0), grpc(60), nil},
		"a delay beside a network's":            {exec(60), nil, grpc(0), []string{network}},
		"a readinessProbe's beside a network's": {exec(0), exec(60), grpc(0), []string{network}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			container := step("a")
			container.LivenessProbe, container.ReadinessProbe, container.StartupProbe = c.liveness, c.readiness, c.startup
			pod := startPod(container)
			once, warnings := admit(t, encode(t, pod))
			if diff := cmp.Diff(c.want, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if _, again := admit(t, once); len(again) > 0 {
				t.Errorf("warnings of the second call: %q", again)
			}
		})
	}
}
