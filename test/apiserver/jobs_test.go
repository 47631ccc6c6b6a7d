//go:build apiserver

package apiserver

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestJobIsTold proves that a failed step of a Job's Pod is an event on the Job, too: kubectl describe job would otherwise show
// BackoffLimitExceeded alone.
func TestJobIsTold(t *testing.T) {
	t.Parallel()
	namespace := cluster.NewNamespace(t, "privileged")
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "nightly", Namespace: namespace},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: sequentialLabel()},
			Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{echo("a"), echo("b")}},
		}},
	}
	cluster.Make(t, job)
	for _, name := range []string{"nightly-x", "nightly-y"} {
		pod := podWithLabels(namespace, name, sequentialLabel(), echo("a"), echo("b"))
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID, Controller: new(true)}}
		cluster.Make(t, pod)
		setStates(t, pod, corev1.PodRunning, running(), running())
		setStates(t, pod, corev1.PodRunning, ended(7), running())
		setStates(t, pod, corev1.PodFailed, ended(7), ended(0))
		wantEvents(t, pod, `Normal StepStarted: step "a" started`, `Warning StepFailed: step "a" failed with exit code 7`,
			`Warning Halted: no further step starts: step "a" failed with exit code 7`)
	}
	wantEvents(t, job, `Warning StepFailed: step "a" failed with exit code 7 in the Pod "nightly-x"`,
		`Warning StepFailed: step "a" failed with exit code 7 in the Pod "nightly-y"`)
}
