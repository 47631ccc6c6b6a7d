//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// startCase is a sequence whose end could depend on a race between its first step and the kubelet, which starts the other containers. The
// volume s is an emptyDir. All steps mount it at /s, unless they mount it elsewhere.
type startCase struct {
	steps []corev1.Container
	user  int64 // 0: the image's user
	// log is the output of the last step if it succeeds. Empty: it can't succeed.
	log string
	// fails is the last step's message if the first step is slow. Empty: it can't fail. With a quick first step it may succeed instead, or
	// fail because the runtime finds no directory to mount while the first step runs.
	fails string
	// refused is the reason for which the Pod is refused. Such a Pod never runs.
	refused string
}

const (
	replaced = `an earlier step removed or renamed the directory that is mounted at "/dist": mount the whole volume instead of a subPath, and use a path below it`
	vanished = `nothing is mounted at "/s/src/node_modules" any more, because an earlier step removed or renamed the directory there: choose a mountPath outside the other volumes`
)

var startCases = map[string]startCase{
	// An earlier step replaces a subPath. The second case is how build tools do it, the third how deployments do.
	"subpath": {
		steps: []corev1.Container{
			harness.Shell("build", "rm -rf /s/dist; mkdir /s/dist; echo js >/s/dist/app.js"),
			subPath("dist", "/dist", harness.Shell("upload", "ls /dist")),
		},
		log: "app.js\n", fails: replaced,
	},
	"subpath-renamed": {
		steps: []corev1.Container{
			harness.Shell("build", "mkdir /s/new; echo js >/s/new/app.js; [ ! -e /s/dist ] || mv /s/dist /s/old; mv /s/new /s/dist"),
			subPath("dist", "/dist", harness.Shell("upload", "ls /dist")),
		},
		log: "app.js\n", fails: replaced,
	},
	"subpath-filled": {
		steps: []corev1.Container{
			harness.Shell("build", "mkdir -p /s/dist; rm -rf /s/dist/*; echo js >/s/dist/app.js"),
			subPath("dist", "/dist", harness.Shell("upload", "ls /dist")),
		},
		log: "app.js\n",
	},
	// An earlier step replaces a working directory.
	"workdir-replaced": {
		steps: []corev1.Container{
			harness.Shell("old", "mkdir -p /s/src"),
			harness.Shell("clone", "rm -rf /s/src; mkdir /s/src; echo x >/s/src/f"),
			in("/s/src", harness.Shell("build", "pwd; cat f")),
		},
		log: "/s/src\nx\n",
	},
	"workdir-of-probes": {
		steps: []corev1.Container{
			harness.Shell("clone", "rm -rf /s/src; mkdir /s/src; echo x >/s/src/f"),
			in("/s/src", probed(harness.Shell("build", "pwd; sleep 3; cat f"), "test", "-e", "f")),
		},
		log: "/s/src\nx\n",
	},
	// An earlier step requires that the path doesn't exist.
	"workdir-cloned": {
		steps: []corev1.Container{
			harness.Shell("clone", `[ -z "$(ls -A /s/src)" ] || exit 128; mkdir -p /s/src/app; echo x >/s/src/app/f`),
			in("/s/src/app", harness.Shell("build", "pwd; cat f")),
		},
		log: "/s/src/app\nx\n",
	},
	"mount-in-mount": {
		steps: []corev1.Container{
			harness.Shell("clone", "rm -rf /s/src; mkdir /s/src; echo x >/s/src/f"),
			mounting("cache", "/s/src/node_modules", harness.Shell("build", "cat /s/src/f")),
		},
		log: "x\n", fails: vanished,
	},
	// The working directory belongs to the step's user.
	"workdir-of-user": {
		user: 1000,
		steps: []corev1.Container{
			harness.Shell("clone", "mkdir -p /s/src; echo x >/s/src/f"),
			in("/s/src", harness.Shell("build", "pwd; cat f; touch g; stat -c %u .")),
		},
		log: "/s/src\nx\n1000\n",
	},
	"workdir-made": {
		user:  1000,
		steps: []corev1.Container{in("/s/a/b", harness.Shell("first", "touch f")), in("/s/a/b", harness.Shell("second", "pwd; ls; stat -c %u . .."))},
		log:   "/s/a/b\nf\n1000\n1000\n",
	},
	// Earlier steps test for a directory, or link it.
	"workdir-linked": {
		steps: []corev1.Container{
			harness.Shell("sync", "if [ -d /s/src ]; then echo pulled; else mkdir /s/src; echo cloned; fi >/s/how; mkdir -p /s/releases/7; ln -sfn releases/7 /s/current"),
			in("/s/src/app", harness.Shell("build", "cat /s/how")),
			in("/s/current", harness.Shell("run", "cat /s/how; pwd -P")),
		},
		log: "cloned\n/s/releases/7\n",
	},
	"workdir-relinked": {
		steps: []corev1.Container{
			harness.Shell("first", "mkdir -p /s/releases/7; ln -sfn releases/7 /s/current"),
			in("/s/current", harness.Shell("second", "pwd -P; mkdir /s/releases/8; ln -sfn releases/8 /s/current")),
			in("/s/current", harness.Shell("third", "pwd -P")),
		},
		log: "/s/releases/8\n",
	},
	// An earlier step writes a file.
	"file": {
		steps: []corev1.Container{
			harness.Shell("render", "echo a >/s/app.conf"),
			subPath("app.conf", "/etc/app.conf", harness.Shell("run", "cat /etc/app.conf")),
		},
		refused: `the step "run" mounts subPath app.conf of the volume "s", which is created as a directory before the first step runs`,
	},
	"file-linked": {
		steps: []corev1.Container{
			harness.Shell("render", "echo a >/s/app.conf"),
			harness.Shell("run", "ln -s /s/app.conf /etc/app.conf; cat /etc/app.conf"),
		},
		log: "a\n",
	},
	"directory-like-a-file": {
		steps: []corev1.Container{
			harness.Shell("render", "mkdir -p /s/v1.json; echo a >/s/v1.json/f"),
			subPath("v1.json/", "/etc/v1.json", harness.Shell("run", "cat /etc/v1.json/f")),
		},
		log: "a\n",
	},
}

