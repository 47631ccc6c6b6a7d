//go:build apiserver

package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
)

// tasksCalls counts the calls of the webhook for Tasks.
var tasksCalls = reviews{made: map[string]int{}, away: map[string]bool{}}

// reviews counts admission reviews by namespace.
type reviews struct {
	mutex sync.Mutex
	made  map[string]int
	// away are the namespaces in which nobody answers.
	away map[string]bool
}

// count wraps the handler of a webhook.
func (r *reviews) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var review admissionv1.AdmissionReview
		if err == nil {
			err = json.Unmarshal(body, &review)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mutex.Lock()
		r.made[review.Request.Namespace]++
		isAway := r.away[review.Request.Namespace]
		r.mutex.Unlock()
		if isAway {
			panic(http.ErrAbortHandler) // breaks the connection
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, request)
	})
}

func (r *reviews) in(namespace string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.made[namespace]
}

// leave makes the webhook stop answering for a namespace.
func (r *reviews) leave(namespace string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.away[namespace] = true
}

// brokenTasks are specs that the schema accepts, and the one sentence with which the webhook refuses them.
var brokenTasks = map[string]struct{ spec, want string }{
	"a predecessor with a typing error": {
		"steps: [{name: fetch, image: x}, {name: b, image: x, dependsOn: [fetsch]}]",
		`spec.steps[1].dependsOn[0]: there is no step "fetsch" in the list: did you mean "fetch"?`,
	},
	"a predecessor that stands later": {
		"steps: [{name: a, image: x, dependsOn: [b]}, {name: b, image: x}]",
		`spec.steps[0].dependsOn[0]: the step "b" stands later in the list: move it before "a"`,
	},
	"a final step among the others": {
		"steps: [{name: a, image: x}, {name: b, image: x, finally: true}, {name: c, image: x}]",
		`spec.steps[1].finally: the final step "b" stands before the step "c", which is not final: move it to the end of the list`,
	},
	"an input of a step beside it": {
		"steps: [{name: a, image: x}, {name: b, image: x, dependsOn: [], inputs: [{step: a, output: SHA}]}]",
		`spec.steps[1].inputs[0].step: the step "a" runs beside "b", not before it: add it to dependsOn of "b"`,
	},
	"an input that changes how programs load": {
		"steps: [{name: a, image: x}, {name: b, image: x, inputs: [{step: a, output: LD_PRELOAD}]}]",
		`spec.steps[1].inputs[0].output: the variable LD_PRELOAD changes how programs load or run: set name to another variable, or to LD_PRELOAD if you want that`,
	},
	"a condition without a test": {
		"steps: [{name: a, image: x}, {name: b, image: x, when: [{step: a}]}]",
		`spec.steps[1].when[0]: the condition tests nothing: set state, exitCode or output`,
	},
	"an exit code with two meanings": {
		"steps: [{name: a, image: x, exitCodes: [{in: [3], then: Succeed}, {in: [3], then: Fail}]}]",
		`spec.steps[0].exitCodes[1].in[0]: 3 is named twice, and its first rule applies: remove one`,
	},
	"a param of taskflow's": {
		"steps: [{name: a, image: x}], params: [{name: TASKFLOW_STATUS}]",
		`spec.params[0].name: variables that start with TASKFLOW_ are reserved for taskflow: choose another name`,
	},
	"an empty workspace": {
		"steps: [{name: a, image: x}], workspace: {size: 0}",
		`spec.workspace.size: 0 must be above 0, such as 1Gi`,
	},
	"time for final steps, and no timeout": {
		"steps: [{name: a, image: x}], finallyTimeout: 1m",
		`spec.finallyTimeout has no effect without timeout: set spec.timeout, or remove finallyTimeout`,
	},
	"time for final steps, and none": {
		"steps: [{name: a, image: x}], timeout: 1h, finallyTimeout: 1m",
		`spec.finallyTimeout has no effect without a final step: set finally: true of a step, or remove finallyTimeout`,
	},
	"a condition that never holds": {
		"steps: [{name: a, image: x}, {name: b, image: x, when: [{step: a, state: {in: [Failed]}}]}]",
		`spec.steps[1].when[0].state: the condition never holds, because "b" does not run after a failure of "a": set onError: Continue or FailAtEnd of "a", or finally: true of "b"`,
	},
	"a variable of the template that a step breaks": {
		"stepTemplate: {image: x, env: [{name: SHA, value: a}]}, steps: [{name: a}, {name: b, inputs: [{step: a, output: SHA}]}]",
		`spec.steps[1].inputs[0]: spec.stepTemplate.env sets the variable SHA, too: remove one of them`,
	},
}

// TestBrokenTasksAreRefused proves that kubectl create and kubectl apply refuse a Task whose steps can't work together, in one sentence.
func TestBrokenTasksAreRefused(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	stored := makeSuspended(t, namespace, "stored", "steps: [{name: a, image: x}]")
	for name, test := range brokenTasks {
		t.Run(name, func(t *testing.T) {
			broken := taskOf(t, namespace, "broken", test.spec)
			wantDenied(t, cluster.Create(t.Context(), broken, client.DryRunAll), test.want)
			edit := stored.DeepCopy()
			edit.Spec = asTask(t, broken).Spec
			edit.Spec.Suspend = true
			wantDenied(t, cluster.Patch(t.Context(), edit, client.MergeFrom(stored), client.DryRunAll), test.want)
		})
	}
}

