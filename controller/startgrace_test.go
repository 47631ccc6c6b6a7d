package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// TestStartGrace proves how long the controller waits for a container that can't start, and for which causes it does not wait.
func TestStartGrace(t *testing.T) {
	stuck := func(reason string) bring {
		return mirrored(phase(corev1.PodPending), containers(waiting("a", reason, "why"), running("b"), running("c")))
	}
	cases := map[string]struct {
		reason string
		since  time.Duration // how long ago the condition changed
		again  time.Duration
		failed bool
	}{
		"an image, at first":             {"ErrImagePull", 0, 5 * time.Minute, false},
		"an image, for a while":          {"ImagePullBackOff", 4 * time.Minute, time.Minute, false},
		"an image, for too long":         {"ImagePullBackOff", 5 * time.Minute, 0, true},
		"a ConfigMap, for a while":       {"CreateContainerConfigError", 299 * time.Second, time.Second, false},
		"a ConfigMap, for too long":      {"CreateContainerConfigError", time.Hour, 0, true},
		"an invalid name, at first":      {"InvalidImageName", 0, 0, true},
		"a step that is started again":   {"CrashLoopBackOff", time.Hour, 0, false},
		"a container that is being made": {"ContainerCreating", time.Hour, startPatience, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := &v1alpha1.Task{Status: statusAfter(stuck(c.reason))}
			if c.reason == "InvalidImageName" {
				task.Status = v1alpha1.TaskStatus{} // it is never seen twice
			}
			for i := range task.Status.Conditions {
				task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: lookedAt.Add(-c.since)}
			}
			n := statusOf(task, 5*time.Minute)
			stuck(c.reason)(n)
			type seen struct {
				Again          time.Duration
				Failed, Halted bool
			}
			if diff := cmp.Diff(seen{c.again, c.failed, c.failed}, seen{n.again, finished(&n.TaskStatus), n.halt != ""}); diff != "" {
				t.Errorf("what comes of it (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStartFailedMessage proves that a Task that failed because a container can't start says why and what helps, and only why if another Pod
// follows.
func TestStartFailedMessage(t *testing.T) {
	const lasted = "; this lasted 30s (--start-grace-period)"
	const again = "; the Task has failed: fix the cause, then create the Task again"
	cases := map[string]struct {
		reason, message string
		backoffLimit    int32
		want            string
	}{
		"a Secret is missing":           {"CreateContainerConfigError", `secret "db" not found`, 0, `container "b" cannot start: secret "db" not found` + lasted + again},
		"an invalid name, at once":      {"InvalidImageName", "bad", 0, `container "b" cannot start: bad` + again},
		"another Pod follows":           {"CreateContainerConfigError", "x", 1, `container "b" cannot start: x` + lasted},
		"a cause of a thousand letters": {"CreateContainerConfigError", strings.Repeat("x", 1100), 0, `container "b" cannot start: ` + strings.Repeat("x", 1000-3-28-len(lasted+again)) + "…" + lasted + again},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bring := mirrored(order("2"), phase(corev1.PodPending), containers(succeeded("a"), waiting("b", c.reason, c.message), running("c")))
			task := &v1alpha1.Task{}
			if c.reason != "InvalidImageName" {
				task.Status = statusAfter(bring)
			}
			for i := range task.Status.Conditions {
				task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: lookedAt.Add(-30 * time.Second)}
			}
			task.Spec.BackoffLimit = c.backoffLimit
			n := statusOf(task, 30*time.Second)
			bring(n)
			var got string
			if failed := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionFailed); failed != nil {
				got = failed.Message
			} else if len(n.Attempts) > 0 {
				got = n.Attempts[0].Message
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the message (-want +got):\n%s", diff)
			}
		})
	}
}