// TestSettledAtTheStart proves that a sequence ends in the same way whether the containers of the later steps start before or after its
// first step runs, or that the failure has a message. It covers both deliveries, as a Task and as a labelled Job. A slow first step starts
// when all containers have started, as after a "sleep 20" but no longer than needed. `make repeat` runs the test 20 times.
func TestSettledAtTheStart(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	for name, c := range startCases {
		for _, delivery := range deliveries {
			for _, slow := range []bool{true, false} {
				for _, kind := range []string{"task", "job"} {
					speed := map[bool]string{true: "slow", false: "quick"}[slow]
					name := strings.Join([]string{name, speed, delivery, kind}, "-")
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						c.run(t, namespace, name, delivery, slow, kind == "task")
					})
				}
			}
		}
	}
}

func (c startCase) run(t *testing.T, namespace, name, delivery string, slow, asTask bool) {
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Volumes: []corev1.Volume{
			{Name: "s", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
	}
	if c.user != 0 {
		spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &c.user}
	}
	var steps []corev1.Container
	for _, step := range c.steps {
		step = *step.DeepCopy()
		if !slices.ContainsFunc(step.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "s" }) {
			step.VolumeMounts = append(step.VolumeMounts, corev1.VolumeMount{Name: "s", MountPath: "/s"})
		}
		steps = append(steps, step)
	}
	signal := ""
	if slow {
		dir := t.TempDir()
		signal = filepath.Join(dir, "started")
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "go", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}})
		first := &steps[0]
		first.VolumeMounts = append(first.VolumeMounts, corev1.VolumeMount{Name: "go", MountPath: "/go"})
		first.Command[2] = "until [ -e /go/started ]; do sleep 0.1; done; " + first.Command[2]
	}

	var object client.Object
	if asTask {
		task := harness.NewTask(namespace, name, steps...)
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: spec}
		deliver(&task.Spec, delivery)
		object = task
	} else {
		job := newJob(namespace, contract.SequentialLabel, "true", steps...)
		job.Name = name
		job.Spec.Template.Annotations = map[string]string{contract.DeliveryAnnotation: delivery}
		spec.Containers = steps
		job.Spec.Template.Spec = spec
		object = job
	}
	cluster.Make(t, object)
	if c.refused != "" {
		awaitRefusal(t, object, c.refused)
		return
	}

	var pod corev1.Pod
	wait.For(t, "the containers to start", func(ctx context.Context) error {
		key := client.ObjectKeyFromObject(object)
		if job, ok := object.(*batchv1.Job); ok {
			pods := podsOf(t, job)
			if len(pods) == 0 {
				return fmt.Errorf("the Job %q has no Pod", job.Name)
			}
			key = client.ObjectKeyFromObject(&pods[0])
		}
		if err := cluster.Get(ctx, key, &pod); err != nil {
			return err
		}
		running := 0
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Running != nil {
				running++
			}
		}
		if slow && running < len(steps) {
			return fmt.Errorf("%d of %d run: %+v", running, len(steps), pod.Status.ContainerStatuses)
		}
		return nil
	})
	if slow {
		if err := os.WriteFile(signal, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wait.For(t, "the Pod to end", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(&pod), &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("its phase is %s, and its containers are %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})

	last := steps[len(steps)-1].Name
	i := slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == last })
	end := pod.Status.ContainerStatuses[i].State.Terminated
	const noDirectory = 128 // the runtime's exit code if an earlier step removes a directory that it is about to mount
	fails := c.fails
	switch log, succeeded := cluster.Log(t, namespace, pod.Name, last), pod.Status.Phase == corev1.PodSucceeded; {
	case succeeded && log == c.log && (c.fails == "" || !slow):
	case !succeeded && c.fails != "" && end != nil && end.ExitCode == contract.ExitNotExecutable && strings.Contains(log, c.fails):
		if record, _ := contract.ParseRecord(end.Message); record.Reason != contract.ReasonStartError || record.Message != c.fails {
			t.Errorf("the record is %+v, want the sentence %q", record, c.fails)
		}
	case !succeeded && c.fails != "" && end != nil && end.ExitCode == noDirectory && strings.Contains(end.Message, "no such file or directory") && !slow:
		fails = "no such file or directory"
	default:
		t.Errorf("the Pod's phase is %s; the step %q ended with %+v and the log %q; want the log %q, or a failure with %q", pod.Status.Phase, last, end, log, c.log, c.fails)
	}
	if task, ok := object.(*v1alpha1.Task); ok && pod.Status.Phase == corev1.PodFailed {
		status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
		if got := status.Steps[len(steps)-1]; got.Reason != contract.ReasonStartError || !strings.Contains(got.Message, fails) {
			t.Errorf("the status of the step is %+v, want the message %q", got, fails)
		}
	}
}

// awaitRefusal waits until a user can read why the object gets no Pod: in the Task's condition, or in an event of the Job.
func awaitRefusal(t *testing.T, object client.Object, why string) {
	t.Helper()
	if task, ok := object.(*v1alpha1.Task); ok {
		cluster.AwaitTask(t, task, "the refusal", func(status v1alpha1.TaskStatus) bool {
			return slices.ContainsFunc(status.Conditions, func(c metav1.Condition) bool { return strings.Contains(c.Message, why) })
		})
		return
	}
	wait.For(t, "the refusal", func(ctx context.Context) error {
		var events corev1.EventList
		if err := cluster.List(ctx, &events, client.InNamespace(object.GetNamespace())); err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.InvolvedObject.Name == object.GetName() && strings.Contains(event.Message, why) {
				return nil
			}
		}
		return errors.New("no event of the Job tells it")
	})
}

