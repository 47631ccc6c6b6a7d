package webhook

import (
	"context"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Path is where the webhook is served; config/webhook names it too.
const Path = "/mutate-pods"

// Handler answers the admission requests for new Pods.
type Handler struct {
	// Decoder reads the Pod of a request.
	Decoder admission.Decoder
	// Agent is what the webhook puts into Pods.
	Agent Agent
}

var _ admission.Handler = Handler{}

// Handle makes a Pod with steps sequential, and lets every other one pass as it is.
func (h Handler) Handle(ctx context.Context, request admission.Request) admission.Response {
	var pod corev1.Pod
	if err := h.Decoder.Decode(request, &pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	patch, err := plan(&pod, h.Agent)
	if err != nil {
		logf.FromContext(ctx).Info("Refused a Pod", "why", err.Error())
		return admission.Denied(err.Error())
	}
	response := admission.Allowed("")
	response.Patches = patch
	return response
}
