//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// releasedCase is a Pod as a user created it with an earlier release, and its end.
type releasedCase struct {
	// pod is nil if a Task or a Job made the Pod.
	pod *corev1.Pod
	// task is the Task that the Pod names; with isOwn, the Task that made the Pod.
	task  *v1alpha1.Task
	isOwn bool
	job   *batchv1.Job
	// images are the images that the test pushed, by the names of the containers.
	images map[string]string

	exitCodes map[string]int32
	// ran has the steps whose command ran, in order.
	ran      []string
	isHalted bool
	jobEnds  batchv1.JobConditionType
	// states are the states of the steps of a Task that made the Pod.
	states map[string]v1alpha1.StepState
}

func (c releasedCase) phase() corev1.PodPhase {
	for _, code := range c.exitCodes {
		if code != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

// releasedCases returns the cases by the names of their files in testdata/released.
func releasedCases(t *testing.T) map[string]releasedCase {
	t.Helper()
	cases := map[string]releasedCase{
		"plain": {
			pod:       releasedPod(timed("first", ""), timed("second", ""), timed("third", "")),
			exitCodes: map[string]int32{"first": 0, "second": 0, "third": 0}, ran: []string{"first", "second", "third"},
		},
		"failing": {
			pod:       releasedPod(timed("first", ""), timed("second", "exit 3"), timed("third", "")),
			exitCodes: map[string]int32{"first": 0, "second": 3, "third": 0}, ran: []string{"first", "second"}, isHalted: true,
		},
		"job": {
			job:       releasedJob(timed("first", ""), timed("second", "")),
			exitCodes: map[string]int32{"first": 0, "second": 0}, ran: []string{"first", "second"}, jobEnds: batchv1.JobComplete,
		},
		"job-failing": {
			job:       releasedJob(timed("first", "exit 4"), timed("second", "")),
			exitCodes: map[string]int32{"first": 4, "second": 0}, ran: []string{"first"}, isHalted: true, jobEnds: batchv1.JobFailed,
		},
		"helper": releasedHelper(), "on-failure": releasedOnFailure(), "probes": releasedProbes(), "workdir": releasedWorkDir(), "messages": releasedMessages(),
		"names-a-task": releasedNamesATask(), "own": releasedOwn(), "platform": releasedPlatform(t),
	}
	for name, annotation := range map[string][2]string{
		"controller": {contract.HandoffAnnotation, contract.HandoffController}, "image": {contract.DeliveryAnnotation, contract.DeliveryImage},
	} {
		c := cases["plain"]
		c.pod = c.pod.DeepCopy()
		c.pod.Annotations = map[string]string{annotation[0]: annotation[1]}
		cases[name] = c
	}
	failing := cases["failing"]
	failing.pod = failing.pod.DeepCopy()
	failing.pod.Annotations = map[string]string{contract.HandoffAnnotation: contract.HandoffController}
	cases["controller-failing"] = failing
	failing.pod, failing.isOwn = nil, true
	failing.task = ownTask(timed("first", ""), timed("second", "exit 3"), timed("third", ""))
	failing.states = map[string]v1alpha1.StepState{"first": v1alpha1.StepSucceeded, "second": v1alpha1.StepFailed, "third": v1alpha1.StepSkipped}
	cases["own-failing"] = failing
	return cases
}

// timed returns a step that logs when its command begins and ends.
func timed(name, command string) corev1.Container { return harness.Shell(name, timedScript(command)) }

// timedScript runs a command between two lines with the seconds since the machine's start.
func timedScript(command string) string {
	return fmt.Sprintf(`read now _ </proc/uptime; echo "begin $now"; sleep 0.1
%s
read now _ </proc/uptime; echo "end $now"`, cmp.Or(command, ":"))
}

// readSpan reads the output of timedScript: the first begin and the last entry. The begin is 0 if the command did not run.
func readSpan(t *testing.T, log string) span {
	t.Helper()
	var s span
	for line := range strings.Lines(log) {
		var what string
		var at float64
		if _, err := fmt.Sscan(line, &what, &at); err != nil || what != "begin" && what != "end" {
			continue
		}
		if s.begin == 0 {
			s.begin = at
		}
		s.end = at
	}
	return s
}

func releasedPod(containers ...corev1.Container) *corev1.Pod {
	pod := harness.NewSequentialPod("", "", containers...)
	pod.Spec.AutomountServiceAccountToken = new(false) // the name of the token's volume is random
	pod.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	return pod
}

func releasedJob(containers ...corev1.Container) *batchv1.Job {
	job := newJob("", contract.SequentialLabel, "true", containers...)
	job.Spec.Template.Spec.AutomountServiceAccountToken = new(false)
	return job
}

func ownTask(steps ...corev1.Container) *v1alpha1.Task {
	task := harness.NewTask("", "", steps...)
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{
		AutomountServiceAccountToken: new(false), TerminationGracePeriodSeconds: new(int64(2)),
		Volumes: releasedPod().Spec.Volumes,
	}}
	return task
}

// releasedHelper has an order that begins at 0, because the first step waits until the helper is ready.
func releasedHelper() releasedCase {
	helper := harness.Shell("helper", "sleep 3; touch /s/ready; sleep 10; exit 0")
	helper.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/s/ready"}}}, PeriodSeconds: 1,
	}
	pod := releasedPod(
		mounting("s", "/s", timed("second", "")), mounting("s", "/s", helper), mounting("s", "/s", timed("first", "test -e /s/ready || exit 1")),
	)
	pod.Annotations = map[string]string{contract.StepsAnnotation: "first,second"}
	return releasedCase{pod: pod, exitCodes: map[string]int32{"first": 0, "helper": 0, "second": 0}, ran: []string{"first", "second"}}
}

