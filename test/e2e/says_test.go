//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestRunsWhileALaterImageIsMissing proves that a Task is Running, and its step has a start time, while a step runs in a Pod that is
// Pending because a later image can't be pulled.
func TestRunsWhileALaterImageIsMissing(t *testing.T) {
	t.Parallel()
	last := corev1.Container{Name: "last", Image: "docker.io/taskflow/nowhere:1", Command: []string{"x"}}
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "later", harness.Shell("first", "true"), harness.Shell("second", "sleep 300"), last)
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the second step to run", func(s v1alpha1.TaskStatus) bool {
		return len(s.Steps) == 3 && s.Steps[1].State == v1alpha1.StepRunning
	})
	if diff := cmp.Diff(v1alpha1.TaskRunning, status.Phase); diff != "" {
		t.Errorf("the phase (-want +got):\n%s", diff)
	}
	first, second := status.Steps[0], status.Steps[1]
	if first.Duration == "" || second.StartedAt == nil || first.FinishedAt == nil || second.StartedAt.Before(first.FinishedAt) {
		t.Errorf("the steps are %+v", status.Steps)
	}
	var pod corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &pod); err != nil {
		t.Fatal(err)
	}
	if pod.Status.Phase != corev1.PodPending {
		t.Errorf("the Pod is %s, which proves nothing", pod.Status.Phase)
	}
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionTrue, v1alpha1.ReasonStepRunning, `step "second" is running`)
}

// TestSaysWhatAPodWaitsFor proves that a Task names what keeps its Pod from starting, as a real kubelet and scheduler report it. If that
// stays missing, the Task fails and its Pod is told to end.
func TestSaysWhatAPodWaitsFor(t *testing.T) {
	secret := corev1.Volume{Name: "keys", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "nowhere"}}}
	claim := corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "nowhere"},
	}}
	slow := harness.Shell("db", "sleep 300")
	slow.StartupProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}, PeriodSeconds: 1, FailureThreshold: 300,
	}
	cases := map[string]struct {
		edit         func(*v1alpha1.TaskSpec)
		status       metav1.ConditionStatus
		reason, text string
		fails        bool
	}{
		"a Secret": {
			func(spec *v1alpha1.TaskSpec) {
				spec.Template.Spec.Volumes = []corev1.Volume{secret}
				spec.Steps[0].VolumeMounts = []corev1.VolumeMount{{Name: secret.Name, MountPath: "/keys"}}
			},
			metav1.ConditionFalse, "FailedMount", `secret "nowhere" not found`, true,
		},
		"a claim": {
			func(spec *v1alpha1.TaskSpec) { spec.Template.Spec.Volumes = []corev1.Volume{claim} },
			metav1.ConditionFalse, "Unschedulable", `persistentvolumeclaim "nowhere" not found`, false,
		},
		"a scheduler": {
			func(spec *v1alpha1.TaskSpec) { spec.Template.Spec.SchedulerName = "nobody" },
			metav1.ConditionFalse, v1alpha1.ReasonNoScheduler, `"nobody"`, false,
		},
		"an init container": {
			func(spec *v1alpha1.TaskSpec) {
				spec.Template.Spec.InitContainers = []corev1.Container{harness.Shell("prepare", "sleep 300")}
			},
			metav1.ConditionTrue, v1alpha1.ReasonInitContainerRunning, `init container "prepare" is running`, false,
		},
		"a sidecar": {
			func(spec *v1alpha1.TaskSpec) { spec.Sidecars = []corev1.Container{slow} },
			metav1.ConditionFalse, v1alpha1.ReasonSidecarNotStarted, `sidecar "db" has not started: its startupProbe has not succeeded`, false,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "waits", harness.Shell("only", "true"))
			task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(1))}}
			c.edit(&task.Spec)
			cluster.Make(t, task)
			status := cluster.AwaitTask(t, task, "the cause", func(s v1alpha1.TaskStatus) bool {
				condition := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgressing)
				return condition != nil && condition.Reason == c.reason
			})
			wantCondition(t, status, v1alpha1.ConditionProgressing, c.status, c.reason, c.text)
			if !c.fails {
				return
			}
			status = cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
			wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, c.reason, c.text)
			// The kubelet ends the Pod when its current attempt to mount the volume fails: up to two minutes later.
			wait.For(t, "the Pod to be told to end", func(ctx context.Context) error {
				var pod corev1.Pod
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
					return err
				}
				if got := ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0); got != 1 {
					return fmt.Errorf("its deadline is %d, and its status %+v", got, pod.Status)
				}
				return nil
			})
		})
	}
}

// TestJobSaysWhichStepFailed proves that `kubectl describe job` names the failed step and its exit code, and that `kubectl events` lists
// the events of the Pod in order.
func TestJobSaysWhichStepFailed(t *testing.T) {
	t.Parallel()
	job := newJob(cluster.NewNamespace(t, "baseline"), contract.SequentialLabel, "true", harness.Shell("build", "true"), harness.Shell("check", "exit 7"), harness.Shell("ship", "true"))
	cluster.Make(t, job)
	awaitJob(t, job, "the Job to fail", func() error { return jobIs(job, batchv1.JobFailed) })
	pod := podsOf(t, job)[0].Name
	wait.For(t, "the Job's event", func(context.Context) error {
		text := string(kubectl(t, nil, "-n", job.Namespace, "describe", "job", job.Name))
		if !strings.Contains(text, fmt.Sprintf("step %q failed with exit code 7 in the Pod %q", "check", pod)) {
			return fmt.Errorf("the Job is described as:\n%s", text)
		}
		return nil
	})
	wait.For(t, "the Pod's events, in order", func(context.Context) error { // describe sorts them by a time that newer events don't have
		all := string(kubectl(t, nil, "-n", job.Namespace, "events", "--for", "pod/"+pod))
		text := all
		for _, note := range []string{`step "build" succeeded`, `step "check" failed with exit code 7`} {
			_, after, found := strings.Cut(text, note)
			if !found {
				return fmt.Errorf("this is missing or not in order: %s:\n%s", note, all)
			}
			text = after
		}
		return nil
	})
}
