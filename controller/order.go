package controller

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/taskflow/taskflow-operator/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
)

// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch

// OrderReconciler releases the steps of sequential Pods, one after another.
type OrderReconciler struct {
	Client client.Client
}

// SetupWithManager registers the controller.
func (r *OrderReconciler) SetupWithManager(manager ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(manager).
		Named("order").
		For(&corev1.Pod{}, builder.WithPredicates(predicate.NewPredicateFuncs(isSequential))).
		WithOptions(options()).
		Complete(r)
}

// isSequential says whether the webhook has made the Pod's containers wait.
func isSequential(object client.Object) bool {
	annotations := object.GetAnnotations()
	return annotations[contract.StepsAnnotation] != "" && annotations[contract.OrderAnnotation] != ""
}

// Reconcile writes the Pod's order and halt annotations, where they aren't what they should be.
func (r *OrderReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var pod corev1.Pod
	if err := r.Client.Get(ctx, request.NamespacedName, &pod); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !isSequential(&pod) || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return ctrl.Result{}, nil
	}
	seen := observe(&pod)
	patch := orderPatch(&pod, seen)
	if len(patch) == 0 {
		return ctrl.Result{}, nil
	}
	content, err := patch.Marshal()
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.Client.Patch(ctx, &pod, client.RawPatch(types.JSONPatchType, content)); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("patching the order of the Pod: %w", err)
	}
	log.FromContext(ctx).V(1).Info("Released steps", "order", seen.order, "halt", seen.halt)
	return ctrl.Result{}, nil
}

// orderPatch is empty where nothing is to be done. It tests what it was made from: a Pod of the same name, or one that
// somebody else has written to, is not patched.
func orderPatch(pod *corev1.Pod, want sequence) jsonpatch.Patch {
	order, halt := strconv.Itoa(want.order), want.halt
	old := pod.Annotations[contract.OrderAnnotation]
	if order == old && halt == pod.Annotations[contract.HaltAnnotation] {
		return nil
	}
	var patch jsonpatch.Patch
	patch.Test(string(pod.UID), "metadata", "uid")
	patch.Test(old, "metadata", "annotations", contract.OrderAnnotation)
	if order != old {
		patch.Set(order, "metadata", "annotations", contract.OrderAnnotation)
	}
	if halt != "" {
		patch.Set(halt, "metadata", "annotations", contract.HaltAnnotation)
	}
	return patch
}
