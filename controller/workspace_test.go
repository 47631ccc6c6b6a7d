package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// TestWorkspaceClaim proves that the claim of a workspace exists before the Pod, belongs to the Task, and that a claim of the name that belongs to
// something else is left alone.
func TestWorkspaceClaim(t *testing.T) {
	claim := func(edit func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Name: "example-workspace", Namespace: "default",
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(exampleTask(nil), v1alpha1.TaskKind)},
		}}
		if edit != nil {
			edit(c)
		}
		return c
	}
	const (
		conflict = `WorkspaceConflict: PersistentVolumeClaim "example-workspace" exists and does not belong to this Task; ` +
			"set spec.workspace.claimName to use it, or delete it, then create the Task again"
		former = `WorkspaceConflict: the PersistentVolumeClaim "example-workspace" of an earlier Task of this name is still being deleted`
	)
	deleted := func(edit func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := claim(edit)
		c.Finalizers = []string{"kubernetes.io/pvc-protection"}
		return c
	}
	ofFormer := func(c *corev1.PersistentVolumeClaim) { c.OwnerReferences[0].UID = "former" }
	unowned := func(c *corev1.PersistentVolumeClaim) { c.OwnerReferences = nil }
	ofAnotherGroup := func(c *corev1.PersistentVolumeClaim) {
		ofFormer(c)
		c.OwnerReferences[0].APIVersion = "example.com/v1"
	}
	cases := map[string]struct {
		existing *corev1.PersistentVolumeClaim
		want     string // the reason and the message of the condition that says most
		hasPod   bool
		retries  bool
	}{
		"none yet":                           {nil, "", true, false},
		"its own":                            {claim(nil), "", true, false},
		"somebody else's":                    {claim(unowned), conflict, false, false},
		"somebody else's, being deleted":     {deleted(unowned), conflict, false, false},
		"another kind Task's":                {claim(ofAnotherGroup), conflict, false, false},
		"another kind Task's, being deleted": {deleted(ofAnotherGroup), conflict, false, false},
		"an earlier Task's":                  {claim(ofFormer), former, false, true},
		"an earlier Task's, being deleted":   {deleted(ofFormer), former, false, true},
		"its own, being deleted":             {deleted(nil), `WorkspaceConflict: the PersistentVolumeClaim "example-workspace" of this Task is being deleted`, false, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, exampleTask(func(task *v1alpha1.Task) {
				task.Spec.Workspace = &v1alpha1.Workspace{Size: new(resource.MustParse("1Gi"))}
			}))
			if c.existing != nil {
				if err := w.live.Create(t.Context(), c.existing); err != nil {
					t.Fatal(err)
				}
				if len(c.existing.Finalizers) > 0 {
					if err := w.live.Delete(t.Context(), c.existing); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := w.reconcile(); (err != nil) != c.retries {
				t.Fatalf("reconcile: %v", err)
			}
			got := ""
			for _, kind := range []string{v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
				if condition := meta.FindStatusCondition(w.task().Status.Conditions, kind); condition != nil && condition.Reason == v1alpha1.ReasonWorkspaceConflict {
					got = condition.Reason + ": " + condition.Message
					break
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the condition (-want +got):\n%s", diff)
			}
			if has := w.pod("example") != nil; has != c.hasPod {
				t.Errorf("there is a Pod: %t, want %t", has, c.hasPod)
			}
			var live corev1.PersistentVolumeClaim
			if err := w.live.Get(t.Context(), client.ObjectKeyFromObject(claim(nil)), &live); err != nil {
				t.Fatal(err)
			}
			if c.hasPod && !metav1.IsControlledBy(&live, exampleTask(nil)) {
				t.Errorf("the owners of the claim are %v", live.OwnerReferences)
			}
		})
	}
}

// TestFormerClaimStays proves that a Task waits for the garbage collector no longer than the start grace period, unless the claim is being deleted.
func TestFormerClaimStays(t *testing.T) {
	for name, finalizers := range map[string][]string{"Failed": nil, "Pending": {"kubernetes.io/pvc-protection"}} {
		t.Run(name, func(t *testing.T) {
			task := exampleTask(func(task *v1alpha1.Task) {
				task.Spec.Workspace = &v1alpha1.Workspace{Size: new(resource.MustParse("1Gi"))}
			})
			w := newWorld(t, task)
			claim := podspec.WorkspaceClaim(task)
			claim.OwnerReferences[0].UID, claim.Finalizers = "former", finalizers
			if err := w.live.Create(t.Context(), claim); err != nil {
				t.Fatal(err)
			}
			if finalizers != nil {
				if err := w.live.Delete(t.Context(), claim); err != nil {
					t.Fatal(err)
				}
			}
			for _, wait := range []time.Duration{0, w.reconciler.StartGrace - time.Second} {
				w.reconciler.Now = func() time.Time { return lookedAt.Add(wait) }
				if _, err := w.reconcile(); err == nil || w.task().Status.Phase != v1alpha1.TaskPending {
					t.Fatalf("after %s, the Task is %s, and the error is %v", wait, w.task().Status.Phase, err)
				}
			}
			w.reconciler.Now = func() time.Time { return lookedAt.Add(w.reconciler.StartGrace) }
			if _, err := w.reconcile(); (err == nil) != (finalizers == nil) {
				t.Fatalf("reconcile: %v", err)
			}
			if diff := cmp.Diff(v1alpha1.TaskPhase(name), w.task().Status.Phase); diff != "" {
				t.Errorf("the phase (-want +got):\n%s", diff)
			}
		})
	}
}
