package controller

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// createPod: nothing stands before the Pod of the attempt.
func (n *next) createPod() { n.create = true }

// createPod creates the Pod of the attempt, and returns the status that follows.
func (r *TaskReconciler) createPod(ctx context.Context, n *next) (*next, error) {
	f := n.facts
	pod := podspec.New(f.task, f.task.Status.Attempt, filledCommands(f.task, f.commands))
	markOwner(pod, f.task)
	n.limit(pod)
	err := r.Client.Create(ctx, pod)
	if apierrors.IsAlreadyExists(err) {
		live, liveErr := r.readLivePod(ctx, f.task)
		if live == nil {
			return n, cmp.Or(liveErr, err) // without an error from the read, the Pod has just been deleted
		}
		// A controlled Pod that the webhook did not see has no mark that counts. Only the operator leaves one.
		if f = f.withPod(live); f.foreign != nil && (podspec.IsGated(live) || !metav1.IsControlledBy(live, f.task)) {
			return decide(f), nil
		}
		f.foreign, pod = nil, live
	} else if err != nil {
		return n, n.podRejected(err)
	} else {
		f.isNew = true
	}
	if !podspec.IsGated(pod) {
		return n, r.deleteUngated(ctx, n, pod)
	}
	f.pod = pod
	return decide(f), nil
}

// podRejected returns the error if a retry may help.
func (n *next) podRejected(err error) error {
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) {
		n.failed(v1alpha1.ReasonPodInvalid, "the API server rejected the Pod as invalid: "+err.Error(), n.now)
		return nil
	}
	n.waiting(v1alpha1.ReasonPodRefused, "the API server rejected the Pod: "+err.Error())
	return err
}

// deleteUngated deletes a Pod that the webhook has not mutated, before a node takes it: all its steps would run at once.
func (r *TaskReconciler) deleteUngated(ctx context.Context, n *next, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID}, client.GracePeriodSeconds(0))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting the Pod whose steps would all run at once: %w", err)
	}
	n.failed(v1alpha1.ReasonPodRefused, fmt.Sprintf("the API server has not called taskflow's webhook for the Pod, whose steps would all run at once: "+
		"create the Task in another namespace than %s, or install taskflow's MutatingWebhookConfiguration again", pod.Namespace), n.now)
	return nil
}
