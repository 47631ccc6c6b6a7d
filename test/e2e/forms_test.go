//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// form is a way to run steps. The object that it returns has the name "steps".
type form func(namespace string, spec v1alpha1.TaskSpec) client.Object

// forms are the ways to run the same steps: a Task, and the annotation on a labelled Pod and on the template of a Job.
var forms = map[string]form{
	"Task": func(namespace string, spec v1alpha1.TaskSpec) client.Object {
		return &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "steps"}, Spec: spec}
	},
	"Pod": func(namespace string, spec v1alpha1.TaskSpec) client.Object {
		template := podTemplate(spec)
		template.Namespace, template.Name = namespace, "steps"
		return &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	},
	"Job": func(namespace string, spec v1alpha1.TaskSpec) client.Object {
		job := newJob(namespace, contract.SequentialLabel, "true")
		job.Name, job.Spec.Template = "steps", podTemplate(spec)
		return job
	},
}

// podTemplate returns the template of a labelled Pod that has the steps as its containers, and the steps' options in its annotation.
func podTemplate(spec v1alpha1.TaskSpec) corev1.PodTemplateSpec {
	template := corev1.PodTemplateSpec{}
	if spec.Template != nil {
		template = corev1.PodTemplateSpec{ObjectMeta: *spec.Template.Metadata.DeepCopy(), Spec: *spec.Template.Spec.DeepCopy()}
	}
	for _, step := range spec.Steps {
		template.Spec.Containers = append(template.Spec.Containers, *step.Container.DeepCopy())
	}
	if template.Spec.RestartPolicy == "" {
		template.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	metav1.SetMetaDataLabel(&template.ObjectMeta, contract.SequentialLabel, "true")
	metav1.SetMetaDataAnnotation(&template.ObjectMeta, contract.StepsAnnotation, stepsAnnotation(spec.Steps))
	return template
}

// stepsAnnotation returns the steps as the annotation of a Pod has them: as a list in YAML with the name and the options of each.
func stepsAnnotation(steps []v1alpha1.Step) string {
	type entry struct {
		Name                 string `json:"name"`
		v1alpha1.StepOptions `json:",inline"`
	}
	var entries []entry
	for _, step := range steps {
		entries = append(entries, entry{step.Name, step.StepOptions})
	}
	text, err := yaml.Marshal(entries)
	if err != nil {
		panic(err) // the API server gets the same types
	}
	return string(text)
}

// awaitEnd waits for the end of what a form returned, and reports whether it succeeded, in the words of its own status.
func awaitEnd(t *testing.T, object client.Object) (succeeded bool) {
	t.Helper()
	switch object := object.(type) {
	case *v1alpha1.Task:
		status := cluster.AwaitTask(t, object, "the end of the Task", func(status v1alpha1.TaskStatus) bool { return status.CompletionTime != nil })
		return status.Phase == v1alpha1.TaskSucceeded
	case *corev1.Pod:
		cluster.AwaitPod(t, object, corev1.PodSucceeded, corev1.PodFailed)
		return object.Status.Phase == corev1.PodSucceeded
	case *batchv1.Job:
		awaitJob(t, object, "the end of the Job", func() error {
			if jobIs(object, batchv1.JobFailed) == nil {
				return nil
			}
			return jobIs(object, batchv1.JobComplete)
		})
		return jobIs(object, batchv1.JobComplete) == nil
	}
	panic("no form makes such an object")
}

// awaitPodOf waits until what a form returned has a Pod of which the condition holds, and returns the Pod.
func awaitPodOf(t *testing.T, object client.Object, what string, holds func(corev1.Pod) error) (pod corev1.Pod) {
	t.Helper()
	wait.For(t, what, func(ctx context.Context) error {
		if job, ok := object.(*batchv1.Job); ok {
			pods := podsOf(t, job)
			if len(pods) != 1 {
				return fmt.Errorf("there are %d Pods", len(pods))
			}
			pod = pods[0]
		} else if err := cluster.Get(ctx, client.ObjectKeyFromObject(object), &pod); err != nil {
			return err
		}
		return holds(pod)
	})
	return pod
}

// hasEnded is a condition for awaitPodOf.
func hasEnded(pod corev1.Pod) error {
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		return fmt.Errorf("the Pod is %s: %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
	}
	return nil
}

// sharedDir returns a directory of the machine, and the template of a Pod with the volume "journal" that is this directory.
func sharedDir(t *testing.T) (dir string, template *v1alpha1.PodTemplate) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir, &v1alpha1.PodTemplate{Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64(1)),
		Volumes: []corev1.Volume{{
			Name: "journal", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}},
		}},
	}}
}

// step returns a step that runs the script, with the directory of sharedDir at journalDir.
func step(name, script string, options v1alpha1.StepOptions) v1alpha1.Step {
	container := harness.Shell(name, script)
	container.VolumeMounts = []corev1.VolumeMount{{Name: "journal", MountPath: journalDir}}
	return v1alpha1.Step{Container: container, StepOptions: options}
}
