package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/fair"
)

// The bounds of what the webhook works on. They are far above what a node can run, and such that every Pod within them is answered in a small part
// of the deadline: some of the work grows with the square of a number. The API server stores no Pod of more than 1.5 MiB.
const (
	maxReview     = 4 << 20 // bytes
	maxPatch      = 3 << 20 // bytes
	maxContainers = 1000
	maxVolumes    = 1000
	maxMounts     = 10000 // of all containers
	maxOwnMounts  = 250   // of one container
	maxPath       = 1024  // bytes of mountPath, subPath, subPathExpr and workingDir

	// lightReview is the size in bytes of a review that needs no turn: an ordinary Pod has a tenth of it.
	lightReview = 256 << 10
	// heavyReviews is how many larger ones are worked on at the same time. Each may take fifty times its size of memory.
	heavyReviews = 2
)

// NewLargeTasks returns the limit for Handler.LargeTasks. A Task of 1.4 MB takes about 100 MB of memory while it is merged into a Pod.
func NewLargeTasks() *fair.Limiter { return fair.NewLimiter(2, 1) }

// maxHead bounds how much of a review is read that is too large, to find its UID. It comes first.
const maxHead = 4 << 10

// Bounded refuses reviews that are too large, without reading them, and makes other large ones wait for their turn.
func Bounded(next http.Handler) http.Handler {
	heavy := fair.NewLimiter(heavyReviews, heavyReviews)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxReview {
			refuseLarge(w, r)
			return
		}
		if r.ContentLength < 0 || r.ContentLength > lightReview {
			ctx, cancel := context.WithTimeout(r.Context(), deadline)
			defer cancel()
			if heavy.Acquire(ctx, "") != nil {
				http.Error(w, "the webhook is busy with other large Pods: create the Pod again", http.StatusServiceUnavailable)
				return
			}
			defer heavy.Release("")
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxReview) // for a request that doesn't say how large it is; the API server's do
		next.ServeHTTP(w, r)
	})
}

// refuseLarge answers a review that isn't read, in a way that the API server shows to the user.
func refuseLarge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close") // else the server would read more of it
	uid, err := reviewUID(io.LimitReader(r.Body, maxHead))
	if err != nil {
		http.Error(w, "the review is too large", http.StatusRequestEntityTooLarge)
		return
	}
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: &admissionv1.AdmissionResponse{UID: uid, Result: &metav1.Status{
			Code: http.StatusRequestEntityTooLarge, Reason: metav1.StatusReasonRequestEntityTooLarge,
			Message: fmt.Sprintf("the Pod has %d bytes, and the webhook takes at most %d: make it smaller, for example by moving scripts into a ConfigMap", r.ContentLength, maxReview),
		}},
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) // the API server may have gone
}

// reviewUID reads request.uid from the beginning of a review.
func reviewUID(head io.Reader) (types.UID, error) {
	decoder := json.NewDecoder(head)
	within := func(key string) error { // skips to the value of a member of the object that comes next
		if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
			return errors.New("not an object")
		}
		for {
			token, err := decoder.Token()
			if err != nil || token == key {
				return err
			}
			var skipped json.RawMessage
			if err := decoder.Decode(&skipped); err != nil {
				return err
			}
		}
	}
	if err := within("request"); err != nil {
		return "", err
	}
	if err := within("uid"); err != nil {
		return "", err
	}
	var uid types.UID
	err := decoder.Decode(&uid)
	return uid, err
}

// checkSize refuses a Pod that is beyond the bounds.
func checkSize(pod *corev1.Pod) error {
	if count := len(pod.Spec.Containers) + len(pod.Spec.InitContainers); count > maxContainers {
		return fmt.Errorf("spec.containers: the Pod has %d containers, and a Pod with steps may have %d: split it into several Tasks", count, maxContainers)
	}
	if count := len(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])); count > maxContainers {
		return fmt.Errorf("metadata.annotations: %s names %d steps, and there may be %d: split the Pod into several Tasks", contract.StepsAnnotation, count, maxContainers)
	}
	if count := len(pod.Spec.Volumes); count > maxVolumes {
		return fmt.Errorf("spec.volumes: the Pod has %d volumes, and a Pod with steps may have %d: mount fewer", count, maxVolumes)
	}
	mounts := 0
	for container := range containers(pod) {
		count := len(container.VolumeMounts)
		if count > maxOwnMounts {
			return fmt.Errorf("the container %q has %d volumeMounts, and a container may have %d: mount a directory above them", container.Name, count, maxOwnMounts)
		}
		mounts += count
		long := len(container.WorkingDir) > maxPath
		for i := range container.VolumeMounts {
			m := &container.VolumeMounts[i]
			long = long || max(len(m.MountPath), len(m.SubPath), len(m.SubPathExpr)) > maxPath
		}
		if long {
			return fmt.Errorf("the container %q has a mountPath, subPath or workingDir of more than %d bytes: use a shorter path", container.Name, maxPath)
		}
	}
	if mounts > maxMounts {
		return fmt.Errorf("spec.containers: the Pod has %d volumeMounts, and a Pod with steps may have %d: mount directories above them", mounts, maxMounts)
	}
	return nil
}

// checkTaskSize refuses a Task that no Pod can use within the bounds.
func checkTaskSize(task *v1alpha1.Task) error {
	volumes := 0
	if task.Spec.Template != nil {
		volumes = len(task.Spec.Template.Spec.Volumes)
	}
	if count := len(task.Spec.Steps) + len(task.Spec.Sidecars); count > maxContainers || volumes > maxVolumes {
		return fmt.Errorf("the Task %q has %d steps and sidecars and %d volumes, and there may be %d and %d: split it into several Tasks",
			task.Name, count, volumes, maxContainers, maxVolumes)
	}
	return nil
}

// checkPatch refuses a patch that makes the Pod larger than the API server stores it.
func checkPatch(patch []byte) error {
	if len(patch) > maxPatch {
		return fmt.Errorf("the steps' commands, mounts and scripts take %d bytes, and at most %d fit into a Pod: move scripts into a ConfigMap", len(patch), maxPatch)
	}
	return nil
}
