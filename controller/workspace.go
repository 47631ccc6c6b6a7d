package controller

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// createClaim creates the claim of the Task's workspace, unless it exists. isReady is false if the Pod must not be created.
func (r *TaskReconciler) createClaim(ctx context.Context, n *next) (isReady bool, err error) {
	claim := podspec.WorkspaceClaim(n.task)
	if claim == nil {
		return true, nil
	}
	switch err := r.Client.Create(ctx, claim.DeepCopy()); {
	case err == nil:
		return true, nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		n.failed(v1alpha1.ReasonSpecInvalid, "spec.workspace: the API server rejected the PersistentVolumeClaim as invalid: "+err.Error(), n.now)
		return false, nil
	case !apierrors.IsAlreadyExists(err):
		n.waiting(v1alpha1.ReasonPodRefused, "spec.workspace: the API server rejected the PersistentVolumeClaim: "+err.Error())
		return false, err
	}
	var live corev1.PersistentVolumeClaim
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(claim), &live); err != nil { // also if it has just been deleted
		return false, fmt.Errorf("reading the PersistentVolumeClaim of the workspace: %w", err)
	}
	isOwn, isDeleted := metav1.IsControlledBy(&live, n.task), live.DeletionTimestamp != nil
	whose := "of this Task is"
	switch {
	case isOwn && !isDeleted:
		return true, nil
	case isOfFormerTask(&live, n.task):
		whose = "of an earlier Task of this name is still"
		fallthrough
	case isOwn:
		n.waiting(v1alpha1.ReasonWorkspaceConflict, fmt.Sprintf("the PersistentVolumeClaim %q %s being deleted", live.Name, whose))
		// The garbage collector takes seconds, unless something keeps it from deleting the claim.
		if isDeleted || n.now.Sub(n.progress().LastTransitionTime.Time) < n.startGrace {
			return false, errors.New("the PersistentVolumeClaim of the workspace is being deleted")
		}
	}
	n.failed(v1alpha1.ReasonWorkspaceConflict, fmt.Sprintf(
		"PersistentVolumeClaim %q exists and does not belong to this Task; set spec.workspace.claimName to use it, or delete it, then create the Task again", live.Name), n.now)
	return false, nil
}