// TestValuesOfEarlierSteps proves that a step may have variables from a file or ConfigMap that an earlier step creates, regardless of how
// long that takes. The kubelet starts the container when they exist. The Task doesn't fail before the step's turn and its start grace
// period.
func TestValuesOfEarlierSteps(t *testing.T) {
	t.Parallel()
	const longerThanTheGrace = 35 * time.Second // deploy-local has --start-grace-period=30s
	namespace := cluster.NewNamespace(t, "baseline")
	task := harness.NewTask(namespace, "values",
		harness.Shell("make", fmt.Sprintf("sleep %d; echo \"NAME='x'\" >/s/new; mv /s/new /s/env", int(longerThanTheGrace.Seconds()))),
		harness.Shell("use", `echo "$NAME $OTHER"`))
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		{Name: "s", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}}}
	task.Spec.Steps[0].VolumeMounts = []corev1.VolumeMount{{Name: "s", MountPath: "/s"}}
	task.Spec.Steps[1].Env = []corev1.EnvVar{
		{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "s", Path: "env", Key: "NAME"}}},
		{Name: "OTHER", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "made-later"}, Key: "other",
		}}},
	}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the first step to end", func(status v1alpha1.TaskStatus) bool {
		return len(status.Steps) > 0 && status.Steps[0].State == v1alpha1.StepSucceeded
	})
	// A step would create it with kubectl.
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "made-later", Namespace: namespace}, Data: map[string]string{"other": "y"}}
	cluster.Make(t, made)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if got := cluster.Log(t, namespace, task.Name, "use"); got != "x y\n" {
		t.Errorf("the log is %q", got)
	}
}

func in(dir string, container corev1.Container) corev1.Container {
	container.WorkingDir = dir
	return container
}

// subPath makes the container mount a subPath of s, and nothing else of it.
func subPath(subPath, path string, container corev1.Container) corev1.Container {
	container.VolumeMounts = []corev1.VolumeMount{{Name: "s", MountPath: path, SubPath: subPath}}
	return container
}

func mounting(volume, path string, container corev1.Container) corev1.Container {
	container.VolumeMounts = []corev1.VolumeMount{{Name: volume, MountPath: path}}
	return container
}

// probed gives the container a liveness probe that kills it at its first failure.
func probed(container corev1.Container, command ...string) corev1.Container {
	container.LivenessProbe = &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}},
		PeriodSeconds:    1,
		TimeoutSeconds:   10, // a busy machine takes long to start a process in a container
		FailureThreshold: 1,
	}
	return container
}
