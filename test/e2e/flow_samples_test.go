//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// flowSample is a sample with steps side by side, conditions, outputs or final steps, and one way in which it can end.
type flowSample struct {
	name    string
	sample  string
	replace []string // texts of the sample and what the test writes instead, in pairs
	act     func(t *testing.T, namespace string)
	phase   v1alpha1.TaskPhase // of the Task; empty: the sample is a Job that completes
	steps   []string           // as harness.StepLines returns them
	outputs map[string]string  // by step and key
	logs    []string           // steps
	want    string             // their logs, as a regular expression
}

func flowSamples() []flowSample {
	const succeeded, failed = v1alpha1.TaskSucceeded, v1alpha1.TaskFailed
	return []flowSample{
		{
			name: "changes that are approved", sample: "terraform.yaml", act: approve, phase: succeeded,
			steps: []string{"fetch Succeeded Completed 0", "plan Succeeded Completed 2", "approve Succeeded Completed 0", "apply Succeeded Completed 0"},
			logs:  []string{"plan", "apply"}, want: "to add: 1\nto add: 1\napplied\n",
		},
		{
			name: "no changes", sample: "terraform.yaml", replace: []string{"infrastructure.git", "unchanged.git"}, phase: succeeded,
			steps: []string{"fetch Succeeded Completed 0", "plan Succeeded Completed 0", "approve Skipped WhenFalse", "apply Skipped WhenFalse"},
			logs:  []string{"apply"},
		},
		{
			name: "orders of today", sample: "nothing-to-do.yaml", phase: succeeded,
			steps: []string{"look Succeeded Completed 0", "download Succeeded Completed 0", "load Succeeded Completed 0"},
			logs:  []string{"load"}, want: "2 orders\n",
		},
		{
			name: "nothing to do", sample: "nothing-to-do.yaml", replace: []string{"orders.example.com", "closed.example.com"}, phase: succeeded,
			steps: []string{"look Succeeded Finished 78", "download Skipped Skipped", "load Skipped Skipped"},
			logs:  []string{"load"},
		},
		{
			name: "a backup", sample: "backup.yaml", phase: succeeded,
			steps: []string{"dump Succeeded Completed 0", "compress Succeeded Completed 0", "upload Succeeded Completed 0", "notify Succeeded Completed 0"},
			logs:  []string{"upload", "notify"},
			want: `uploaded dump of orders to s3://backups.example.com/\d{4}-\d\d-\d\d.sql.gz` + "\n" +
				`to https://chat.example.com/hooks/backup: the backup of \d\d bytes is complete` + "\n",
		},
		{
			name: "no database", sample: "backup.yaml", replace: []string{"example.com/orders", "example.com/missing"}, phase: failed,
			steps: []string{"dump Failed Error 1", "compress Skipped Skipped", "upload Skipped Skipped", "notify Succeeded Completed 0"},
			logs:  []string{"notify"}, want: "to https://chat.example.com/hooks/backup: the step dump of the backup failed\n",
		},
		{
			name: "published", sample: "ci.yaml", phase: succeeded,
			steps: []string{
				"clone Succeeded Completed 0", "lint Succeeded Completed 0", "test Succeeded Completed 0", "scan Succeeded Completed 0",
				"build Succeeded Completed 0", "publish Succeeded Completed 0",
			},
			outputs: map[string]string{"clone COMMIT": "1a2b3c4", "test PUBLISH": "yes"},
			logs:    []string{"scan", "build", "publish"}, want: ciLogs,
		},
		{
			name: "not enough tests", sample: "ci.yaml", replace: []string{`"60"`, `"90"`}, phase: succeeded,
			steps: []string{
				"clone Succeeded Completed 0", "lint Succeeded Completed 0", "test Succeeded Completed 0", "scan Succeeded Completed 0",
				"build Succeeded Completed 0", "publish Skipped WhenFalse",
			},
			outputs: map[string]string{"clone COMMIT": "1a2b3c4", "test PUBLISH": "no"},
		},
		{
			name: "untidy code", sample: "ci.yaml", replace: []string{"value: main", "value: untidy"}, phase: failed,
			steps: []string{
				"clone Succeeded Completed 0", "lint Failed Error 1", "test Succeeded Completed 0", "scan Succeeded Completed 0",
				"build Succeeded Completed 0", "publish Succeeded Completed 0",
			},
			outputs: map[string]string{"clone COMMIT": "1a2b3c4", "test PUBLISH": "yes"},
		},
		{name: "a Job", sample: "ci-job.yaml", logs: []string{"scan", "build", "publish"}, want: ciLogs},
		{
			name: "a Job without enough tests", sample: "ci-job.yaml", replace: []string{`"60"`, `"90"`},
			logs: []string{"scan", "publish"}, want: "nothing critical\n",
		},
		{
			name: "trained on a claim", sample: "training.yaml", act: provideVolume, phase: succeeded,
			steps: []string{
				"download Succeeded Completed 0", "preprocess Succeeded Completed 0", "train Succeeded Completed 0", "evaluate Succeeded Completed 0",
			},
			outputs: map[string]string{"train SLOPE": "50", "train OFFSET": "-5800", "evaluate ERROR": "0"},
			logs:    []string{"evaluate"}, want: "the model is 0 g off\n",
		},
		{
			name: "a bad model", sample: "training.yaml", replace: []string{`"500"`, `"-1"`, "backoffLimit: 1", "backoffLimit: 0"}, act: provideVolume, phase: failed,
			steps: []string{
				"download Succeeded Completed 0", "preprocess Succeeded Completed 0", "train Succeeded Completed 0", "evaluate Failed Error 1",
			},
			outputs: map[string]string{"train SLOPE": "50", "train OFFSET": "-5800", "evaluate ERROR": "0"},
		},
	}
}

