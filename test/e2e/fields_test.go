//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestScripts proves that a script runs with the interpreter in its first line, or /bin/sh, and with the step's args, and that the kubelet
// expands nothing in it.
func TestScripts(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ script, want string }{
		"plain":       {"echo \"$0 has $#: $1, $2\"\necho '$(HOSTNAME) $$'", "/taskflow/scripts/%d has 2: a, b c\n$(HOSTNAME) $$\n"},
		"interpreter": {"#!/bin/busybox sh\necho \"$2\"", "b c\n"},
		"awk":         {"#! /bin/awk -f\nBEGIN { print ARGV[1] \"-\" ARGV[2] }", "a-b c\n"},
	}
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "scripts")
	var names []string
	for name, test := range tests {
		names = append(names, name)
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{
			Container: corev1.Container{Name: name, Image: "busybox:1.28", Args: []string{"a", "b c"}}, Script: test.script,
		})
	}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	for i, name := range names {
		want := strings.ReplaceAll(tests[name].want, "%d", strconv.Itoa(i+1))
		if diff := cmp.Diff(want, cluster.Log(t, task.Namespace, task.Name, name)); diff != "" {
			t.Errorf("log of %s (-want +got):\n%s", name, diff)
		}
	}
}

// TestContinueAndRetries proves that the sequence continues after a failure with onError: Continue and the status reports it, and that
// retries run the command again in the same container.
func TestContinueAndRetries(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 3)
	task.Spec.Steps[0] = v1alpha1.Step{Container: harness.Shell("fails", "exit 7"), StepOptions: v1alpha1.StepOptions{OnError: v1alpha1.OnErrorContinue}}
	again := recordingStep(1, "")
	again.Command = []string{"sh", "-c", "echo x >>/journal/tries; test $(wc -l </journal/tries) = 3"}
	again.Retries = new(int32(5))
	task.Spec.Steps[1] = again
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	wantCondition(t, status, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonStepsSucceeded, `step "fails" failed with exit code 7, which does not fail the Task (onError: Continue)`)
	want := []string{"fails Failed Error 7", "step-2 Succeeded Completed 0, 2 retries", "step-3 Succeeded Completed 0"}
	if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if spans := readJournal(t, journal); len(spans) != 1 || spans[3].end == 0 {
		t.Errorf("the last step has not run: %v", spans)
	}
}

// TestRestartPolicyOnFailure proves that the kubelet restarts a failed step with restartPolicy OnFailure while later steps keep waiting.
func TestRestartPolicyOnFailure(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	task.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	again := recordingStep(0, "")
	again.Command = []string{"sh", "-c", "echo x >>/journal/tries; test $(wc -l </journal/tries) = 2"}
	task.Spec.Steps[0] = again
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	tries, err := os.ReadFile(filepath.Join(filepath.Dir(journal), "tries"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("x\nx\n", string(tries)); diff != "" {
		t.Errorf("runs of the first step (-want +got):\n%s", diff)
	}
	if spans := readJournal(t, journal); len(spans) != 1 || spans[2].end == 0 {
		t.Errorf("the second step has not run once: %v, %+v", spans, status)
	}
}

// TestBackoffLimit proves that a new Pod follows a failed one and begins with the first step. The status has the history, and both Pods
// stay.
func TestBackoffLimit(t *testing.T) {
	t.Parallel()
	task, _ := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	task.Spec.BackoffLimit = 2
	again := recordingStep(1, "")
	again.Command = []string{"sh", "-c", "echo x >>/journal/tries; test $(wc -l </journal/tries) = 2"}
	task.Spec.Steps[0], task.Spec.Steps[1] = v1alpha1.Step{Container: harness.Shell("first", "echo first")}, again
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if status.Attempt != 2 || status.PodName != task.Name+"-retry-1" || len(status.Attempts) != 1 {
		t.Fatalf("the status is %+v", status)
	}
	got := status.Attempts[0]
	got.CompletionTime = metav1.Time{}
	want := v1alpha1.AttemptStatus{PodName: task.Name, Reason: v1alpha1.ReasonStepFailed, Message: `step "step-2" failed with exit code 1`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	for _, pod := range []string{task.Name, status.PodName} {
		if diff := cmp.Diff("first\n", cluster.Log(t, task.Namespace, pod, "first")); diff != "" {
			t.Errorf("log of %s (-want +got):\n%s", pod, diff)
		}
	}
}

// TestSidecars proves that sidecars have started, and passed their startupProbe, before the first step, and that they end after the last
// step. Their exit codes don't matter.
func TestSidecars(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	sidecar := recordingStep(8, `touch /journal/ready; trap 'touch /journal/stopped; exit 3' TERM; while :; do sleep 0.1; done`).Container
	sidecar.Name = "helper"
	sidecar.StartupProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/journal/ready"}}},
		PeriodSeconds: 1,
	}
	task.Spec.Sidecars = []corev1.Container{sidecar}
	first := harness.Shell("first", "test -e /journal/ready && test ! -e /journal/stopped")
	first.VolumeMounts = sidecar.VolumeMounts
	task.Spec.Steps[0] = v1alpha1.Step{Container: first}
	task.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(10))
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	wait.For(t, "the sidecar to be ended, with SIGTERM", func(ctx context.Context) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("the Pod's phase is %s", pod.Status.Phase)
		}
		_, err := os.Stat(filepath.Join(filepath.Dir(journal), "stopped"))
		return err
	})
}

