package podspec

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestGateOptions proves the flags beside the command: the options of the step, and the Pod's grace period.
func TestGateOptions(t *testing.T) {
	type told struct {
		Timeout, Grace time.Duration
		Retries        int
	}
	cases := map[string]struct {
		options string
		grace   *int64
		want    [2]told // of the steps a and b
	}{
		"none":                {"", nil, [2]told{{Grace: 30 * time.Second}, {Grace: 30 * time.Second}}},
		"of no step":          {`{"c":{"retries":3}}`, nil, [2]told{{Grace: 30 * time.Second}, {Grace: 30 * time.Second}}},
		"of one step":         {`{"b":{"timeout":1500000000,"retries":3}}`, nil, [2]told{{Grace: 30 * time.Second}, {1500 * time.Millisecond, 30 * time.Second, 3}}},
		"of both":             {`{"a":{"retries":1},"b":{"timeout":60000000000}}`, nil, [2]told{{Retries: 1, Grace: 30 * time.Second}, {Timeout: time.Minute, Grace: 30 * time.Second}}},
		"none of the agent's": {`{"a":{"continueOnError":true}}`, nil, [2]told{{Grace: 30 * time.Second}, {Grace: 30 * time.Second}}},
		"a grace period":      {"", new(int64(7)), [2]told{{Grace: 7 * time.Second}, {Grace: 7 * time.Second}}},
		"no grace":            {"", new(int64(0)), [2]told{{Grace: time.Second}, {Grace: time.Second}}}, // as the kubelet treats it
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"))
			pod.Spec.TerminationGracePeriodSeconds = c.grace
			if c.options != "" {
				pod.Annotations["taskflow.practice.com/options"] = c.options
			}
			var got [2]told
			for i, container := range gateTyped(t, pod).Spec.Containers {
				flags, err := contract.ParseAgentFlags(container.Args)
				if err != nil {
					t.Fatal(err)
				}
				got[i] = told{flags.Timeout, flags.Grace, flags.Retries}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what the agents are told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGateOptionsThatCantBeRead proves that unreadable options are rejected, because a step must not lose its timeout.
func TestGateOptionsThatCantBeRead(t *testing.T) {
	for _, options := range []string{"{", "[]", `{"a":{"timeout":"1m"}}`, `{"a":{"retries":-0.5}}`} {
		pod := taskPod(step("a"))
		pod.Annotations[contract.OptionsAnnotation] = options
		patch, err := gateRaw(t, encode(t, pod))
		if want := "taskflow.practice.com/options is invalid: "; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("gatePod with the options %s = %v, %v, want an error that starts with %q", options, patch, err, want)
		}
	}
}

// TestGateScripts proves that the volume with the scripts is accepted although its name is reserved, and that only this volume may be
// mounted below /taskflow.
func TestGateScripts(t *testing.T) {
	withScript := func(volume, path string) *corev1.Pod {
		pod := taskPod(step("a", mount(volume, path)))
		pod.Spec.Volumes = []corev1.Volume{{Name: volume}}
		return pod
	}
	container := gateTyped(t, withScript(contract.ScriptsVolume, "/taskflow/scripts")).Spec.Containers[0]
	flags, err := contract.ParseAgentFlags(container.Args)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("/etc/podinfo/order", flags.Wait); diff != "" {
		t.Errorf("where the order is (-want +got):\n%s", diff)
	}
	want := []corev1.VolumeMount{
		{Name: "taskflow-scripts", MountPath: "/taskflow/scripts"},
		{Name: "taskflow-bin", MountPath: "/taskflow/bin", ReadOnly: true},
		{Name: "taskflow-podinfo", MountPath: "/etc/podinfo", ReadOnly: true},
		{Name: "taskflow-run", MountPath: "/taskflow/run", ReadOnly: true},
		{Name: "taskflow-run", MountPath: "/taskflow/run/1", SubPath: "1"},
	}
	if diff := cmp.Diff(want, container.VolumeMounts); diff != "" {
		t.Errorf("the mounts (-want +got):\n%s", diff)
	}
	if patch, err := gateRaw(t, encode(t, withScript("mine", "/taskflow/scripts"))); err == nil {
		t.Errorf("plan with another volume there = %v, want a rejection", patch)
	}
}

// TestGateProbes proves which startupProbe a step gets, and that its other probes stay unchanged.
func TestGateProbes(t *testing.T) {
	exec := func(command ...string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}
	}
	http := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthy", Port: intstr.FromInt32(80)}}
	const forever = math.MaxInt32
	isStarted := &corev1.Probe{
		ProbeHandler:     exec("/taskflow/bin/agent", "started", "--wait", "/etc/podinfo/order", "--waitcontent", "2", "--run", "/taskflow/run"),
		PeriodSeconds:    1,
		TimeoutSeconds:   5,
		FailureThreshold: forever,
	}
	delayed := func(delay string) *corev1.Probe {
		probe := isStarted.DeepCopy()
		probe.Exec.Command = append(probe.Exec.Command, "--delay", delay)
		return probe
	}
	cases := map[string]struct {
		edit func(*corev1.Container)
		want *corev1.Probe
	}{
		"no probe":         {func(*corev1.Container) {}, nil},
		"a preStop hook":   {func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{}} }, nil},
		"a liveness probe": {func(c *corev1.Container) { c.LivenessProbe = &corev1.Probe{ProbeHandler: http} }, isStarted},
		"a delay": {func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: http, InitialDelaySeconds: 90}
		}, delayed("1m30s")},
		// No probe begins before its own delay.
		"a longer delay of the liveness probe": {func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: http, InitialDelaySeconds: 3}
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: http, InitialDelaySeconds: 1}
		}, delayed("3s")},
		"a longer delay of the readiness probe": {func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: exec("live"), InitialDelaySeconds: 3}
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: http, InitialDelaySeconds: 60}
		}, delayed("1m0s")},
		"a delay of the readiness probe, and none of the liveness probe": {func(c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: http}
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec("ready"), InitialDelaySeconds: 60}
		}, delayed("1m0s")},
		"a readiness probe": {func(c *corev1.Container) { c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec("ready")} }, isStarted},
		"both": {func(c *corev1.Container) {
			c.LivenessProbe, c.ReadinessProbe = &corev1.Probe{ProbeHandler: http}, &corev1.Probe{ProbeHandler: http}
		}, isStarted},
		"an order elsewhere": {
			func(c *corev1.Container) {
				c.LivenessProbe = &corev1.Probe{ProbeHandler: http}
				c.VolumeMounts = []corev1.VolumeMount{mount("mine", "/etc/podinfo")}
			},
			&corev1.Probe{
				ProbeHandler:  exec("/taskflow/bin/agent", "started", "--wait", "/taskflow/podinfo/order", "--waitcontent", "2", "--run", "/taskflow/run"),
				PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: forever,
			},
		},
		"a startup probe that runs a program": {
			func(c *corev1.Container) {
				c.StartupProbe = &corev1.Probe{ProbeHandler: exec("up", "--command", ""), InitialDelaySeconds: 5, PeriodSeconds: 7, TimeoutSeconds: 2, FailureThreshold: 30, TerminationGracePeriodSeconds: new(int64(4))}
				c.LivenessProbe = &corev1.Probe{ProbeHandler: http}
			},
			&corev1.Probe{
				ProbeHandler: exec("/taskflow/bin/agent", "started", "--wait", "/etc/podinfo/order", "--waitcontent", "2", "--run", "/taskflow/run",
					"--delay", "5s", "--command", "up", "--command", ""),
				InitialDelaySeconds: 5, PeriodSeconds: 7, TimeoutSeconds: 2, FailureThreshold: forever, TerminationGracePeriodSeconds: new(int64(4)),
			},
		},
		// Nothing answers the probe before the command has started.
		"a startup probe that asks the network": {
			func(c *corev1.Container) {
				c.StartupProbe = &corev1.Probe{ProbeHandler: http, PeriodSeconds: 7, FailureThreshold: 30}
			},
			&corev1.Probe{ProbeHandler: http, PeriodSeconds: 7, FailureThreshold: forever},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := step("b")
			c.edit(&before)
			pod := gateTyped(t, taskPod(step("a"), before))
			after := pod.Spec.Containers[1]
			if diff := cmp.Diff(c.want, after.StartupProbe); diff != "" {
				t.Errorf("the startup probe (-want +got):\n%s", diff)
			}
			type others struct {
				Liveness, Readiness *corev1.Probe
				Lifecycle           *corev1.Lifecycle
			}
			if diff := cmp.Diff(others{before.LivenessProbe, before.ReadinessProbe, before.Lifecycle}, others{after.LivenessProbe, after.ReadinessProbe, after.Lifecycle}); diff != "" {
				t.Errorf("the other probes and the hooks (-want +got):\n%s", diff)
			}
			if other := pod.Spec.Containers[0].StartupProbe; other != nil {
				t.Errorf("the other step has the startup probe %v", other)
			}
			// The agent reads what the kubelet will run.
			if after.StartupProbe != nil && after.StartupProbe.Exec != nil {
				flags, err := contract.ParseStartedFlags(after.StartupProbe.Exec.Command[2:])
				if err != nil || flags.WaitContent != 2 {
					t.Errorf("the agent reads %+v, %v", flags, err)
				}
			}
			assertNothingToAdd(t, encode(t, pod))
		})
	}
}

