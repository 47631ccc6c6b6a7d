//go:build apiserver

package apiserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// TestTaskIsFixedOnceItHasAPod proves that an edit of the steps or the template is refused once the Task has a Pod, and that all other
// edits are accepted.
func TestTaskIsFixedOnceItHasAPod(t *testing.T) {
	task := makeEchoTask(t, cluster.NewNamespace(t, "privileged"), "fixed", "a", "b")
	awaitPod(t, task)
	cluster.AwaitTask(t, task, "the Pod's name", func(s v1alpha1.TaskStatus) bool { return s.PodName != "" })

	for name, test := range map[string]struct{ patch, want string }{
		"steps": {
			patch: `{"spec":{"steps":[{"name":"a","image":"other","command":["x"]}]}}`,
			want:  "spec.steps can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"template": {
			patch: `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`,
			want:  "spec.template can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"sidecars": {
			patch: `{"spec":{"sidecars":[{"name":"c","image":"other"}]}}`,
			want:  "spec.sidecars can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"timeout": {
			patch: `{"spec":{"timeout":"1h"}}`,
			want:  "spec.timeout can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"stepTemplate": {
			patch: `{"spec":{"stepTemplate":{"image":"other"}}}`,
			want:  "spec.stepTemplate can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"params": {
			patch: `{"spec":{"params":[{"name":"A"}]}}`,
			want:  "spec.params can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"workspace": {
			patch: `{"spec":{"workspace":{}}}`,
			want:  "spec.workspace can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"finallyTimeout": {
			patch: `{"spec":{"finallyTimeout":"1h"}}`,
			want:  "spec.finallyTimeout can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"cancelFinally": {patch: `{"spec":{"cancel":true,"cancelFinally":true}}`},
		"retries": {
			patch: `[{"op":"add","path":"/spec/steps/0/retries","value":1}]`,
			want:  "spec.steps can't change once the Task has a Pod: create a new Task, or delete this one first",
		},
		"backoffLimit":            {patch: `{"spec":{"backoffLimit":1}}`},
		"ttlSecondsAfterFinished": {patch: `{"spec":{"ttlSecondsAfterFinished":60}}`},
		"suspend":                 {patch: `{"spec":{"suspend":true}}`},
		"labels":                  {patch: `{"metadata":{"labels":{"a":"b"}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			kind := types.MergePatchType
			if strings.HasPrefix(test.patch, "[") {
				kind = types.JSONPatchType
			}
			err := cluster.Patch(t.Context(), task.DeepCopy(), client.RawPatch(kind, []byte(test.patch)), client.DryRunAll)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got the error %v, and not %q", err, test.want)
			}
		})
	}
}

// TestNoRequestChangesSpecAndStatus proves that no request can change the spec and the status together. The rules for the spec depend on
// the Pod and the conditions in the status, so a request could otherwise bring its own.
func TestNoRequestChangesSpecAndStatus(t *testing.T) {
	const (
		fixed  = "spec.steps can't change once the Task has a Pod: create a new Task, or delete this one first"
		twice  = `two steps or sidecars have the name "a": give each a name of its own`
		edit   = `"spec": {"steps": [{"name": "other", "image": "x"}]}`
		broken = `"spec": {"steps": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]}`
		status = `"status": {"attempt": 1, "conditions": [{"type": "Progressing", "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}`
	)
	namespace := cluster.NewNamespace(t, "privileged")
	running := makeEchoTask(t, namespace, "running", "a")
	cluster.AwaitTask(t, running, "the Pod's name", func(s v1alpha1.TaskStatus) bool { return s.PodName != "" })
	suspended := echoTask(namespace, "suspended", "a")
	suspended.Spec.Suspend = true
	cluster.Make(t, suspended)
	cluster.AwaitTask(t, suspended, "the suspension", harness.InPhase(v1alpha1.TaskSuspended))

	created := parse(t, `{"apiVersion": "api.practice.com/v1alpha1", "kind": "Task", "metadata": {"name": "created", "namespace": "`+namespace+`"}, `+broken+", "+status+"}")
	if err := cluster.Create(t.Context(), created); err == nil || !strings.Contains(err.Error(), twice) {
		t.Errorf("got the error %v, and not %q", err, twice)
	}
	for name, test := range map[string]struct {
		task        *v1alpha1.Task
		patch, want string
	}{
		"an edit of what runs":                    {running, edit + ", " + status, fixed},
		"an edit of what runs, without a status":  {running, edit + `, "status": null`, fixed},
		"a wrong edit of what is suspended":       {suspended, broken + ", " + status, twice},
		"an edit of what is suspended, by itself": {suspended, edit, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := cluster.Patch(t.Context(), test.task.DeepCopy(), client.RawPatch(types.MergePatchType, []byte("{"+test.patch+"}")), client.DryRunAll)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got the error %v, and not %q", err, test.want)
			}
		})
	}
	for _, task := range []*v1alpha1.Task{running, suspended} {
		t.Run("a status with an edit of what is "+task.Name, func(t *testing.T) {
			got := task.DeepCopy()
			if err := cluster.Status().Patch(t.Context(), got, client.RawPatch(types.MergePatchType, []byte("{"+broken+", "+status+"}")), client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(task.Spec, got.Spec); diff != "" || got.Status.Conditions[0].Reason != "Mine" {
				t.Errorf("the conditions are %v, and the spec (-was +is):\n%s", got.Status.Conditions, diff)
			}
		})
	}
}

// TestCancelIsForGood proves that cancel and cancelFinally can't be taken back, neither by false nor by leaving them out.
func TestCancelIsForGood(t *testing.T) {
	task := parse(t, `
apiVersion: api.practice.com/v1alpha1
kind: Task
metadata: {name: cancelled}
spec: {cancel: true, cancelFinally: true, steps: [{name: a, image: x, command: [x]}]}
`)
	task.SetNamespace(cluster.NewNamespace(t, "privileged"))
	cluster.Make(t, task)
	for _, field := range []string{"cancel", "cancelFinally"} {
		for name, value := range map[string]string{"false": "false", "left out": "null"} {
			t.Run(field+" "+name, func(t *testing.T) {
				err := cluster.Patch(t.Context(), task.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"`+field+`":`+value+`}}`)))
				if want := "spec: Invalid value: " + field + " can't be taken back: create a new Task"; err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got the error %v, and not %q", err, want)
				}
			})
		}
	}
}
