//go:build apiserver

package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// operatorsCalls counts all requests of the operator to the API server.
var operatorsCalls calls

// calls counts requests by namespace, and by verb and resource. Requests for the whole cluster have the namespace "".
type calls struct {
	mutex sync.Mutex
	made  map[string]map[string]int
}

// count wraps a transport, as rest.Config.Wrap expects it.
func (c *calls) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		namespace, what := describe(request)
		response, err := next.RoundTrip(request)
		if err == nil && response.StatusCode >= http.StatusBadRequest {
			what += fmt.Sprintf(" (%d)", response.StatusCode)
		}
		c.mutex.Lock()
		defer c.mutex.Unlock()
		if c.made == nil {
			c.made = map[string]map[string]int{}
		}
		if c.made[namespace] == nil {
			c.made[namespace] = map[string]int{}
		}
		c.made[namespace][what]++
		return response, err
	})
}

// in returns the requests for one namespace.
func (c *calls) in(namespace string) map[string]int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	made := map[string]int{}
	maps.Copy(made, c.made[namespace])
	return made
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// describe reads a path such as /api/v1/namespaces/default/pods/NAME/status.
func describe(request *http.Request) (namespace, what string) {
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default:
		return "", request.Method + " " + request.URL.Path // such as /version
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	what = request.Method + " " + parts[0]
	switch {
	case len(parts) > 2:
		what += "/" + parts[2]
	case len(parts) == 1 && request.Method == http.MethodGet && request.URL.Query().Get("watch") == "":
		what = "LIST " + parts[0]
	}
	return namespace, what
}

// TestCallsPerStep proves what a Task of three steps costs the API server. One call creates the Pod. Each end of a step then costs at most
// one write of an annotation and one of the status, in both hand-off modes. The operator requests nothing that its cache has. A rate of a
// hundred Tasks a second depends on this.
func TestCallsPerStep(t *testing.T) {
	for name, handoff := range map[string]string{"local": "", "controller": contract.HandoffController} {
		t.Run(name, func(t *testing.T) {
			lists := operatorsCalls.in("")
			namespace := cluster.NewNamespace(t, "privileged")
			task := echoTask(namespace, "counted", "a", "b", "c")
			task.Spec.Template = &v1alpha1.PodTemplate{}
			if handoff != "" {
				task.Spec.Template.Metadata.Annotations = map[string]string{contract.HandoffAnnotation: handoff}
			}
			cluster.Make(t, task)
			pod := awaitPod(t, task)
			cluster.AwaitTask(t, task, "the Pod", func(s v1alpha1.TaskStatus) bool { return s.PodName == pod.Name })
			setStates(t, pod, corev1.PodRunning, running(), running(), running())
			cluster.AwaitTask(t, task, "step a", harness.InPhase(v1alpha1.TaskRunning))
			setStates(t, pod, corev1.PodRunning, ended(0), running(), running())
			awaitOrder(t, pod, "2")
			cluster.AwaitTask(t, task, "step b", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "b" })
			setStates(t, pod, corev1.PodRunning, ended(0), ended(0), running())
			awaitOrder(t, pod, "3")
			cluster.AwaitTask(t, task, "step c", func(s v1alpha1.TaskStatus) bool { return s.CurrentStep == "c" })
			setStates(t, pod, corev1.PodSucceeded, ended(0), ended(0), ended(0))
			cluster.AwaitTask(t, task, "the end", harness.InPhase(v1alpha1.TaskSucceeded))

			want := map[string]int{
				"POST pods":          1,
				"PATCH pods":         2, // a and b have ended
				"PATCH tasks/status": 5, // the Pod is there; a runs; a, b and c have ended
				"POST events":        8, // the Pod is there; three starts and three ends; complete
			}
			wait.For(t, "the events, which come last", func(context.Context) error {
				if made := operatorsCalls.in(namespace); made["POST events"] < want["POST events"] {
					return fmt.Errorf("the calls are %v", made)
				}
				return nil
			})
			if diff := cmp.Diff(want, operatorsCalls.in(namespace)); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			for what, count := range operatorsCalls.in("") {
				if strings.HasPrefix(what, "LIST ") && count > lists[what] {
					t.Errorf("%s was called again: there were %d before the Task, and now %d", what, lists[what], count)
				}
			}
		})
	}
}
