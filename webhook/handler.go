package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/controller"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/fair"
)

// deadline is how long an answer may take. The API server waits for 10 seconds (timeoutSeconds in config/webhook): what
// went wrong should be said before that. A single look-up ends sooner, and says more (entrypoint.MaxTimeout).
const deadline = 9500 * time.Millisecond

// Handler answers the admission requests for new Pods.
type Handler struct {
	// Agent is what the webhook puts into Pods.
	Agent Agent
	// ImageVolumes says whether every node can mount an image as a volume. It is asked where Agent.Delivery is DeliveryAuto.
	ImageVolumes func() bool
	// Tasks reads the Tasks that Pods name, from a cache.
	Tasks client.Reader
	// Live reads them from the API server: a Task that was created a moment ago is not in the cache yet.
	Live client.Reader
	// LargeTasks bounds, by namespace, how many Pods at a time are merged with a Task that the cache doesn't have. Nil: no bound.
	LargeTasks *fair.Limiter
	// Operator is the username that the Task controller has in admission requests.
	Operator string
	// Commands are those of the steps that have none.
	Commands controller.CommandResolver
}

var _ admission.Handler = Handler{}

// Unmutated answers the last webhooks of the configuration, which refuse a Pod that no replica has mutated. It doesn't read the request,
// because everybody may send one.
func Unmutated(w http.ResponseWriter, _ *http.Request) {
	// The API server shows the text of this status, and of few others, to the user.
	http.Error(w, "no replica of taskflow's webhook has made this Pod sequential in time: create the Pod again, and look into the operator's log if that doesn't help",
		http.StatusInternalServerError)
}

// Handle makes a Pod with steps sequential, and lets every other one pass as it is.
func (h Handler) Handle(ctx context.Context, request admission.Request) admission.Response {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	pod, err := parsePod(request.Object.Raw)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	d := &draft{pod: pod}
	defer func() {
		if d.release != nil {
			d.release()
		}
	}()
	if err := h.mutate(ctx, request, d); err != nil {
		logf.FromContext(ctx).Info("Refused a Pod", append(identity(pod), "why", err.Error())...)
		return admission.Denied(err.Error())
	}
	response := admission.Allowed("")
	response.Warnings = d.warnings
	if len(d.patch) > 0 {
		patch, err := d.patch.Marshal()
		if err != nil {
			return admission.Errored(http.StatusInternalServerError, err)
		}
		if err := checkPatch(patch); err != nil {
			return admission.Denied(err.Error())
		}
		response.Patch, response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
	return response
}

// parsePod does what admission.Decoder does, which decodes all of it once more to find out of what kind it is.
func parsePod(raw []byte) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	if kind := pod.GroupVersionKind(); !kind.Empty() && kind != corev1.SchemeGroupVersion.WithKind("Pod") {
		return nil, fmt.Errorf("the webhook is asked about %s, and knows Pods alone: correct the rules of its MutatingWebhookConfiguration", kind)
	}
	return &pod, nil
}

// identity is what tells a Pod that has no name yet: the prefix of its name, and who makes it.
func identity(pod *corev1.Pod) []any {
	var values []any
	if pod.Name == "" {
		values = append(values, "generateName", pod.GenerateName)
	}
	if owner := metav1.GetControllerOf(pod); owner != nil {
		values = append(values, "ownerKind", owner.Kind, "owner", owner.Name)
	}
	return values
}

func (h Handler) mutate(ctx context.Context, request admission.Request, d *draft) error {
	if err := checkLabel(d.pod); err != nil {
		return err
	}
	own := isTasks(d.pod) && request.UserInfo.Username == h.Operator
	if isSequential(d.pod) && request.UserInfo.Username != h.Operator {
		if err := checkOwner(d.pod); err != nil {
			return err
		}
	}
	if isSequential(d.pod) {
		if err := checkSize(d.pod); err != nil {
			return err
		}
	}
	if isSequential(d.pod) && !own && !isPlanned(d.pod) {
		if err := h.prepare(ctx, request, d); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errors.New("the webhook had no time left: create the Pod again, or make it smaller")
	}
	agent := h.Agent
	agent.ImageVolumes = agent.Delivery == DeliveryAuto && h.ImageVolumes()
	patch, err := plan(d.pod, agent)
	d.patch = append(d.patch, patch...)
	if err == nil && isSequential(d.pod) && !isPlanned(d.pod) {
		d.warnings = append(d.warnings, startWarnings(d.pod)...)
		d.warnings = append(d.warnings, probeWarnings(d.pod)...)
	}
	return err
}

// prepare brings a Pod of a user's to where one is that the Task controller has made: its steps are settled, and have commands.
func (h Handler) prepare(ctx context.Context, request admission.Request, d *draft) error {
	if err := checkUsers(d.pod); err != nil {
		return err
	}
	if name, named := d.pod.Labels[contract.TaskLabel]; named {
		task, err := h.task(ctx, client.ObjectKey{Namespace: request.Namespace, Name: name}, d)
		if err != nil {
			return err
		}
		if err := checkTaskSize(task); err != nil {
			return err
		}
		if err := d.useTask(request.Object.Raw, task); err != nil {
			return err
		}
		if err := checkSize(d.pod); err != nil {
			return err
		}
	}
	if err := d.sequence(); err != nil {
		return err
	}
	return d.resolve(ctx, h.Commands, request.Namespace)
}

// task returns the Task that a Pod names. The spec of a large one isn't in the cache: then the draft has to release its slot of LargeTasks.
func (h Handler) task(ctx context.Context, key client.ObjectKey, d *draft) (*v1alpha1.Task, error) {
	var task v1alpha1.Task
	err := h.Tasks.Get(ctx, key, &task)
	if err != nil || !controller.IsWhole(&task) { // the cache may also be behind, or not have begun
		if h.LargeTasks != nil {
			if h.LargeTasks.Acquire(ctx, key.Namespace) != nil {
				return nil, errors.New("the webhook is busy with other Pods that name large Tasks: create the Pod again")
			}
			d.release = func() { h.LargeTasks.Release(key.Namespace) }
		}
		task = v1alpha1.Task{}
		err = h.Live.Get(ctx, key, &task)
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("metadata.labels: %s names the Task %q, and the namespace %q has none of that name: create it, or correct the name",
			contract.TaskLabel, key.Name, key.Namespace)
	case err != nil:
		return nil, fmt.Errorf("the Task %q that the label %s names can't be read: %w; create the Pod again", key.Name, contract.TaskLabel, err)
	}
	return &task, nil
}
