package webhook

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/util/json"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// TaskHandler answers the admission requests for Tasks with fields that the rules of the kind can't check. It never changes a Task, and its answer
// reveals nothing that the request does not have.
type TaskHandler struct{}

var _ admission.Handler = TaskHandler{}

// Handle rejects a Task whose steps can't work together.
func (TaskHandler) Handle(ctx context.Context, request admission.Request) admission.Response {
	var task v1alpha1.Task
	if err := json.Unmarshal(request.Object.Raw, &task); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if kind := task.GroupVersionKind(); !kind.Empty() && kind != v1alpha1.TaskKind {
		return admission.Errored(http.StatusBadRequest,
			fmt.Errorf("the webhook handles Tasks only, and got %s: fix the rules of its ValidatingWebhookConfiguration", kind))
	}
	if err := podspec.ValidateTask(&task); err != nil {
		logf.FromContext(ctx).Info("Rejected a Task", "reason", err.Error())
		return admission.Denied(err.Error())
	}
	return admission.Allowed("").WithWarnings(podspec.TaskWarnings(&task)...)
}
