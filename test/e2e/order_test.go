//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// journalDir is the directory with the journal in each step: a file of the machine that all steps append to.
const journalDir = "/journal"

// recordingTask returns a Task whose steps write into a journal when they begin and when they end.
func recordingTask(t *testing.T, namespace string, steps int) (task *v1alpha1.Task, journal string) {
	t.Helper()
	dir, template := sharedDir(t)
	task = &v1alpha1.Task{
		ObjectMeta: metav1.ObjectMeta{Name: "recording", Namespace: namespace},
		Spec:       v1alpha1.TaskSpec{Template: template},
	}
	for i := range steps {
		task.Spec.Steps = append(task.Spec.Steps, recordingStep(i, ""))
	}
	return task, filepath.Join(dir, "journal")
}

// recordingStep returns a step that runs a command between its two entries.
func recordingStep(i int, command string) v1alpha1.Step {
	const script = `read now _ </proc/uptime; echo "begin $1 $now" >>/journal/journal; sleep 0.1; %s
read now _ </proc/uptime; echo "end $1 $now" >>/journal/journal`
	return v1alpha1.Step{Container: corev1.Container{
		Name:         fmt.Sprintf("step-%d", i+1),
		Image:        "busybox:1.28",
		Command:      []string{"sh", "-c", fmt.Sprintf(script, command), "sh", strconv.Itoa(i + 1)},
		VolumeMounts: []corev1.VolumeMount{{Name: "journal", MountPath: journalDir}},
	}}
}

// span is when a step ran, in seconds since the machine's start, to a hundredth (proc_uptime(5)). 0: never.
type span struct{ begin, end float64 }

func readJournal(t *testing.T, journal string) map[int]span {
	t.Helper()
	content, err := os.ReadFile(journal)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	spans := map[int]span{}
	for line := range strings.Lines(string(content)) {
		var what string
		var step int
		var at float64
		if _, err := fmt.Sscan(line, &what, &step, &at); err != nil {
			t.Fatalf("journal entry %q: %v", line, err)
		}
		s := spans[step]
		switch {
		case what == "begin" && s.begin == 0:
			s.begin = at
		case what == "end" && s.end == 0:
			s.end = at
		default:
			t.Errorf("step %d has a second entry %q", step, what)
		}
		spans[step] = s
	}
	return spans
}

// disorder lists the violations of the order: missing steps, and steps that began before the previous step had ended.
func disorder(spans map[int]span, steps int) []string {
	var wrong []string
	for step := 1; step <= steps; step++ {
		s := spans[step]
		if s.begin == 0 || s.end == 0 {
			wrong = append(wrong, fmt.Sprintf("step %d has not run from begin to end", step))
		}
		if step > 1 && s.begin < spans[step-1].end {
			wrong = append(wrong, fmt.Sprintf("step %d began before step %d had ended", step, step-1))
		}
	}
	return wrong
}

// TestStepsRunOneAfterAnother proves that the steps of a Task run one after another, in order, and each once, by the steps' own clock.
func TestStepsRunOneAfterAnother(t *testing.T) {
	t.Parallel()
	test := func(steps int, delivery string) {
		t.Run(fmt.Sprint(delivery, " ", steps), func(t *testing.T) {
			t.Parallel()
			task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), steps)
			deliver(&task.Spec, delivery)
			cluster.Make(t, task)
			status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
			if wrong := disorder(readJournal(t, journal), steps); len(wrong) > 0 {
				t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
			}
			if diff := cmp.Diff(fmt.Sprintf("%d/%d", steps, steps), status.Progress); diff != "" {
				t.Errorf("progress (-want +got):\n%s", diff)
			}
			for i, step := range status.Steps {
				if step.State != v1alpha1.StepSucceeded || step.StartedAt == nil || step.FinishedAt == nil {
					t.Errorf("step %d has the status %+v", i+1, step)
				}
			}
		})
	}
	for _, delivery := range deliveries {
		for _, steps := range []int{1, 3, 20} {
			test(steps, delivery)
		}
	}
}

