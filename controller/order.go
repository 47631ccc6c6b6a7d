package controller

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/jsonpatch"
	"github.com/taskflow/taskflow-operator/internal/podspec"
	"github.com/taskflow/taskflow-operator/internal/sequence"
)

// OrderReconciler releases the steps of gated Pods, halts their sequences, and tells final steps how the others ended. It emits the events about steps, except for the Pods of Tasks,
// about which the Task controller does.
type OrderReconciler struct {
	Client client.Client
	Events events.EventRecorder

	told history
}

// Reconcile patches the Pod's order, halt and outcome annotations if they differ from what the Pod's status calls for.
func (r *OrderReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var pod corev1.Pod
	err := r.Client.Get(ctx, request.NamespacedName, &pod)
	if apierrors.IsNotFound(err) {
		r.told.Delete(request.NamespacedName)
	}
	if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !podspec.IsGated(&pod) {
		return ctrl.Result{}, nil
	}
	seen := observe(&pod)
	if podspec.OwnerTask(&pod) == "" { // the Task controller emits the events of a Task's Pod
		for _, e := range stepEvents(r.told.next(&pod, seen), seen) {
			record(r.Events, &pod, &pod, e)
		}
	}
	if isTerminal(pod.Status.Phase) {
		if seen.failed < 0 {
			return ctrl.Result{}, nil // no agent reads the order of a Pod that succeeded
		}
		seen.end = false
	}
	patch := orderPatch(&pod, seen)
	if len(patch) == 0 {
		return ctrl.Result{}, nil
	}
	halts := seen.halt != pod.Annotations[contract.HaltAnnotation]
	if err := patchPod(ctx, r.Client, &pod, patch); err != nil {
		return retryStale(err)
	}
	if halts && !isTerminal(pod.Status.Phase) { // a terminal Pod has an event about its end
		kind, isFinish := corev1.EventTypeWarning, seen.failed == sequence.None && seen.halt == finishOf(seen)
		if isFinish {
			kind = corev1.EventTypeNormal
		}
		record(r.Events, &pod, &pod, event{kind: kind, reason: "Halted", action: "RunSteps", note: "no further step starts: " + seen.halt})
		if owner := ownerOf(&pod); owner != nil && !isFinish {
			record(r.Events, owner, &pod, ownerEvent(&pod, seen))
		}
	}
	log.FromContext(ctx).V(1).Info("Patched the Pod", "order", seen.order, "halt", seen.halt)
	return ctrl.Result{}, nil
}

// endNow is the activeDeadlineSeconds that ends a halted Pod with a container that cannot start: without it, the kubelet would retry the start
// until somebody deletes the Pod. The Pod stays, with the logs of the steps that ran.
const endNow = 1

// orderPatch returns the patch that brings the Pod's annotations to what is wanted, or nil if they are. It tests the values that it was made
// from, so it fails on another Pod of the same name, and on a Pod whose order or halt has changed since.
func orderPatch(pod *corev1.Pod, want observation) jsonpatch.Patch {
	order, old := strconv.Itoa(want.order), pod.Annotations[contract.OrderAnnotation]
	halts := want.halt != pod.Annotations[contract.HaltAnnotation]
	tells := want.outcome != "" && want.outcome != pod.Annotations[contract.OutcomeAnnotation]
	ends := want.end && ptr.Deref(pod.Spec.ActiveDeadlineSeconds, 0) != endNow
	if order == old && !halts && !ends && !tells {
		return nil
	}
	var patch jsonpatch.Patch
	patch.Test(string(pod.UID), "metadata", "uid")
	patch.Test(old, "metadata", "annotations", contract.OrderAnnotation)
	testAnnotation(&patch, pod, contract.HaltAnnotation)
	if want.outcome != "" && order != old { // what the final steps are told depends on it
		testAnnotation(&patch, pod, contract.CancelAnnotation)
	}
	if order != old {
		patch.Set(order, "metadata", "annotations", contract.OrderAnnotation)
	}
	if halts {
		patch.Set(want.halt, "metadata", "annotations", contract.HaltAnnotation)
	}
	if tells {
		patch.Set(want.outcome, "metadata", "annotations", contract.OutcomeAnnotation)
	}
	if ends {
		patch.Set(endNow, "spec", "activeDeadlineSeconds")
	}
	return patch
}

// metadata returns the object as a patch needs it, and receives the answer. With the full type, the API server would encode the whole object
// and client-go decode it, although the watch brings it as well.
func metadata(object client.Object, kind schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: object.GetNamespace(), Name: object.GetName()}}
	m.SetGroupVersionKind(kind)
	return m
}

// patchPod sends a patch, and returns its writeError.
func patchPod(ctx context.Context, c client.Client, pod *corev1.Pod, patch jsonpatch.Patch) error {
	content, err := patch.Marshal()
	if err != nil {
		return err
	}
	answer := metadata(pod, corev1.SchemeGroupVersion.WithKind("Pod"))
	return writeError("patching", c.Patch(ctx, answer, client.RawPatch(types.JSONPatchType, content)))
}