// TestOnlyFieldsToCheckAreCalledFor proves what the webhook for Tasks costs: the API server calls both replicas for a Task with a field that the schema
// can't check, and again if such a field changes, and never for other Tasks or other changes.
func TestOnlyFieldsToCheckAreCalledFor(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	calls := func(what string, want int, do func()) {
		t.Helper()
		before := tasksCalls.in(namespace)
		do()
		// The API server repeats an edit, with its calls, if the status is written meanwhile.
		if got := tasksCalls.in(namespace) - before; got < want || want == 0 && got > 0 {
			t.Errorf("%s: %d calls, want %d", what, got, want)
		}
	}
	create := func(name, spec string) func() {
		return func() { makeSuspended(t, namespace, name, spec) }
	}
	patch := func(name, patch string) func() {
		return func() {
			task := &v1alpha1.Task{}
			task.Namespace, task.Name = namespace, name
			if err := cluster.Patch(t.Context(), task, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
				t.Fatal(err)
			}
		}
	}
	calls("a plain Task", 0, create("plain", `timeout: 1m, backoffLimit: 1, steps: [{name: a, image: x, timeout: 1s, retries: 2, onError: Continue}, {name: b, image: x, script: x}],
  template: {spec: {volumes: [{name: a, emptyDir: {}}]}}, sidecars: [{name: s, image: x}]`))
	calls("an edit of a plain Task", 0, patch("plain", `{"metadata":{"labels":{"a":"b"}},"spec":{"steps":[{"name":"c","image":"x"}]}}`))
	calls("another edit of a plain Task", 0, patch("plain", `{"spec":{"cancel":true,"suspend":false,"cancelFinally":true}}`))
	for name, spec := range map[string]string{
		"depends-on":      "steps: [{name: a, image: x, dependsOn: []}]",
		"when":            "steps: [{name: a, image: x}, {name: b, image: x, when: [{step: a, output: A, in: [b]}]}]",
		"inputs":          "steps: [{name: a, image: x}, {name: b, image: x, inputs: [{step: a, output: A}]}]",
		"exit-codes":      "steps: [{name: a, image: x, exitCodes: [{in: [3], then: Succeed}]}]",
		"finally":         "steps: [{name: a, image: x}, {name: b, image: x, finally: true}]",
		"fail-at-end":     "steps: [{name: a, image: x, onError: FailAtEnd}]",
		"step-template":   "steps: [{name: a}], stepTemplate: {image: x}",
		"params":          "steps: [{name: a, image: x}], params: [{name: A, value: b}]",
		"workspace":       "steps: [{name: a, image: x}], workspace: {}",
		"finally-timeout": "steps: [{name: a, image: x}, {name: b, image: x, finally: true}], timeout: 1m, finallyTimeout: 1m",
	} {
		calls("a Task with "+name, 2, create(name, spec))
		calls("a label of a Task with "+name, 0, patch(name, `{"metadata":{"labels":{"a":"b"}}}`))
		calls("an edit of a Task with "+name, 2, patch(name, `{"spec":{"template":{"spec":{"dnsPolicy":"Default"}}}}`))
		calls("the cancel of a Task with "+name, 0, patch(name, `{"spec":{"cancel":true,"suspend":false}}`))
	}
}

// makeSuspended creates a suspended Task.
func makeSuspended(t *testing.T, namespace, name, spec string) *v1alpha1.Task {
	t.Helper()
	task := asTask(t, taskOf(t, namespace, name, "suspend: true, "+spec))
	cluster.Make(t, task)
	return task
}

// taskOf returns a Task as users write it.
func taskOf(t *testing.T, namespace, name, spec string) client.Object {
	t.Helper()
	return parse(t, "{apiVersion: api.practice.com/v1alpha1, kind: Task, metadata: {name: "+name+", namespace: "+namespace+"}, spec: {"+spec+"}}")
}

func asTask(t *testing.T, object client.Object) *v1alpha1.Task {
	t.Helper()
	content, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var task v1alpha1.Task
	if err := json.Unmarshal(content, &task); err != nil {
		t.Fatal(err)
	}
	return &task
}

// wantDenied checks that a replica of the webhook has refused a Task with this sentence alone.
func wantDenied(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Errorf("it was accepted, want a refusal with %q", want)
		return
	}
	_, sentence, _ := strings.Cut(err.Error(), `taskflow.practice.com" denied the request: `)
	if diff := cmp.Diff(want, sentence); diff != "" {
		t.Errorf("the refusal is %v (-want +got):\n%s", err, diff)
	}
}

// TestBrokenTasksFailWithoutTheWebhook proves that a Task which no replica has checked is accepted, and then fails with the same sentence, without a
// Pod.
func TestBrokenTasksFailWithoutTheWebhook(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	tasksCalls.leave(namespace)
	tasks := map[string]*v1alpha1.Task{}
	for name, test := range brokenTasks {
		task := asTask(t, taskOf(t, namespace, strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name), test.spec))
		cluster.Make(t, task)
		tasks[name] = task
	}
	for name, test := range brokenTasks {
		task := tasks[name]
		status := cluster.AwaitTask(t, task, name, harness.InPhase(v1alpha1.TaskFailed))
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionFailed)
		if condition == nil || condition.Reason != v1alpha1.ReasonSpecInvalid {
			t.Errorf("%s: the conditions are %+v", name, status.Conditions)
			continue
		}
		if diff := cmp.Diff(test.want, condition.Message); diff != "" {
			t.Errorf("%s: the message (-want +got):\n%s", name, diff)
		}
		wantNoPod(t, task)
		// It can still be deleted in the foreground, for which the API server updates the Task.
		if err := cluster.Delete(t.Context(), task, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tasksCalls.in(namespace) == 0 {
		t.Error("the webhook was not called")
	}
}
