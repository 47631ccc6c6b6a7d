package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/taskflow/taskflow-operator/internal/fair"
)

// The bounds of a review and its answer. The API server stores no Pod of more than 1.5 MiB.
const (
	maxReview = 4 << 20 // bytes
	maxPatch  = 3 << 20 // bytes
	// maxHead bounds how much of a review that is too large is read, to find its UID. The UID comes first.
	maxHead = 4 << 10
	// lightReview is the size in bytes up to which a review is handled at once. An ordinary Pod has a tenth of it.
	lightReview = 256 << 10
	// heavyReviews bounds how many larger reviews are handled at the same time. Each may take fifty times its size of memory.
	heavyReviews = 2
)

// NewLargeTasks returns the limit for Handler.LargeTasks. Merging a Task of 1.4 MB into a Pod takes about 100 MB of memory.
func NewLargeTasks() *fair.Limiter { return fair.NewLimiter(2, 1) }

// Bounded rejects reviews that are too large, without reading them. Other large reviews wait for their turn.
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
		r.Body = http.MaxBytesReader(w, r.Body, maxReview) // for a request without a Content-Length; the API server sends one
		next.ServeHTTP(w, r)
	})
}

// refuseLarge answers a review without reading it, in a form that the API server shows to the user.
func refuseLarge(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close") // otherwise the server reads more of it
	uid, err := reviewUID(io.LimitReader(r.Body, maxHead))
	if err != nil {
		http.Error(w, "the review is too large", http.StatusRequestEntityTooLarge)
		return
	}
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"},
		Response: &admissionv1.AdmissionResponse{UID: uid, Result: &metav1.Status{
			Code: http.StatusRequestEntityTooLarge, Reason: metav1.StatusReasonRequestEntityTooLarge,
			Message: fmt.Sprintf("the Pod has %d bytes, and the webhook accepts at most %d: make it smaller, for example by moving scripts into a ConfigMap", r.ContentLength, maxReview),
		}},
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) // the API server may have hung up
}

// reviewUID reads request.uid from the start of a review.
func reviewUID(head io.Reader) (types.UID, error) {
	decoder := json.NewDecoder(head)
	within := func(key string) error { // skips to the value of a member of the next object
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
	for _, key := range []string{"request", "uid"} {
		if err := within(key); err != nil {
			return "", err
		}
	}
	var uid types.UID
	err := decoder.Decode(&uid)
	return uid, err
}

// checkPatch rejects a patch that makes the Pod larger than the API server stores.
func checkPatch(patch []byte) error {
	if len(patch) > maxPatch {
		return fmt.Errorf("the steps' commands, mounts and scripts take %d bytes, and at most %d fit into a Pod: move scripts into a ConfigMap", len(patch), maxPatch)
	}
	return nil
}
