package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// startPod returns a Pod with a volume of each kind that matters, and with these steps.
func startPod(steps ...corev1.Container) *corev1.Pod {
	pod := taskPod(steps...)
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "s", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}},
		{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}
	return pod
}

func subPath(name, path, subPath string) corev1.VolumeMount {
	return corev1.VolumeMount{Name: name, MountPath: path, SubPath: subPath}
}

// TestGateWorkDir proves which working directories the agent enters at the step's turn: those that a runtime would create in a volume. The
// rest of the container stays unchanged, and so does every container without such a directory.
func TestGateWorkDir(t *testing.T) {
	cases := map[string]struct {
		dir    string
		mounts []corev1.VolumeMount
		want   bool
	}{
		"none":                                     {"", []corev1.VolumeMount{mount("s", "/s")}, false},
		"outside of the volumes":                   {"/work", []corev1.VolumeMount{mount("s", "/s")}, false},
		"a name that begins alike":                 {"/s2/src", []corev1.VolumeMount{mount("s", "/s")}, false},
		"the volume itself":                        {"/s", []corev1.VolumeMount{mount("s", "/s")}, false},
		"the volume itself, respelled":             {"/s/./", []corev1.VolumeMount{mount("s", "/s/")}, false},
		"another volume in it":                     {"/s/cache", []corev1.VolumeMount{mount("s", "/s"), mount("cache", "/s/cache")}, false},
		"a relative one, which no runtime accepts": {"s/src", []corev1.VolumeMount{mount("s", "/s")}, false},
		"in a ConfigMap":                           {"/config/..data", []corev1.VolumeMount{mount("config", "/config")}, false},
		"in a volume":                              {"/s/src", []corev1.VolumeMount{mount("s", "/s")}, true},
		"in a volume, respelled":                   {"/s//a/../src/", []corev1.VolumeMount{mount("s", "s/")}, true},
		"in a claim":                               {"/s/src", []corev1.VolumeMount{mount("claim", "/s")}, true},
		"in a subPath":                             {"/s/src", []corev1.VolumeMount{subPath("s", "/s", "repo")}, true},
		"in a volume in another one":               {"/s/cache/x", []corev1.VolumeMount{mount("cache", "/s/cache"), mount("s", "/s")}, true},
		"in a ConfigMap in a volume":               {"/s/config/x", []corev1.VolumeMount{mount("config", "/s/config"), mount("s", "/s")}, false},
		"beside another volume in a volume":        {"/s/src", []corev1.VolumeMount{mount("s", "/s"), mount("cache", "/s/cache")}, true},
		"above another volume in a volume":         {"/s/src", []corev1.VolumeMount{mount("s", "/s"), mount("cache", "/s/src/cache")}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			container := step("a", c.mounts...)
			container.WorkingDir = c.dir
			got := gateTyped(t, startPod(container)).Spec.Containers[0]
			flags, err := contract.ParseAgentFlags(got.Args)
			if err != nil {
				t.Fatal(err)
			}
			want := [2]string{c.dir, ""} // workingDir and --workdir
			if c.want {
				want = [2]string{"/", c.dir}
			}
			if diff := cmp.Diff(want, [2]string{got.WorkingDir, flags.WorkDir}); diff != "" {
				t.Errorf("workingDir and --workdir (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGateWorkDirOfProbes proves that probes and hooks run in the step's working directory although its container starts in another one,
// also those that another webhook adds between two calls.
func TestGateWorkDirOfProbes(t *testing.T) {
	exec := func(command ...string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}
	}
	add := func(c *corev1.Container) {
		c.LivenessProbe = &corev1.Probe{ProbeHandler: exec("live", "1")}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: exec("ready")}
		c.StartupProbe = &corev1.Probe{ProbeHandler: exec("up")}
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"stop"}}}}
	}
	container := step("a", mount("s", "/s"))
	container.WorkingDir = "/s/$(A)" // the kubelet expands it in commands and probes, and neither in workingDir nor in hooks
	pod := startPod(container)
	once := gateTyped(t, pod)
	add(&pod.Spec.Containers[0])
	add(&once.Spec.Containers[0])
	for name, pod := range map[string]*corev1.Pod{"at the first call": pod, "at the second call": once} {
		t.Run(name, func(t *testing.T) {
			raw := gate(t, encode(t, pod))
			c := decodePod(t, raw).Spec.Containers[0]
			got := map[string]string{
				"live":  strings.Join(c.LivenessProbe.Exec.Command, " "),
				"ready": strings.Join(c.ReadinessProbe.Exec.Command, " "),
				"up":    strings.Join(c.StartupProbe.Exec.Command, " "),
				"stop":  strings.Join(c.Lifecycle.PreStop.Exec.Command, " "),
			}
			want := map[string]string{
				"live":  "/taskflow/bin/agent enter /s/$$(A) live 1",
				"ready": "/taskflow/bin/agent enter /s/$$(A) ready",
				"up":    "/taskflow/bin/agent started --wait /etc/podinfo/order --waitcontent 1 --run /taskflow/run --workdir /s/$$(A) --command up",
				"stop":  "/taskflow/bin/agent enter /s/$(A) stop",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			assertNothingToAdd(t, raw)
		})
	}
	network := step("a", mount("s", "/s"))
	network.WorkingDir = "/s/src"
	network.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/"}}}
	network.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}}}
	got := gateTyped(t, startPod(network)).Spec.Containers[0]
	if diff := cmp.Diff(network.Lifecycle, got.Lifecycle); diff != "" || got.LivenessProbe.Exec != nil {
		t.Errorf("probes and hooks without a command: %+v, hooks (-want +got):\n%s", got.LivenessProbe, diff)
	}
}

