package wait

import (
	"context"
	"fmt"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// ForTask polls a Task until its status is as wanted, and returns the status. If that takes too long, it fails the test and shows the status.
func ForTask(t *testing.T, cluster client.Reader, task *v1alpha1.Task, what string, wanted func(v1alpha1.TaskStatus) bool) v1alpha1.TaskStatus {
	t.Helper()
	For(t, what, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task); err != nil {
			return err
		}
		if !wanted(task.Status) {
			return fmt.Errorf("the status is %+v", task.Status)
		}
		return nil
	})
	return task.Status
}