// TestProbes proves that the probes of a step start with its command: this one fails while the step waits, and would have killed it.
func TestProbes(t *testing.T) {
	t.Parallel()
	probe := &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/tmp/alive"}}},
		PeriodSeconds:    1,
		TimeoutSeconds:   10, // a busy machine takes long to start a process in a container
		FailureThreshold: 1,
	}
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 0)
	seen := filepath.Join(filepath.Dir(journal), "seen")
	second := harness.Shell("second", "touch /tmp/alive; until test -e /journal/seen; do sleep 0.1; done")
	second.LivenessProbe, second.ReadinessProbe = probe, probe
	second.VolumeMounts = recordingStep(1, "").VolumeMounts
	third := harness.Shell("third", "sleep 1; touch /tmp/alive; sleep 3")
	third.StartupProbe = probe.DeepCopy()
	third.LivenessProbe = probe
	delayed := harness.Shell("delayed", "sleep 2; touch /tmp/alive; sleep 4")
	delayed.LivenessProbe = probe.DeepCopy()
	delayed.LivenessProbe.InitialDelaySeconds = 4
	for _, step := range []corev1.Container{harness.Shell("first", "sleep 5"), second, third, delayed} {
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	cluster.Make(t, task)
	wait.For(t, "the second step to be ready", func(ctx context.Context) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
			return err
		}
		if !slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == "second" && c.Ready }) {
			return fmt.Errorf("the containers are %+v", pod.Status.ContainerStatuses)
		}
		return os.WriteFile(seen, nil, 0o600)
	})
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
}

// TestLeftovers proves that the processes which a step leaves behind are ended before the next step starts, even if the Pod's containers
// share their process namespace.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "leftovers",
		harness.Shell("leaves", "sleep 12345 & (setsid sleep 12345 &) ; exit 0"),
		harness.Shell("looks", "! ps | grep -v grep | grep 'sleep 12345'"))
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{ShareProcessNamespace: new(true)}}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
}

