//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// jobIs returns an error that shows the Job's status, unless it has the condition.
func jobIs(job *batchv1.Job, condition batchv1.JobConditionType) error {
	for _, c := range job.Status.Conditions {
		if c.Type == condition && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return fmt.Errorf("the Job's status is %+v", job.Status)
}

// newJob returns a Job with a label on its Pods.
func newJob(namespace, label, value string, containers ...corev1.Container) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "job", Namespace: namespace},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{label: value}},
				Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever, Containers: containers, TerminationGracePeriodSeconds: new(int64(2)),
				},
			},
		},
	}
}

func awaitJob(t *testing.T, job *batchv1.Job, what string, check func() error) {
	t.Helper()
	wait.For(t, what, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return err
		}
		return check()
	})
}

// podsOf returns the Pods of a Job, the oldest first.
func podsOf(t *testing.T, job *batchv1.Job) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := cluster.List(t.Context(), &list, client.InNamespace(job.Namespace), client.MatchingLabels{"job-name": job.Name}); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items
}

// exitCodes returns the exit codes of a Pod's containers, in the order of the status.
func exitCodes(pod corev1.Pod) string {
	var all []string
	for _, status := range pod.Status.ContainerStatuses {
		code := "none"
		if end := status.State.Terminated; end != nil {
			code = strconv.Itoa(int(end.ExitCode))
		}
		all = append(all, status.Name+" "+code)
	}
	return strings.Join(all, ", ")
}

// TestPodFailurePolicy proves that a Job's podFailurePolicy sees the exit code of the failed step: 42 of the second step ends the Job at
// once, despite its backoffLimit. Skipped steps don't count as failures.
func TestPodFailurePolicy(t *testing.T) {
	t.Parallel()
	job := newJob(cluster.NewNamespace(t, "baseline"), contract.SequentialLabel, "true", harness.Shell("a", "true"), harness.Shell("b", "exit 42"), harness.Shell("c", "exit 43"))
	job.Spec.BackoffLimit = new(int32(3))
	job.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
		Action: batchv1.PodFailurePolicyActionFailJob,
		OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			ContainerName: new("b"), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{42},
		},
	}}}
	cluster.Make(t, job)
	awaitJob(t, job, "the Job to fail", func() error { return jobIs(job, batchv1.JobFailed) })
	for _, condition := range job.Status.Conditions {
		if condition.Type == batchv1.JobFailed && condition.Reason != batchv1.JobReasonPodFailurePolicy {
			t.Errorf("the Job failed for another reason: %+v", condition)
		}
	}
	pods := podsOf(t, job)
	if len(pods) != 1 {
		t.Fatalf("there are %d Pods, and not 1", len(pods))
	}
	if diff := cmp.Diff("a 0, b 42, c 0", exitCodes(pods[0])); diff != "" {
		t.Errorf("exit codes (-want +got):\n%s", diff)
	}
}

