//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/inotify"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestStepsRunWithoutTheOperator proves that the steps of a Pod hand over to each other without the operator, in order, and that steps with
// handoff: controller wait until the operator is back.
func TestStepsRunWithoutTheOperator(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	const steps = 4
	local, localJournal := pausingTask(t, namespace, "local", steps)
	remote, remoteJournal := pausingTask(t, namespace, "remote", steps)
	remote.Spec.Template.Metadata.Annotations = map[string]string{contract.HandoffAnnotation: contract.HandoffController}
	for _, task := range []*v1alpha1.Task{local, remote} {
		cluster.Make(t, task)
		awaitFirstStep(t, task)
	}

	start := stopOperator(t)
	for _, journal := range []string{localJournal, remoteJournal} {
		resume(t, journal)
	}
	wait.For(t, "the Pod to succeed without the operator", func(ctx context.Context) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(local), &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("the Pod's phase is %s", pod.Status.Phase)
		}
		return nil
	})
	wait.For(t, "the first step of the other Pod to end", func(context.Context) error {
		if readJournal(t, remoteJournal)[1].end == 0 {
			return errors.New("it has not ended")
		}
		return nil
	})
	if got := len(readJournal(t, remoteJournal)); got != 1 {
		t.Errorf("%d steps have begun though the controller is away, and not 1", got)
	}

	start()
	for task, journal := range map[*v1alpha1.Task]string{local: localJournal, remote: remoteJournal} {
		status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
		if wrong := disorder(readJournal(t, journal), steps); len(wrong) > 0 {
			t.Errorf("the steps of %s ran out of order:\n%s", task.Name, strings.Join(wrong, "\n"))
		}
		if diff := cmp.Diff(int32(steps), status.Order); diff != "" {
			t.Errorf("the order of %s (-want +got):\n%s", task.Name, diff)
		}
	}
}

// pausingTask is a recordingTask whose first step waits for resume.
func pausingTask(t *testing.T, namespace, name string, steps int) (task *v1alpha1.Task, journal string) {
	t.Helper()
	task, journal = recordingTask(t, namespace, steps)
	task.Name = name
	task.Spec.Steps[0] = recordingStep(0, held)
	return task, journal
}

func resume(t *testing.T, journal string) {
	t.Helper()
	letGo(t, filepath.Dir(journal))
}

func awaitFirstStep(t *testing.T, task *v1alpha1.Task) {
	t.Helper()
	cluster.AwaitTask(t, task, "the first step to run", func(status v1alpha1.TaskStatus) bool {
		return len(status.Steps) > 0 && status.Steps[0].State == v1alpha1.StepRunning
	})
}

// stopOperator stops the operator until start is called or the test ends.
func stopOperator(t *testing.T) (start func()) {
	t.Helper()
	scale := func(ctx context.Context, replicas int) error {
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))
		var failed []error
		for _, name := range operatorDeployments {
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: harness.OperatorNamespace, Name: name}}
			failed = append(failed, cluster.Patch(ctx, deployment, patch))
		}
		return errors.Join(failed...)
	}
	if err := scale(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := scale(ctx, 1); err != nil {
			t.Errorf("starting the operator again: %v", err)
		}
	})
	wait.For(t, "the operator to be gone", func(ctx context.Context) error {
		var pods corev1.PodList
		if err := cluster.List(ctx, &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("there are %d Pods of it", len(pods.Items))
		}
		return nil
	})
	return func() {
		t.Helper()
		if err := scale(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		wait.For(t, "the operator to be back", rolledOut)
	}
}

// TestStepsCannotForgeTheOrder proves that no step can write another's record or outputs, release a later step or change the agent. Everything except
// its own directory is read-only, for root as well.
func TestStepsCannotForgeTheOrder(t *testing.T) {
	t.Parallel()
	const record = `{"taskflow":{"finishedAt":"2026-01-01T00:00:00Z","exitCode":0}}`
	const forge = `
for target in /taskflow/run/1/record /taskflow/run/1/output /taskflow/run/2/record /taskflow/run/2/output /taskflow/run/4/record /taskflow/run/4/output /taskflow/run/x /taskflow/run/record /etc/podinfo/order /etc/podinfo/..data/order /taskflow/bin/agent; do
	if echo '` + record + `' 2>/dev/null >$target; then echo "wrote $target"; fi
	if test -e $target && rm -f $target 2>/dev/null; then echo "removed $target"; fi
done
for directory in /taskflow/run/1 /taskflow/run/3 /taskflow/run/4; do
	if mv $directory $directory.gone 2>/dev/null; then echo "moved $directory"; fi
done
if mkdir /taskflow/run/9 2>/dev/null; then echo "made a directory"; fi
echo tried; sleep 1`
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 4)
	task.Spec.Steps[2] = recordingStep(2, forge)
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if wrong := disorder(readJournal(t, journal), 4); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
	if diff := cmp.Diff("tried\n", cluster.Log(t, task.Namespace, status.PodName, "step-3")); diff != "" {
		t.Errorf("what a step could do to the others (-want +got):\n%s", diff)
	}
}

// TestEndedStepIsNotRunAgain proves that a container which the kubelet restarts after its step has ended doesn't run the command again, and
// that the step's end stays as it was. The step's command leaves the record here, because the agent's exit follows its own record too soon
// to be killed in between.
func TestEndedStepIsNotRunAgain(t *testing.T) {
	t.Parallel()
	const leaveRecord = `echo '{"taskflow":{"finishedAt":"2026-01-01T00:00:00Z","exitCode":0}}' >/taskflow/run/1/record; echo >/journal/left; sleep 1000`
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
	task.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	task.Spec.Steps[0] = recordingStep(0, leaveRecord)
	task.Spec.Steps[1] = recordingStep(1, "")
	cluster.Make(t, task)
	awaitFile(t, filepath.Join(filepath.Dir(journal), "left"))
	killAgent(t, task)
	status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if diff := cmp.Diff(new(int32(0)), status.Steps[0].ExitCode); diff != "" {
		t.Errorf("exit code of the first step (-want +got):\n%s", diff)
	}
	spans := readJournal(t, journal) // fails if a step begins twice
	if spans[1].begin == 0 || spans[1].end != 0 || spans[2].end == 0 {
		t.Errorf("the journal has %v, and not the beginning of step 1 and the whole of step 2", spans)
	}
	var pod corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: task.Namespace, Name: status.PodName}, &pod); err != nil {
		t.Fatal(err)
	}
	for _, container := range pod.Status.ContainerStatuses {
		if container.Name == "step-1" && container.RestartCount != 1 {
			t.Errorf("the container was started again %d times, and not once", container.RestartCount)
		}
	}
	if got := cluster.Log(t, task.Namespace, status.PodName, "step-1"); !strings.Contains(got, "and is not run again") {
		t.Errorf("the log says %q", got)
	}
}

// TestInotifyIsExhausted proves that steps run in order although other Pods have used up the inotify instances of their user (128 by
// default).
func TestInotifyIsExhausted(t *testing.T) {
	t.Parallel()
	const uid = 45678
	release, err := inotify.Exhaust(uid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 5)
	task.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(uid)), RunAsGroup: ptr.To(int64(uid))}
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if wrong := disorder(readJournal(t, journal), 5); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
}
