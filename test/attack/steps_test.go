//go:build e2e

package attack

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// The attacker is a step: a program that a user's Task or Pod runs, such as a test suite with a compromised dependency. It is root in its
// container, and may write to its own part of the run directory and to its termination message.

// forge is a script that writes a record of its own end into the step's directory, as the agent does.
const forge = `now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "{\"taskflow\":{\"finishedAt\":\"$now\",\"exitCode\":0,RECORD\"startedAt\":\"$now\"}}" >/taskflow/run/1/new
mv /taskflow/run/1/new /taskflow/run/1/record
sleep 3
`

// TestStepForgesASkip has the first step of a Job and of a Task claim that it was skipped, and that it succeeded. Neither completes unless
// the later steps have run.
func TestStepForgesASkip(t *testing.T) {
	t.Parallel()
	script := strings.Replace(forge, "RECORD", `\"reason\":\"Skipped\",\"message\":\"mine\",`, 1)
	steps := func() []corev1.Container {
		return []corev1.Container{harness.Shell("forger", script), harness.Shell("second", "echo ran"), harness.Shell("third", "echo ran")}
	}
	namespace := cluster.NewNamespace(t, "baseline")
	t.Run("Job", func(t *testing.T) {
		t.Parallel()
		pod := harness.NewSequentialPod(namespace, "", steps()...)
		job := &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "job"},
			Spec: batchv1.JobSpec{
				BackoffLimit: new(int32(0)),
				Template:     corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}, Spec: pod.Spec},
			},
		}
		cluster.Make(t, job)
		isComplete := false
		waited(t, 4*time.Minute, "end of the Job", func(ctx context.Context) (bool, error) {
			err := cluster.Get(ctx, client.ObjectKeyFromObject(job), job)
			for _, condition := range job.Status.Conditions {
				if condition.Status == corev1.ConditionTrue && (condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed) {
					isComplete = condition.Type == batchv1.JobComplete
					return true, err
				}
			}
			return false, err
		})
		var pods corev1.PodList
		if err := cluster.List(t.Context(), &pods, client.InNamespace(namespace), client.MatchingLabels{batchv1.JobNameLabel: job.Name}); err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			wantCompleteOnlyAfter(t, isComplete, pod.Namespace, pod.Name)
		}
	})
	t.Run("Task", func(t *testing.T) {
		t.Parallel()
		task := harness.NewTask(namespace, "task", steps()...)
		cluster.Make(t, task)
		waited(t, 4*time.Minute, "end of the Task", func(ctx context.Context) (bool, error) {
			err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task)
			return harness.InPhase(v1alpha1.TaskSucceeded, v1alpha1.TaskFailed)(task.Status), err
		})
		wantCompleteOnlyAfter(t, task.Status.Phase == v1alpha1.TaskSucceeded, namespace, task.Name)
	})
}

func wantCompleteOnlyAfter(t *testing.T, isComplete bool, namespace, pod string) {
	t.Helper()
	for _, step := range []string{"second", "third"} {
		if ran := cluster.Log(t, namespace, pod, step) == "ran\n"; isComplete && !ran {
			t.Errorf("it is complete, and the step %q never ran", step)
		}
	}
}

// TestStepForgesItsEnd has the first step claim that it succeeded, so that the next steps start beside it, and then fail. The Task fails,
// and its status reports for each step whether and when it ran.
func TestStepForgesItsEnd(t *testing.T) {
	t.Parallel()
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "task", harness.Shell("forger", strings.Replace(forge, "RECORD", "", 1)+"exit 3"), harness.Shell("second", "echo ran"), harness.Shell("third", "echo ran"))
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to end", harness.InPhase(v1alpha1.TaskSucceeded, v1alpha1.TaskFailed))
	if status.Phase != v1alpha1.TaskFailed {
		t.Errorf("the Task is %s although a step failed", status.Phase)
	}
	for _, step := range status.Steps[1:] {
		ran := cluster.Log(t, task.Namespace, task.Name, step.Name) == "ran\n"
		saysSo := step.State != v1alpha1.StepSkipped && step.StartedAt != nil && step.FinishedAt != nil
		if ran != saysSo {
			t.Errorf("the step %q ran: %t, and the status says %+v", step.Name, ran, step)
		}
	}
}

// message returns a script that leaves a record with these times as the termination message.
func message(finished, started string) string {
	return fmt.Sprintf(`printf '{"taskflow":{"finishedAt":"%s","exitCode":0,"startedAt":"%s"}}' >/dev/termination-log`, finished, started)
}