// TestJobBackoffLimit proves that a Job whose second step fails twice succeeds with its third Pod, and that each Pod begins with the first
// step.
func TestJobBackoffLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	mounts := []corev1.VolumeMount{{Name: "journal", MountPath: journalDir}}
	first := harness.Shell("a", "echo a >>/journal/runs")
	second := harness.Shell("b", "echo b >>/journal/runs; test $(grep -c b /journal/runs) = 3")
	third := harness.Shell("c", "echo c >>/journal/runs")
	first.VolumeMounts, second.VolumeMounts, third.VolumeMounts = mounts, mounts, mounts
	job := newJob(cluster.NewNamespace(t, "privileged"), contract.SequentialLabel, "true", first, second, third)
	job.Spec.BackoffLimit = new(int32(3))
	job.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "journal", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	cluster.Make(t, job)
	awaitJob(t, job, "the Job to complete", func() error { return jobIs(job, batchv1.JobComplete) })
	runs, err := os.ReadFile(filepath.Join(dir, "runs"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("a b a b a b c", strings.Join(strings.Fields(string(runs)), " ")); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	var codes []string
	for _, pod := range podsOf(t, job) {
		codes = append(codes, exitCodes(pod))
	}
	if diff := cmp.Diff([]string{"a 0, b 1, c 0", "a 0, b 1, c 0", "a 0, b 0, c 0"}, codes); diff != "" {
		t.Errorf("exit codes of the Pods (-want +got):\n%s", diff)
	}
	if job.Status.Failed != 2 || job.Status.Succeeded != 1 {
		t.Errorf("the Job's status is %+v", job.Status)
	}
}

// TestJobLifecycle proves that activeDeadlineSeconds of a Job ends the running step, that suspending a Job ends its Pods and resuming it
// begins with the first step, and that its TTL deletes it.
func TestJobLifecycle(t *testing.T) {
	t.Parallel()
	t.Run("activeDeadlineSeconds", func(t *testing.T) {
		t.Parallel()
		job := newJob(cluster.NewNamespace(t, "baseline"), contract.SequentialLabel, "true", harness.Shell("a", "true"), harness.Shell("b", "sleep 3600"), harness.Shell("c", "true"))
		job.Spec.ActiveDeadlineSeconds = new(int64(8))
		cluster.Make(t, job)
		awaitJob(t, job, "the Job to fail", func() error { return jobIs(job, batchv1.JobFailed) })
		for _, condition := range job.Status.Conditions {
			if condition.Type == batchv1.JobFailed && condition.Reason != batchv1.JobReasonDeadlineExceeded {
				t.Errorf("the Job failed for another reason: %+v", condition)
			}
		}
	})
	t.Run("suspend", func(t *testing.T) {
		t.Parallel()
		job := newJob(cluster.NewNamespace(t, "baseline"), contract.SequentialLabel, "true", harness.Shell("a", "sleep 3"), harness.Shell("b", "true"))
		cluster.Make(t, job)
		suspend := func(yes bool) {
			patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, yes))
			if err := cluster.Patch(t.Context(), job, patch); err != nil {
				t.Fatal(err)
			}
		}
		awaitJob(t, job, "a Pod", func() error {
			if job.Status.Active == 0 {
				return errors.New("there is none")
			}
			return nil
		})
		suspend(true)
		awaitJob(t, job, "the Job to be suspended", func() error {
			if len(podsOf(t, job)) > 0 {
				return errors.New("it has a Pod")
			}
			return jobIs(job, batchv1.JobSuspended)
		})
		suspend(false)
		awaitJob(t, job, "the Job to complete", func() error { return jobIs(job, batchv1.JobComplete) })
	})
	t.Run("ttlSecondsAfterFinished", func(t *testing.T) {
		t.Parallel()
		job := newJob(cluster.NewNamespace(t, "baseline"), contract.SequentialLabel, "true", harness.Shell("a", "true"), harness.Shell("b", "true"))
		job.Spec.TTLSecondsAfterFinished = new(int32(1))
		cluster.Make(t, job)
		wait.For(t, "the Job to go", func(ctx context.Context) error {
			err := cluster.Get(ctx, client.ObjectKeyFromObject(job), job)
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is still there"))
		})
	})
}

// TestJobBeforeItsTask proves that a Job may name a Task that doesn't exist yet: it retries, and runs when the Task is created.
func TestJobBeforeItsTask(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "baseline")
	job := newJob(namespace, contract.TaskLabel, "later", corev1.Container{Name: "task", Image: "task"})
	cluster.Make(t, job)
	wait.For(t, "the refusal", func(ctx context.Context) error {
		var events corev1.EventList
		if err := cluster.List(ctx, &events, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, event := range events.Items {
			if event.Reason == "FailedCreate" && strings.Contains(event.Message, `names the Task "later"`) {
				return nil
			}
		}
		return errors.New("no event has it")
	})
	task := harness.NewTask(namespace, "later", harness.Shell("a", "echo a"), harness.Shell("b", "echo b"))
	task.Spec.Suspend = true
	cluster.Make(t, task)
	awaitJob(t, job, "the Job to complete", func() error { return jobIs(job, batchv1.JobComplete) })
	if diff := cmp.Diff("a\nb\n", output(t, namespace, "job-", "a", "b")); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	// The API server adds the token to containers that the webhook has added.
	for _, container := range podsOf(t, job)[0].Spec.Containers {
		if !slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" }) {
			t.Errorf("the step %s has no token: %+v", container.Name, container.VolumeMounts)
		}
	}
	status := cluster.AwaitTask(t, task, "the Task to be suspended still", harness.InPhase(v1alpha1.TaskSuspended))
	if status.PodName != "" || len(status.Steps) > 0 {
		t.Errorf("the Task was touched: %+v", status)
	}
}