// TestGateEarlyMounts proves which mounts a step's agent checks and the webhook warns of: directories that exist from the Pod's start and that an
// earlier step can remove or replace.
func TestGateEarlyMounts(t *testing.T) {
	const (
		dist  = `the step "b" mounts subPath dist of "s", which is created when the Pod starts, before earlier steps run: mount the whole volume and use a path below it if an earlier step creates or replaces it`
		inner = `the step "b" mounts "cache" at /s/cache, below "s": this directory is created in "s" when the Pod starts, before earlier steps run: choose a mountPath outside the other volumes if an earlier step creates or replaces it`
	)
	readOnly := func(m corev1.VolumeMount) corev1.VolumeMount { m.ReadOnly = true; return m }
	expr := func(name, path, expr string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: name, MountPath: path, SubPathExpr: expr}
	}
	type mounts = []corev1.VolumeMount
	cases := map[string]struct {
		a, b  mounts
		paths []string
		want  []string
	}{
		"whole volumes":                     {mounts{mount("s", "/s")}, mounts{mount("s", "/s")}, nil, nil},
		"a subPath of the whole":            {mounts{mount("s", "/s")}, mounts{subPath("s", "/dist", "dist")}, []string{"/dist:dist"}, []string{dist}},
		"a subPath of a subPath":            {mounts{subPath("s", "/s", "a")}, mounts{subPath("s", "/dist", "a/dist")}, []string{"/dist:a/dist"}, []string{strings.Replace(dist, "subPath dist", "subPath a/dist", 1)}},
		"a deep subPath of a subPath":       {mounts{subPath("s", "/s", "a")}, mounts{subPath("s", "/dist", "a/b/c/dist")}, []string{"/dist:a/b/c/dist"}, []string{strings.Replace(dist, "subPath dist", "subPath a/b/c/dist", 1)}},
		"a deep subPath beside a subPath":   {mounts{subPath("s", "/s", "a/b/c")}, mounts{subPath("s", "/dist", "a/b/cd/e/dist")}, nil, nil},
		"a deep subPath of the whole":       {mounts{mount("s", "/s")}, mounts{subPath("s", "/dist", "a/b/c/dist")}, []string{"/dist:a/b/c/dist"}, []string{strings.Replace(dist, "subPath dist", "subPath a/b/c/dist", 1)}},
		"the same subPath":                  {mounts{subPath("s", "/s", "dist")}, mounts{subPath("s", "/dist", "./dist/")}, nil, nil},
		"another subPath":                   {mounts{subPath("s", "/s", "src")}, mounts{subPath("s", "/dist", "dist")}, nil, nil},
		"a subPath above":                   {mounts{subPath("s", "/s", "a/b")}, mounts{subPath("s", "/dist", "a")}, nil, nil},
		"of a volume that only it mounts":   {nil, mounts{subPath("s", "/dist", "dist")}, nil, nil},
		"of a volume read only before":      {mounts{readOnly(mount("s", "/s"))}, mounts{subPath("s", "/dist", "dist")}, nil, nil},
		"of a claim":                        {mounts{mount("claim", "/s")}, mounts{subPath("claim", "/dist", "dist")}, []string{"/dist"}, []string{strings.ReplaceAll(dist, `"s"`, `"claim"`)}},
		"of a ConfigMap":                    {mounts{mount("config", "/s")}, mounts{subPath("config", "/app.conf", "app.conf")}, nil, nil},
		"an expression":                     {mounts{mount("s", "/s")}, mounts{expr("s", "/dist", "$(NAME)")}, []string{"/dist:$(NAME)"}, []string{strings.Replace(dist, "subPath dist", "subPath $(NAME)", 1)}},
		"what looks like an expression":     {mounts{mount("s", "/s")}, mounts{subPath("s", "/$(X)", "$(NAME)")}, []string{"/$$(X):$$(NAME)"}, []string{strings.Replace(dist, "subPath dist", "subPath $(NAME)", 1)}},
		"the same expression":               {mounts{expr("s", "/s", "$(NAME)")}, mounts{expr("s", "/dist", "$(NAME)")}, nil, nil},
		"an expression in an expression":    {mounts{expr("s", "/s", "$(NAME)")}, mounts{expr("s", "/dist", "$(NAME)/dist")}, []string{"/dist:$(NAME)/dist"}, []string{strings.Replace(dist, "subPath dist", "subPath $(NAME)/dist", 1)}},
		"a volume in the volume":            {mounts{mount("s", "/s")}, mounts{mount("s", "/s"), mount("cache", "/s/cache")}, []string{"/s/cache"}, []string{inner}},
		"a volume in the volume, elsewhere": {mounts{mount("s", "/x")}, mounts{mount("cache", "/s/cache"), mount("s", "/s")}, []string{"/s/cache"}, []string{inner}},
		"a volume in the volume, in both":   {mounts{mount("s", "/x"), mount("config", "/x/cache")}, mounts{mount("cache", "/s/cache"), mount("s", "/s")}, nil, nil},
		"a volume beside the volume":        {mounts{mount("s", "/s")}, mounts{mount("s", "/s"), mount("cache", "/s2/cache")}, nil, nil},
		"a ConfigMap in the volume": {
			mounts{mount("s", "/s")}, mounts{mount("s", "/s"), mount("config", "/s/cache")}, []string{"/s/cache"}, []string{strings.Replace(inner, `mounts "cache"`, `mounts "config"`, 1)},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := startPod(step("a", c.a...), step("b", c.b...))
			var got [][]string
			for _, container := range gateTyped(t, pod).Spec.Containers {
				flags, err := contract.ParseAgentFlags(container.Args)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, flags.Mounts)
			}
			if diff := cmp.Diff([][]string{nil, c.paths}, got); diff != "" {
				t.Errorf("the mounts that the agents check (-want +got):\n%s", diff)
			}
			once, warnings := admit(t, encode(t, pod))
			if diff := cmp.Diff(c.want, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if _, again := admit(t, once); len(again) > 0 {
				t.Errorf("warnings of the second call: %q", again)
			}
			assertNothingToAdd(t, once)
		})
	}
}