const ciLogs = "nothing critical\n" + `built with build .*-ldflags -X main.commit=1a2b3c4 -o server .` + "\n" +
	"pushed registry.example.com/app:1a2b3c4\n"

// TestFlowSamples proves that each sample ends as its comment describes, with programs that stand in for the real ones.
func TestFlowSamples(t *testing.T) {
	t.Parallel()
	for _, c := range flowSamples() {
		t.Run(c.sample+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			namespace := cluster.NewNamespace(t, "baseline")
			apply(t, namespace, c.sample, sampleVariant{standsIn: true, replace: c.replace})
			if c.act != nil {
				c.act(t, namespace)
			}
			prefix := awaitSample(t, namespace, c)
			if got := output(t, namespace, prefix, c.logs...); !regexp.MustCompile("^" + c.want + "$").MatchString(got) {
				t.Errorf("the steps' output (-want +got):\n%s", cmp.Diff(c.want, got))
			}
		})
	}
}

// awaitSample waits for the end of the Task or the Job, compares the status of the Task, and returns the name.
func awaitSample(t *testing.T, namespace string, c flowSample) string {
	t.Helper()
	if c.phase == "" {
		var jobs batchv1.JobList
		wait.For(t, "the Job to complete", func(ctx context.Context) error {
			if err := cluster.List(ctx, &jobs, client.InNamespace(namespace)); err != nil {
				return err
			}
			return jobIs(&jobs.Items[0], batchv1.JobComplete)
		})
		return jobs.Items[0].Name
	}
	task := onlyTask(t, namespace)
	status := cluster.AwaitTask(t, task, "the Task to end", harness.InPhase(v1alpha1.TaskSucceeded, v1alpha1.TaskFailed))
	if diff := cmp.Diff(c.phase, status.Phase); diff != "" {
		t.Errorf("phase (-want +got):\n%s\n%+v", diff, status.Conditions)
	}
	if diff := cmp.Diff(c.steps, harness.StepLines(status.Steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	outputs := map[string]string{}
	for _, step := range status.Steps {
		for key, value := range step.Outputs {
			outputs[step.Name+" "+key] = value
		}
	}
	delete(outputs, "compress SIZE") // it depends on gzip
	if diff := cmp.Diff(c.outputs, outputs); diff != "" && len(c.outputs)+len(outputs) > 0 {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	return task.Name
}

func onlyTask(t *testing.T, namespace string) *v1alpha1.Task {
	t.Helper()
	var tasks v1alpha1.TaskList
	if err := cluster.List(t.Context(), &tasks, client.InNamespace(namespace)); err != nil || len(tasks.Items) != 1 {
		t.Fatalf("there are %d Tasks: %v", len(tasks.Items), err)
	}
	return &tasks.Items[0]
}

// approve does what the comment of the sample says, once the step waits for it.
func approve(t *testing.T, namespace string) {
	t.Helper()
	task := onlyTask(t, namespace)
	cluster.AwaitTask(t, task, "the step to wait for the approval", func(status v1alpha1.TaskStatus) bool {
		return slices.ContainsFunc(status.Steps, func(step v1alpha1.StepStatus) bool {
			return step.Name == "approve" && step.State == v1alpha1.StepRunning
		})
	})
	kubectl(t, nil, "-n", namespace, "exec", task.Name, "-c", "approve", "--", "touch", "/workspace/approved")
}

// provideVolume creates a volume for the claim of the Task's workspace, because the test cluster has no StorageClass.
func provideVolume(t *testing.T, namespace string) {
	t.Helper()
	const capacity = "1Gi"
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: namespace + "-workspace"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(capacity)},
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			ClaimRef:    &corev1.ObjectReference{Namespace: namespace, Name: onlyTask(t, namespace).Name + "-workspace"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{
				Path: t.TempDir(), Type: new(corev1.HostPathDirectory),
			}},
		},
	}
	cluster.Make(t, volume)
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), volume); err != nil {
			t.Error(fmt.Errorf("deleting the volume: %w", err))
		}
	})
}