// TestGateHandOff proves what each step's agent is told of the step before it, and that a step can write to no directory but its own.
func TestGateHandOff(t *testing.T) {
	own := func(n string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: "taskflow-run", MountPath: "/taskflow/run/" + n, SubPath: n}
	}
	all := corev1.VolumeMount{Name: "taskflow-run", MountPath: "/taskflow/run", ReadOnly: true}
	type told struct {
		Alone, Again bool
		AfterFailure string
		Mounts       []corev1.VolumeMount
	}
	const stop, goOn, wait = contract.AfterFailureStop, contract.AfterFailureContinue, contract.AfterFailureWait
	onFailure := func(pod *corev1.Pod) { pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }
	continues := func(pod *corev1.Pod) {
		pod.Annotations[contract.OptionsAnnotation] = contract.Options{"a": {ContinueOnError: true}}.Marshal()
	}
	controller := func(pod *corev1.Pod) { pod.Annotations["taskflow.practice.com/handoff"] = "controller" }
	mounts := [][]corev1.VolumeMount{{all, own("1")}, {all, own("2")}, {all, own("3")}}
	alone := [][]corev1.VolumeMount{{own("1")}, {own("2")}, {own("3")}}

	cases := map[string]struct {
		edits []func(*corev1.Pod)
		want  []told
	}{
		"restartPolicy Never": {nil, []told{
			{false, false, stop, mounts[0]}, {false, false, stop, mounts[1]}, {false, false, stop, mounts[2]},
		}},
		"restartPolicy OnFailure": {[]func(*corev1.Pod){onFailure}, []told{
			{false, true, stop, mounts[0]}, {false, true, wait, mounts[1]}, {false, true, wait, mounts[2]},
		}},
		"the first step may fail": {[]func(*corev1.Pod){continues}, []told{
			{false, false, stop, mounts[0]}, {false, false, goOn, mounts[1]}, {false, false, stop, mounts[2]},
		}},
		"the first step may fail, but is run again": {[]func(*corev1.Pod){continues, onFailure}, []told{
			{false, true, stop, mounts[0]}, {false, true, wait, mounts[1]}, {false, true, wait, mounts[2]},
		}},
		"only the controller releases": {[]func(*corev1.Pod){controller, continues}, []told{
			{true, false, stop, alone[0]}, {true, false, stop, alone[1]}, {true, false, stop, alone[2]},
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := taskPod(step("a"), step("b"), step("c"))
			for _, edit := range c.edits {
				edit(pod)
			}
			var got []told
			for _, container := range gateTyped(t, pod).Spec.Containers {
				flags, err := contract.ParseAgentFlags(container.Args)
				if err != nil {
					t.Fatalf("ParseAgentFlags(%q): %v", container.Args, err)
				}
				if flags.Run != "/taskflow/run" {
					t.Errorf("the run directory is %q", flags.Run)
				}
				run := slices.DeleteFunc(slices.Clone(container.VolumeMounts), func(m corev1.VolumeMount) bool { return m.Name != "taskflow-run" })
				got = append(got, told{flags.ControllerOnly, flags.RestartsOnFailure, flags.AfterFailure, run})
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("what the agents are told (-want +got):\n%s", diff)
			}
		})
	}
}