// releasedOnFailure has a second step that the kubelet restarts after its first failure.
func releasedOnFailure() releasedCase {
	pod := releasedPod(timed("first", ""), mounting("s", "/s", timed("second", "mkdir /s/again || exit 0; exit 1")), timed("third", ""))
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	return releasedCase{pod: pod, exitCodes: map[string]int32{"first": 0, "second": 0, "third": 0}, ran: []string{"first", "second", "third"}}
}

// releasedProbes has probes that would end their steps if they counted before the steps' turn.
func releasedProbes() releasedCase {
	exec := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/tmp/up"}}}
	up := "sleep 1; touch /tmp/up; sleep 5"
	checked := timed("checked", up)
	checked.LivenessProbe = &corev1.Probe{ProbeHandler: exec, InitialDelaySeconds: 4, PeriodSeconds: 1, FailureThreshold: 1, TimeoutSeconds: 10}
	checked.ReadinessProbe = &corev1.Probe{ProbeHandler: exec, InitialDelaySeconds: 2, PeriodSeconds: 1}
	started := probed(timed("started", up), "test", "-e", "/tmp/up")
	started.StartupProbe = &corev1.Probe{ProbeHandler: exec, PeriodSeconds: 1, FailureThreshold: 60, TimeoutSeconds: 10}
	return releasedCase{
		pod:       releasedPod(timed("first", "sleep 6"), checked, started),
		exitCodes: map[string]int32{"first": 0, "checked": 0, "started": 0}, ran: []string{"first", "checked", "started"},
	}
}

// releasedWorkDir has a directory that the first step makes: as working directory of a command, a probe and a hook, as a subPath, and around
// another mount.
func releasedWorkDir() releasedCase {
	build := in("/s/src", probed(mounting("s", "/s", timed("build", `[ "$(pwd) $(cat f)" = "/s/src x" ] || exit 1; sleep 2`)), "test", "-e", "f"))
	build.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "f"}}}}
	nested := mounting("s", "/s", timed("nested", "touch /s/src/cache/f && cat /s/src/f || exit 1"))
	nested.VolumeMounts = append(nested.VolumeMounts, corev1.VolumeMount{Name: "cache", MountPath: "/s/src/cache"})
	pod := releasedPod(
		mounting("s", "/s", timed("clone", "mkdir -p /s/src/dist && echo x >/s/src/f && echo js >/s/src/dist/app.js || exit 1")),
		build,
		subPath("src/dist", "/dist", timed("upload", "cat /dist/app.js || exit 1")),
		nested,
	)
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	return releasedCase{
		pod:       pod,
		exitCodes: map[string]int32{"clone": 0, "build": 0, "upload": 0, "nested": 0}, ran: []string{"clone", "build", "upload", "nested"},
	}
}

