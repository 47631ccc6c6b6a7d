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
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/entrypoint"
	"github.com/taskflow/taskflow-operator/internal/fair"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// deadline bounds the time of an answer. The API server waits for 10 seconds (timeoutSeconds in config/webhook); the user should read what went
// wrong before that. A single look-up ends sooner, and says more (entrypoint.MaxTimeout).
const deadline = 9500 * time.Millisecond

// Handler answers the admission requests for new Pods.
type Handler struct {
	// Agent configures how the agent gets into Pods.
	Agent podspec.Agent
	// ImageVolumes reports whether every node can mount an image as a volume. Only podspec.DeliveryAuto needs it.
	ImageVolumes func() bool
	// Tasks reads the Tasks that Pods name, from a cache.
	Tasks client.Reader
	// Live reads them from the API server, because the cache may not have a Task yet that was just created.
	Live client.Reader
	// LargeTasks bounds, by namespace, how many Pods at a time are merged with a Task that the cache doesn't have. Nil: no bound.
	LargeTasks *fair.Limiter
	// Operator is the username of the Task controller in admission requests.
	Operator string
	// Commands resolves the commands of images, for the steps that have none.
	Commands CommandResolver
}

// CommandResolver finds out which command an image runs (entrypoint.Resolver).
type CommandResolver interface {
	Resolve(ctx context.Context, request entrypoint.Request) (entrypoint.Command, error)
}

var _ admission.Handler = Handler{}

// Unmutated answers the last webhooks of the configuration, which reject a Pod that no replica has mutated. It doesn't read the request, because
// anyone may send one.
func Unmutated(w http.ResponseWriter, _ *http.Request) {
	// The API server shows the text of this status, and of few others, to the user.
	http.Error(w, "no replica of taskflow's webhook mutated this Pod in time: create the Pod again, and check the operator's log if that doesn't help",
		http.StatusInternalServerError)
}

// Handle gates the steps of a sequential Pod, and admits every other Pod unchanged.
func (h Handler) Handle(ctx context.Context, request admission.Request) admission.Response {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	pod, err := parsePod(request.Object.Raw)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	patch, warnings, err := h.mutate(ctx, request, pod)
	if err != nil {
		logf.FromContext(ctx).Info("Rejected a Pod", append(identity(pod), "reason", err.Error())...)
		return admission.Denied(err.Error())
	}
	response := admission.Allowed("").WithWarnings(warnings...)
	if len(patch) > 0 {
		response.Patch, response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
	return response
}

// parsePod decodes a Pod as admission.Decoder does, without decoding it once more to find its kind.
func parsePod(raw []byte) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	if kind := pod.GroupVersionKind(); !kind.Empty() && kind != corev1.SchemeGroupVersion.WithKind("Pod") {
		return nil, fmt.Errorf("the webhook handles Pods only, and got %s: fix the rules of its MutatingWebhookConfiguration", kind)
	}
	return &pod, nil
}

// identity returns log values that identify a Pod without a name: the prefix of its name, and its controller.
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

// mutate returns the patch that gates the Pod, and warnings for the user. An error rejects the Pod.
func (h Handler) mutate(ctx context.Context, request admission.Request, pod *corev1.Pod) (patch []byte, warnings []string, err error) {
	mutation, err := podspec.NewMutation(request.Object.Raw, pod, request.UserInfo.Username == h.Operator)
	if err != nil {
		return nil, nil, err
	}
	var task *v1alpha1.Task
	if name, isNeeded := mutation.TaskName(); isNeeded {
		var release func()
		task, release, err = h.readTask(ctx, client.ObjectKey{Namespace: request.Namespace, Name: name})
		defer release()
		if err != nil {
			return nil, nil, err
		}
	}
	unresolved, err := mutation.Complete(task)
	if err != nil {
		return nil, nil, err
	}
	commands, err := h.resolve(ctx, request.Namespace, &pod.Spec, unresolved)
	if err != nil {
		return nil, nil, err
	}
	if ctx.Err() != nil {
		return nil, nil, errors.New("the webhook ran out of time: create the Pod again, or make it smaller")
	}
	agent := h.Agent
	agent.ImageVolumes = agent.Delivery == podspec.DeliveryAuto && h.ImageVolumes()
	if err := mutation.Gate(agent, commands); err != nil || len(mutation.Patch) == 0 {
		return nil, mutation.Warnings, err
	}
	patch, err = mutation.Patch.Marshal()
	if err != nil {
		return nil, nil, err
	}
	return patch, mutation.Warnings, checkPatch(patch)
}

// resolve returns the commands of containers by their names. It asks for all at once, because an admission has little time.
func (h Handler) resolve(ctx context.Context, namespace string, pod *corev1.PodSpec, unresolved []*corev1.Container) (map[string]podspec.Command, error) {
	if len(unresolved) == 0 {
		return nil, nil
	}
	requests := make([]entrypoint.Request, len(unresolved))
	for i, container := range unresolved {
		requests[i] = entrypoint.RequestFor(namespace, pod, container)
	}
	found, failed := entrypoint.ResolveAll(ctx, h.Commands.Resolve, requests)
	commands := make(map[string]podspec.Command, len(unresolved))
	for i, container := range unresolved {
		switch {
		case failed[i] != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("the container %q: the registry did not return the command of the image %q in time: set command", container.Name, container.Image)
		case failed[i] != nil:
			return nil, fmt.Errorf("the container %q: %w", container.Name, failed[i])
		}
		command, args := found[i].Fill(container.Args)
		commands[container.Name] = podspec.Command{Command: command, Args: args, Image: found[i].Image}
	}
	return commands, nil
}

// readTask returns the Task that a Pod names. The caller has to call release when it no longer needs the Task. The cache doesn't hold the spec of
// a large Task, and such a Task takes a slot of LargeTasks.
func (h Handler) readTask(ctx context.Context, key client.ObjectKey) (task *v1alpha1.Task, release func(), err error) {
	task, release = &v1alpha1.Task{}, func() {}
	err = h.Tasks.Get(ctx, key, task)
	if err != nil || !podspec.IsWhole(task) { // the cache may also be behind, or not have started
		if h.LargeTasks != nil {
			if h.LargeTasks.Acquire(ctx, key.Namespace) != nil {
				return nil, release, errors.New("the webhook is busy with other Pods that name large Tasks: create the Pod again")
			}
			release = func() { h.LargeTasks.Release(key.Namespace) }
		}
		task = &v1alpha1.Task{}
		err = h.Live.Get(ctx, key, task)
	}
	switch {
	case apierrors.IsNotFound(err):
		err = fmt.Errorf("metadata.labels: %s names the Task %q, which doesn't exist in the namespace %q: create it, or fix the name",
			contract.TaskLabel, key.Name, key.Namespace)
	case err != nil:
		err = fmt.Errorf("the Task %q that the label %s names can't be read: %w; create the Pod again", key.Name, contract.TaskLabel, err)
	}
	return task, release, err
}