// TestStepForgesTimes has steps claim that they ran in 2001, in 2999, in year 9999 in a zone where it is year 10000, and that they ended
// before they started. The Task's times lie within those of its Pod, a Task with a TTL is kept for that time, and no duration is negative
// or endless.
func TestStepForgesTimes(t *testing.T) {
	t.Parallel()
	scrape := scraper(t)
	t.Run("Tasks", func(t *testing.T) {
		for name, script := range map[string]string{
			"past":         message("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
			"future":       message("2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
			"year-10000":   message("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59-14:00"),
			"before-zero":  message("0001-01-01T00:00:01+14:00", "0001-01-01T00:00:01+14:00"),
			"reversed":     message("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"),
			"many-retries": `printf '{"taskflow":{"finishedAt":"2001-01-01T00:00:00Z","exitCode":0,"startedAt":"2001-01-01T00:00:00Z","retries":-5}}' >/dev/termination-log`,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				task := harness.NewTask(cluster.NewNamespace(t, "baseline"), name, harness.Shell("forger", script), harness.Shell("second", script))
				task.Spec.TTLSecondsAfterFinished = new(int32(600))
				cluster.Make(t, task)
				cluster.AwaitTask(t, task, "the Task to end", harness.InPhase(v1alpha1.TaskSucceeded, v1alpha1.TaskFailed))
				created, now := task.CreationTimestamp.Time, time.Now().Add(2*time.Second)
				within := func(what string, value time.Time) {
					if value.Before(created.Add(-time.Second)) || value.After(now) {
						t.Errorf("%s is %s, and the Task is of %s", what, value, created)
					}
				}
				within("completionTime", task.Status.CompletionTime.Time)
				if length, err := time.ParseDuration(task.Status.Duration); err != nil || length < 0 || length > time.Minute {
					t.Errorf("duration is %q: %v", task.Status.Duration, err)
				}
				for _, step := range task.Status.Steps {
					if step.StartedAt == nil || step.FinishedAt == nil {
						t.Errorf("the step %q has no times: %+v", step.Name, step)
						continue
					}
					within("startedAt", step.StartedAt.Time)
					within("finishedAt", step.FinishedAt.Time)
					if step.FinishedAt.Before(step.StartedAt) {
						t.Errorf("the step %q ended before it started: %+v", step.Name, step)
					}
					if step.Retries < 0 {
						t.Errorf("the step %q has %d retries", step.Name, step.Retries)
					}
				}
				// The TTL isn't over although the controller has handled a later Task.
				later := harness.NewTask(task.Namespace, "later", harness.Shell("only", "true"))
				cluster.Make(t, later)
				cluster.AwaitTask(t, later, "a later Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
				if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
					t.Errorf("the Task is gone before its ttl: %v", err)
				}
			})
		}
	})
	metrics, _, err := scrape()
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range regexp.MustCompile(`(?m)^taskflow_step_\w+_sum\S* (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		if value, err := strconv.ParseFloat(sum[1], 64); err != nil || value < 0 || value > 1e7 {
			t.Errorf("a metric's sum is out of all reason: %s", sum[0])
		}
	}
}

// TestStepForgesTexts has steps leave terminal sequences, line breaks and zero bytes in their messages. None of them gets into the Task's
// status or its events, which users read in a terminal.
func TestStepForgesTexts(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"a-message": `printf '\033[2J\033[31mall is well\r\nSTATUS Succeeded\0\007\233end' >/dev/termination-log; exit 1`,
		"a-record": `printf '{"taskflow":{"finishedAt":"2026-01-01T00:00:00Z","exitCode":1,"reason":"TimedOut\\u001b[2J","message":"\\u001b[31m\\r\\n\\u0000\\u009b2Jend"}}' ` +
			`>/dev/termination-log; exit 1`,
		"a-start-error": `printf '{"taskflow":{"finishedAt":"2026-01-01T00:00:00Z","exitCode":127,"reason":"StartError","message":"\\u001b]0;title\\u0007\\n"}}' ` +
			`>/dev/termination-log; exit 127`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := harness.NewTask(cluster.NewNamespace(t, "baseline"), name, harness.Shell("forger", script), harness.Shell("second", "true"))
			cluster.Make(t, task)
			cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
			texts := map[string]string{}
			for _, step := range task.Status.Steps {
				texts["the reason of "+step.Name], texts["the message of "+step.Name] = step.Reason, step.Message
			}
			for _, condition := range task.Status.Conditions {
				texts["the condition "+condition.Type] = condition.Message
			}
			wait.For(t, "events", func(ctx context.Context) error {
				var events eventsv1.EventList
				if err := cluster.List(ctx, &events, client.InNamespace(task.Namespace)); err != nil {
					return err
				}
				told := false
				for _, event := range events.Items {
					if strings.Contains(event.ReportingController, "taskflow") {
						texts["the event "+event.Reason+" of "+event.Name] = event.Note
						told = told || event.Type == corev1.EventTypeWarning
					}
				}
				if !told {
					return errors.New("none tells of the failure")
				}
				return nil
			})
			for what, text := range texts {
				if strings.ContainsFunc(text, unicode.IsControl) {
					t.Errorf("%s has control characters: %q", what, text)
				}
			}
		})
	}
}

// TestStepForgesOtherSteps has a step write to everything that belongs to others: their records, the order, the agent. All writes fail.
func TestStepForgesOtherSteps(t *testing.T) {
	t.Parallel()
	const script = `for target in /taskflow/run/1/record /taskflow/run/3/record /taskflow/run/3/started /taskflow/run/x /etc/podinfo/order /etc/podinfo/..data/halt /taskflow/bin/agent; do
	if echo x 2>/dev/null >$target; then echo "wrote $target"; fi
	if ln -sf /taskflow/run/2/record $target 2>/dev/null; then echo "linked $target"; fi
done
for n in 1 3; do if mount -o remount,rw /taskflow/run/$n 2>/dev/null; then echo "mounted $n"; fi; done
echo tried`
	task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "task", harness.Shell("first", "true"), harness.Shell("forger", script), harness.Shell("third", "true"))
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if got := cluster.Log(t, task.Namespace, task.Name, "forger"); got != "tried\n" {
		t.Errorf("a step could do this to others: %s", got)
	}
	var pod corev1.Pod
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(task), &pod); err != nil {
		t.Fatal(err)
	}
	if got := pod.Annotations[contract.OrderAnnotation]; got != "3" {
		t.Errorf("the order is %q", got)
	}
}
