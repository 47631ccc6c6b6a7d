//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestHundredSteps proves that the largest Tasks run: a hundred steps side by side, a hundred in a chain, and a grid of ten by ten, in which each
// step follows the three steps beside its place in the row before.
func TestHundredSteps(t *testing.T) {
	t.Parallel()
	const most, width = 100, 10
	name := func(i int) string { return fmt.Sprintf("step-%d", i+1) }
	shapes := map[string]struct {
		dependsOn func(i int) []string
		stages    int
	}{
		"side by side": {func(int) []string { return alone }, 1},
		"chain":        {func(int) []string { return nil }, most},
		"grid": {func(i int) []string {
			names := []string{}
			for column := i%width - 1; column <= i%width+1; column++ {
				if i >= width && column >= 0 && column < width {
					names = append(names, name(i-i%width-width+column))
				}
			}
			return names
		}, width},
	}
	for shape, s := range shapes {
		t.Run(shape, func(t *testing.T) { // not side by side: the kubelet starts one container after another
			task := harness.NewTask(cluster.NewNamespace(t, "baseline"), "hundred")
			for i := range most {
				task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{
					Container: harness.Shell(name(i), "true"), StepOptions: options{DependsOn: s.dependsOn(i)},
				})
			}
			cluster.Make(t, task)
			for _, part := range []int{1, most / 2, most} { // each wait has the patience for a part
				cluster.AwaitTask(t, task, fmt.Sprintf("%d steps to have succeeded", part), func(status v1alpha1.TaskStatus) bool {
					passed := 0
					_, _ = fmt.Sscanf(status.Progress, "%d/", &passed)
					return passed >= part
				})
			}
			status := cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
			if diff := cmp.Diff([]any{"100/100", int32(s.stages)}, []any{status.Progress, status.Order}); diff != "" {
				t.Errorf("progress and order (-want +got):\n%s", diff)
			}
			for _, step := range status.Steps {
				if step.State != v1alpha1.StepSucceeded {
					t.Errorf("the step is %+v", step)
				}
			}
			t.Logf("it took %s", status.Duration)
		})
	}
}