// releasedMessages has steps whose agent leaves no record as the termination message, or leaves it elsewhere.
func releasedMessages() releasedCase {
	first, second, third := timed("first", "echo hello >/tmp/message"), timed("second", "exit 3"), timed("third", "")
	first.TerminationMessagePath, third.TerminationMessagePath = "/tmp/message", "/tmp/message"
	first.Lifecycle = &corev1.Lifecycle{StopSignal: new(corev1.SIGUSR1)}
	second.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	pod := releasedPod(first, second, third)
	pod.Spec.OS = &corev1.PodOS{Name: corev1.Linux} // stopSignal requires it
	pod.Spec.TerminationGracePeriodSeconds = new(int64(5))
	return releasedCase{pod: pod, exitCodes: map[string]int32{"first": 0, "second": 3, "third": 0}, ran: []string{"first", "second"}, isHalted: true}
}

// withOptions puts steps before the others of the Task: with retries, a timeout, onError and a script.
func withOptions(task *v1alpha1.Task) *v1alpha1.Task {
	flaky := v1alpha1.Step{Container: mounting("s", "/s", timed("flaky", "mkdir /s/again || exit 0; exit 1")), StepOptions: v1alpha1.StepOptions{Retries: new(int32(2))}}
	slow := v1alpha1.Step{
		Container:   timed("slow", "sleep 60"),
		StepOptions: v1alpha1.StepOptions{Timeout: &metav1.Duration{Duration: 2 * time.Second}, OnError: v1alpha1.OnErrorContinue},
	}
	script := v1alpha1.Step{Container: corev1.Container{Name: "script", Image: "busybox:1.28"}, Script: "#!/bin/sh\n" + timedScript("")}
	task.Spec.Steps = append([]v1alpha1.Step{flaky, slow, script}, task.Spec.Steps...)
	return task
}

func releasedNamesATask() releasedCase {
	task := withOptions(harness.NewTask("", ""))
	task.Spec.Suspend = true
	pod := releasedPod(corev1.Container{Name: "task", Image: "task"})
	pod.Labels = map[string]string{contract.TaskLabel: "names-a-task"}
	return releasedCase{
		pod: pod, task: task,
		exitCodes: map[string]int32{"flaky": 0, "slow": contract.ExitTimeout, "script": 0}, ran: []string{"flaky", "slow", "script"},
	}
}

func releasedOwn() releasedCase {
	task := withOptions(ownTask(timed("last", "")))
	task.Spec.Sidecars = []corev1.Container{harness.Shell("sidecar", "trap 'exit 0' TERM; while :; do sleep 0.1; done")}
	return releasedCase{
		task: task, isOwn: true,
		exitCodes: map[string]int32{"flaky": 0, "slow": contract.ExitTimeout, "script": 0, "last": 0}, ran: []string{"flaky", "slow", "script", "last"},
		states: map[string]v1alpha1.StepState{
			"flaky": v1alpha1.StepSucceeded, "slow": v1alpha1.StepFailed, "script": v1alpha1.StepSucceeded, "last": v1alpha1.StepSucceeded,
		},
	}
}

// releasedPlatform has a step whose image runs another command on each platform.
func releasedPlatform(t *testing.T) releasedCase {
	t.Helper()
	var entries []v1.Platform
	for _, architecture := range []string{"amd64", "arm64", "s390x"} {
		entries = append(entries, v1.Platform{OS: "linux", Architecture: architecture})
	}
	image := push(t, clusterRegistry+"/e2e/released:platforms", index(
		entry(entries[0], argvImage(t, entries[0], v1.Config{Entrypoint: []string{"sh", "-c", timedScript("echo amd64")}})),
		entry(entries[1], argvImage(t, entries[1], v1.Config{Entrypoint: []string{"sh", "-c", timedScript("echo arm64")}})),
		entry(entries[2], argvImage(t, entries[2], v1.Config{Entrypoint: []string{"false"}})),
	))
	return releasedCase{
		pod: releasedPod(timed("first", ""), corev1.Container{Name: "second", Image: image}), images: map[string]string{"second": image},
		exitCodes: map[string]int32{"first": 0, "second": 0}, ran: []string{"first", "second"},
	}
}