// TestTTL proves that a Task is deleted after ttlSecondsAfterFinished, counted from the end of its last step. A busy kubelet may report
// that end so late that the time is already over.
func TestTTL(t *testing.T) {
	t.Parallel()
	const ttl = 3
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "expires", harness.Shell("only", "true"))
	task.Spec.TTLSecondsAfterFinished = new(int32(ttl))
	tasks, err := cluster.Watch(t.Context(), &v1alpha1.TaskList{}, client.InNamespace(task.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer tasks.Stop()
	cluster.Make(t, task)
	wait.For(t, "the Task to be deleted", func(ctx context.Context) error {
		for {
			select {
			case event := <-tasks.ResultChan():
				seen, ok := event.Object.(*v1alpha1.Task)
				if !ok {
					t.Fatalf("the watch of Tasks has ended: %+v", event)
				}
				task = seen
				if event.Type == watch.Deleted {
					return nil
				}
			case <-ctx.Done():
				return fmt.Errorf("it is there, with the status %+v", task.Status)
			}
		}
	})
	if task.Status.Phase != v1alpha1.TaskSucceeded {
		t.Fatalf("it was deleted with the status %+v", task.Status)
	}
	if since := time.Since(task.Status.CompletionTime.Time); since < ttl*time.Second {
		t.Errorf("it was deleted after %s", since)
	}
}

// TestTransparency proves that a command behind the agent has the same surroundings as without it: arguments, environment, directory, user,
// groups, umask, open files, limits, standard input and terminal. The environment has one variable more, TASKFLOW_OUTPUT.
func TestTransparency(t *testing.T) {
	t.Parallel()
	const report = `
i=0; for a in "$@"; do i=$((i+1)); printf 'arg %s=[%s]\n' $i "$a"; done
env | grep -v -e ^HOSTNAME -e ^KUBERNETES -e ^SHLVL | sort
pwd; id; umask; ulimit -a
ls /proc/self/fd | wc -l
readlink /proc/self/fd/0
if test -t 0; then tty; stty -a; read -r _ _ _ _ group _ _ foreground _ </proc/$$$$/stat; test $group = $foreground; echo foreground: $?; else cat; fi`
	container := corev1.Container{
		Name:       "only",
		Image:      "busybox:1.28",
		Command:    []string{"sh", "-c", report, "sh"},
		Args:       []string{"$(GREETING)", "$$(GREETING)", "$$", "$(MISSING)", "", "two\nlines", "ü", "a  b", "--command", "*"},
		Env:        []corev1.EnvVar{{Name: "GREETING", Value: "hello"}, {Name: "EMPTY"}, {Name: "LINES", Value: "a\nb"}},
		WorkingDir: "/tmp/work",
	}
	withTerminal := *container.DeepCopy()
	withTerminal.Stdin, withTerminal.TTY = true, true
	for name, container := range map[string]corev1.Container{"without a terminal": container, "with a terminal": withTerminal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := cluster.NewNamespace(t, "baseline")
			security := &corev1.PodSecurityContext{RunAsUser: new(int64(1234)), RunAsGroup: new(int64(2345)), SupplementalGroups: []int64{77, 88}}
			var tasks []*v1alpha1.Task
			for _, delivery := range deliveries {
				task := harness.NewTask(namespace, "wrapped-"+delivery, container)
				task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{SecurityContext: security}}
				deliver(&task.Spec, delivery)
				cluster.Make(t, task)
				tasks = append(tasks, task)
			}
			plain := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: namespace},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{container}, SecurityContext: security, RestartPolicy: corev1.RestartPolicyNever},
			}
			cluster.Make(t, plain)
			wait.For(t, "the plain Pod to succeed", func(ctx context.Context) error {
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(plain), plain); err != nil {
					return err
				}
				if plain.Status.Phase != corev1.PodSucceeded {
					return fmt.Errorf("its phase is %s", plain.Status.Phase)
				}
				return nil
			})
			want := cluster.Log(t, namespace, "plain", "only")
			if !strings.Contains(want, "arg 1=[hello]") || !strings.Contains(want, "uid=1234") || strings.Contains(want, "/dev/pts") != container.TTY {
				t.Fatalf("the report is %q", want)
			}
			for _, task := range tasks {
				cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
				added := regexp.MustCompile(`(?m)^TASKFLOW_OUTPUT=/taskflow/run/1/output\r*\n`) // a terminal adds \r
				got := added.ReplaceAllString(cluster.Log(t, namespace, task.Name, "only"), "")
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("what the command finds (-plain +%s):\n%s", task.Name, diff)
				}
			}
		})
	}
}
