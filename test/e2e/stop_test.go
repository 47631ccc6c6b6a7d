//go:build e2e

package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/oci"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestImageStopSignal proves that a step which the signal named in its image stops, while its Pod is deleted, releases no step even if it
// exits with 0. The next container is told later, because it has a preStop hook.
func TestImageStopSignal(t *testing.T) {
	t.Parallel()
	for _, signal := range []string{"SIGUSR1", "SIGWINCH"} {
		t.Run(signal, func(t *testing.T) {
			t.Parallel()
			short := strings.TrimPrefix(signal, "SIG")
			image := push(t, clusterRegistry+"/stops:"+strings.ToLower(short), argvImage(t, oci.HostPlatform(), v1.Config{StopSignal: signal}))
			task, journal := recordingTask(t, cluster.NewNamespace(t, "privileged"), 2)
			task.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(10))
			task.Spec.Steps[0] = recordingStep(0, "trap 'exit 0' "+short+"; echo >/journal/ready; while :; do sleep 0.1; done")
			task.Spec.Steps[0].Image, task.Spec.Steps[1].Image = image, image
			task.Spec.Steps[1].Lifecycle = &corev1.Lifecycle{
				PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sleep", "3"}}},
			}
			cluster.Make(t, task)
			awaitFirstStep(t, task)
			awaitFile(t, filepath.Join(filepath.Dir(journal), "ready"))
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: task.Name, Namespace: task.Namespace}}
			if err := cluster.Delete(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			wait.For(t, "the Pod to be gone", func(ctx context.Context) error {
				if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); !apierrors.IsNotFound(err) {
					return errors.Join(errors.New("it is there"), err)
				}
				return nil
			})
			if got := len(readJournal(t, journal)); got != 1 {
				t.Errorf("%d steps have begun, want 1", got)
			}
			status := cluster.AwaitTask(t, task, "the Task to fail", harness.InPhase(v1alpha1.TaskFailed))
			states := []v1alpha1.StepState{status.Steps[0].State, status.Steps[1].State}
			if diff := cmp.Diff([]v1alpha1.StepState{v1alpha1.StepFailed, v1alpha1.StepSkipped}, states); diff != "" {
				t.Errorf("states (-want +got):\n%s\n%+v", diff, status)
			}
		})
	}
}