// TestBrokenGateIsSeen proves that the check of the order can fail: with an agent that ignores its gate, the same steps overlap.
func TestBrokenGateIsSeen(t *testing.T) {
	defer useBrokenAgent(t)()
	for _, steps := range []int{3, 20} {
		task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), steps)
		for i := range task.Spec.Steps { // long enough to overlap on a busy machine, whose kubelet starts one container after another
			task.Spec.Steps[i] = recordingStep(i, "sleep 3")
		}
		cluster.Make(t, task)
		cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
		if wrong := disorder(readJournal(t, journal), steps); len(wrong) == 0 {
			t.Errorf("%d steps behind a gate that is always open were found to be in order", steps)
		}
	}
}

// useBrokenAgent lets the operator deliver brokenagent until putBack is called. No other test may get it.
func useBrokenAgent(t *testing.T) (putBack func()) {
	t.Helper()
	image := os.Getenv("BROKEN_AGENT_IMAGE")
	if image == "" {
		t.Fatal("BROKEN_AGENT_IMAGE is not set: run `make test`")
	}
	return changeOperator(t, func(operator *corev1.Container) { setFlag(operator, "--agent-image", image) })
}

// setFlag sets one of the operator's flags.
func setFlag(operator *corev1.Container, flag, value string) {
	operator.Args = append(withoutFlag(operator.Args, flag), flag+"="+value)
}

// withoutFlag removes a flag, so that it has its default.
func withoutFlag(args []string, flag string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, flag+"=") })
}

// changeOperator rolls out a changed operator, until putBack is called or the test ends.
func changeOperator(t *testing.T, change func(operator *corev1.Container)) (putBack func()) {
	t.Helper()
	set := func(ctx context.Context, container corev1.Container) error {
		for _, name := range operatorDeployments {
			var deployment appsv1.Deployment
			if err := cluster.Get(ctx, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: name}, &deployment); err != nil {
				return err
			}
			before := deployment.DeepCopy()
			deployment.Spec.Template.Spec.Containers[0] = container
			if err := cluster.Patch(ctx, &deployment, client.MergeFrom(before)); err != nil {
				return err
			}
		}
		return nil
	}
	old := installedOperator(t)
	changed := *old.DeepCopy()
	change(&changed)
	if err := set(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	restore := func(ctx context.Context) error { return set(ctx, old) }
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := restore(ctx); err != nil {
			t.Errorf("putting the operator back: %v", err)
		}
	})
	wait.For(t, "another operator", rolledOut)
	return func() {
		t.Helper()
		if err := restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		wait.For(t, "the operator to be back", rolledOut)
	}
}

// TestFailingStep proves that a failed step ends the sequence: later commands never run, the Task reports the step and its exit code, and
// the Pod stays with its logs.
func TestFailingStep(t *testing.T) {
	t.Parallel()
	task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 4)
	task.Spec.Steps[1] = recordingStep(1, "echo found a bug; exit 42")
	cluster.Make(t, task)
	status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))

	spans := readJournal(t, journal)
	if len(spans) != 2 || spans[1].end == 0 || spans[2].end != 0 {
		t.Errorf("the journal has %v, and not step 1 whole and step 2 up to its exit", spans)
	}
	want := []string{"step-1 Succeeded Completed 0", "step-2 Failed Error 42", "step-3 Skipped Skipped", "step-4 Skipped Skipped"}
	if diff := cmp.Diff(want, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	wantCondition(t, status, v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonStepFailed, `step "step-2" failed with exit code 42`)

	// The waiting agents see the halt, so the Pod ends by itself, and it stays.
	wait.For(t, "the Pod to end", func(ctx context.Context) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("the Pod's phase is %s", pod.Status.Phase)
		}
		for _, container := range pod.Status.ContainerStatuses[2:] {
			if end := container.State.Terminated; end == nil || end.ExitCode != 0 {
				t.Errorf("the skipped step %s ended with %+v, and not with exit code 0", container.Name, container.State)
			}
		}
		return nil
	})
	if diff := cmp.Diff("found a bug\n", cluster.Log(t, task.Namespace, status.PodName, "step-2")); diff != "" {
		t.Errorf("log of the failed step (-want +got):\n%s", diff)
	}
	if got := len(readJournal(t, journal)); got != 2 {
		t.Errorf("%d steps have run at the end, and not 2", got)
	}
}