// TestGateRejectsAFileBeforeItIsWritten proves that a subPath of a file that doesn't exist yet is rejected, because the kubelet creates a directory
// for it, and that a subPath is accepted if it can be a directory or can exist already.
func TestGateRejectsAFileBeforeItIsWritten(t *testing.T) {
	all := mount("s", "/s")
	claim := subPath("claim", "/etc/app.conf", "app.conf")
	prepare := corev1.Container{Name: "prepare", VolumeMounts: []corev1.VolumeMount{all}}
	refused := func(subPath string) string {
		return `the step "b" mounts subPath ` + subPath + ` of the volume "s", which is created as a directory before the first step runs: ` +
			`mount the whole volume and use the file below its mountPath, or write subPath as ` + subPath + `/ if it is a directory`
	}
	cases := map[string]struct {
		mount corev1.VolumeMount
		edit  func(*corev1.Pod) // may be nil
		want  string
	}{
		"a file":                        {subPath("s", "/etc/app.conf", "app.conf"), nil, refused("app.conf")},
		"a file below":                  {subPath("s", "/etc/default.CONF", "out/app.conf"), nil, refused("out/app.conf")},
		"a file of an expression":       {corev1.VolumeMount{Name: "s", MountPath: "/app.yaml", SubPathExpr: "$(NAME).yaml"}, nil, refused("$(NAME).yaml")},
		"a directory":                   {subPath("s", "/etc/app", "app"), nil, ""},
		"a directory, by the slash":     {subPath("s", "/etc/v1.json", "v1.json/"), nil, ""},
		"a directory, by the mountPath": {subPath("s", "/etc/app", "app.conf"), nil, ""},
		"a directory named conf.d":      {subPath("s", "/etc/conf.d", "conf.d"), nil, ""},
		"a directory with a version":    {subPath("s", "/usr/lib/python3.12", "python3.12"), nil, ""},
		"a directory with a dot first":  {subPath("s", "/root/.config", ".config"), nil, ""},
		"a directory of a domain":       {subPath("s", "/srv/example.com", "example.com"), nil, ""},
		"a file of a claim":             {claim, nil, ""},
		"a file of an init container's": {subPath("s", "/etc/app.conf", "app.conf"), func(pod *corev1.Pod) { pod.Spec.InitContainers = []corev1.Container{prepare} }, ""},
		"a file of no earlier step's":   {subPath("cache", "/etc/app.conf", "app.conf"), nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := startPod(step("a", all, mount("claim", "/claim")), step("b", c.mount))
			if c.edit != nil {
				c.edit(pod)
			}
			_, err := gateRaw(t, encode(t, pod))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the rejection (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStartWarningsAreFew proves that a Pod with many such mounts gets few warnings, because the API server truncates them.
func TestStartWarningsAreFew(t *testing.T) {
	second := step("b")
	for name := range strings.FieldsSeq("a b c d e f g h") {
		second.VolumeMounts = append(second.VolumeMounts, subPath("s", "/"+name, name))
	}
	_, got := admit(t, encode(t, startPod(step("a", mount("s", "/s")), second)))
	if len(got) != 6 || got[5] != "3 more mounts are created when the Pod starts, before earlier steps run" {
		t.Errorf("%d warnings: %q", len(got), got)
	}
}
