//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/wait"
)

const samples = "../../config/samples"

// sampleVariant is how a test applies a sample.
type sampleVariant struct {
	// standsIn replaces the images of the sample: see standIn.
	standsIn bool
	// replace holds texts of the sample and what the test writes instead, in pairs.
	replace []string
}

// apply creates all objects of a sample, one right after the other.
func apply(t *testing.T, namespace, sample string, variant sampleVariant) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(samples, sample))
	if err != nil {
		t.Fatal(err)
	}
	if variant.standsIn {
		makeStandIns(t, namespace)
	}
	text := strings.NewReplacer(variant.replace...).Replace(string(content))
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		object.SetNamespace(namespace)
		if variant.standsIn && slices.Contains([]string{"Task", "Job"}, object.GetKind()) {
			standIn(t, &object)
		}
		cluster.Make(t, &object)
	}
}

// output returns the logs of the steps, for each Pod whose name has the prefix.
func output(t *testing.T, namespace, prefix string, steps ...string) string {
	t.Helper()
	var pods corev1.PodList
	if err := cluster.List(t.Context(), &pods, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, pod := range pods.Items {
		if !strings.HasPrefix(pod.Name, prefix) {
			continue
		}
		var text strings.Builder
		for _, step := range steps {
			text.WriteString(cluster.Log(t, namespace, pod.Name, step))
		}
		all = append(all, text.String())
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

// TestSamples proves that each sample does what its comment describes. A sample without a case fails the test.
func TestSamples(t *testing.T) {
	t.Parallel()
	task := func(name string, phase v1alpha1.TaskPhase) func(context.Context, string) error {
		return func(ctx context.Context, namespace string) error {
			var task v1alpha1.Task
			if err := cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &task); err != nil {
				return err
			}
			if task.Status.Phase != phase {
				return fmt.Errorf("the status is %+v", task.Status)
			}
			return nil
		}
	}
	job := func(name string) func(context.Context, string) error {
		return func(ctx context.Context, namespace string) error {
			var job batchv1.Job
			if err := cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &job); err != nil {
				return err
			}
			return jobIs(&job, batchv1.JobComplete)
		}
	}
	anyJob := func(ctx context.Context, namespace string) error {
		var jobs batchv1.JobList
		if err := cluster.List(ctx, &jobs, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, job := range jobs.Items {
			if jobIs(&job, batchv1.JobComplete) == nil {
				return nil
			}
		}
		return fmt.Errorf("none of the %d Jobs has completed", len(jobs.Items))
	}
	pod := func(ctx context.Context, namespace string) error {
		var pod corev1.Pod
		if err := cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "in-order"}, &pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded {
			return fmt.Errorf("the Pod is %s", pod.Status.Phase)
		}
		return nil
	}
	cases := map[string]struct {
		ended  func(context.Context, string) error
		prefix string
		steps  []string
		want   string // a regular expression
	}{
		"task.yaml":         {task("example-taskflow", v1alpha1.TaskSucceeded), "example-taskflow", []string{"step1", "step2"}, "step1\nstep2\n"},
		"pod.yaml":          {pod, "in-order", []string{"report"}, "6\n"},
		"job.yaml":          {job("checked"), "checked", []string{"build", "check", "publish"}, "built\nchecked\npublished\n"},
		"indexed-job.yaml":  {job("shards"), "shards", []string{"prepare", "run"}, "shard 0 is prepared\nshard 0 has run\nshard 1 is prepared\nshard 1 has run\nshard 2 is prepared\nshard 2 has run\n"},
		"cronjob.yaml":      {anyJob, "every-minute", []string{"dump", "upload"}, "(dumped\nuploaded\n)+"},
		"cronjob-task.yaml": {anyJob, "nightly-backup", []string{"upload"}, `(to nightly: dump of \d{4}-\d\d-\d\d\n)+`},
		"failing.yaml":      {task("failing", v1alpha1.TaskFailed), "failing", []string{"build", "check"}, "built\nthe check has found something\n"},
		"timeout.yaml":      {task("too-slow", v1alpha1.TaskFailed), "too-slow", []string{"quick"}, "quick\n"},
		"sidecar.yaml":      {task("with-server", v1alpha1.TaskSucceeded), "with-server", []string{"ask", "ask-again"}, "hello\nhello\n"},
		"script.yaml":       {task("scripted", v1alpha1.TaskSucceeded), "scripted", []string{"plain", "interpreted"}, "2 arguments, the first is one\nsix times seven is 42\n"},
	}
	elsewhere := flowSamples()
	files, err := filepath.Glob(samples + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no samples: %v", err)
	}
	for _, file := range files {
		sample := filepath.Base(file)
		t.Run(sample, func(t *testing.T) {
			t.Parallel()
			c, known := cases[sample]
			if !known && slices.ContainsFunc(elsewhere, func(other flowSample) bool { return other.sample == sample }) {
				t.Skip("TestFlowSamples has it")
			}
			if !known {
				t.Fatal("this sample has no case: add one here")
			}
			namespace := cluster.NewNamespace(t, "baseline")
			apply(t, namespace, sample, sampleVariant{})
			wait.For(t, "the end of "+sample, func(ctx context.Context) error { return c.ended(ctx, namespace) })
			if got := output(t, namespace, c.prefix, c.steps...); !regexp.MustCompile("^" + c.want + "$").MatchString(got) {
				t.Errorf("the steps' output (-want +got):\n%s", cmp.Diff(c.want, got))
			}
		})
	}
}
