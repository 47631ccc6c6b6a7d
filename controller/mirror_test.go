package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// crashed returns a container that ended, and that the kubelet restarts after a while.
func crashed(name string, code int32) corev1.ContainerStatus {
	status := waiting(name, reasonCrashLoop, "back-off 10s")
	status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}
	return status
}

// TestMirror proves what a Task says about its Pod.
func TestMirror(t *testing.T) {
	reason := func(reason, message string) edit {
		return func(pod *corev1.Pod) {
			pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, reason, message
		}
	}
	scheduled := func(status corev1.ConditionStatus, reason, message string) edit {
		return func(pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodPending
			pod.Status.Conditions = []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"},
				{Type: corev1.PodScheduled, Status: status, Reason: reason, Message: message},
			}
		}
	}
	initContainers := func(statuses ...corev1.ContainerStatus) edit {
		return func(pod *corev1.Pod) { pod.Status.InitContainerStatuses = statuses }
	}
	// The view of a Pod that goes on, and of one that has ended, with what differs.
	going := func(v view) view {
		v.PodName, v.Started, v.Order = "example", "12:00:00", max(v.Order, 1)
		return v
	}
	over := func(at, duration string, v view) view {
		v.Completed, v.Duration = at, duration
		return going(v)
	}
	allWell := []corev1.ContainerStatus{succeeded("c"), succeeded("b"), succeeded("a")}
	const ok = "StepsSucceeded: all steps succeeded"

	cases := map[string]struct {
		pod  bring
		want view
	}{
		"just created": {
			mirrored(phase("")),
			going(view{Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `True PodCreated: the Pod "example" is starting`}),
		},
		"scheduled": {
			mirrored(scheduled(corev1.ConditionTrue, "", ""), containers(waiting("a", "ContainerCreating", ""), waiting("b", "PodInitializing", ""), waiting("c", "", ""))),
			going(view{Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `True PodCreated: the Pod "example" is starting`}),
		},
		"no node": {
			mirrored(scheduled(corev1.ConditionFalse, "Unschedulable", "0/3 nodes are available")),
			going(view{Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: "False Unschedulable: the Pod is unschedulable: 0/3 nodes are available"}),
		},
		"the agent's image is missing": {
			mirrored(phase(corev1.PodPending), initContainers(succeeded("prepare"), waiting(contract.AgentContainer, "ErrImagePull", "not found")), containers(waiting("a", "PodInitializing", ""))),
			going(view{Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `False ImagePullBackOff: container "taskflow-agent" cannot start: not found`}),
		},
		"the agent's image, mounted, is missing": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "ErrImagePull", `failed to pull image "docker.io/taskflow/agent:1": not found`), "busybox"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False ImagePullBackOff: the image of taskflow's agent cannot be mounted: failed to pull image "docker.io/taskflow/agent:1": not found`,
			}),
		},
		"the agent's image is mounted, and the step's own is missing": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "ErrImagePull", `failed to pull image "taskflow/agent:11": not found`), "taskflow/agent:11"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False ImagePullBackOff: container "a" cannot start: failed to pull image "taskflow/agent:11": not found`,
			}),
		},
		"the runtime doesn't mount the agent's image, and can't create the container": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "CreateContainerError", "stat /taskflow/bin/agent: no such file"), "busybox"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False CreateContainerError: container "a" cannot start: the node cannot run taskflow's agent from its image: ` +
					`annotate the Pod with taskflow.practice.com/agent-delivery: init (stat /taskflow/bin/agent: no such file)`,
			}),
		},
		"the first step runs": {
			mirrored(containers(running("a"), running("b"), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Waiting Waiting", Progressing: `True StepRunning: step "a" is running`}),
		},
		"the first step runs, the last one's image is missing": {
			mirrored(phase(corev1.PodPending), containers(running("a"), running("b"), waiting("c", "ImagePullBackOff", "back-off"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Waiting Waiting", Progressing: `True StepRunning: step "a" is running; container "c" cannot start: back-off`}),
		},
		"the next one's image is missing": {
			mirrored(order("2"), phase(corev1.PodPending), containers(succeeded("a"), waiting("b", "ImagePullBackOff", "back-off"), running("c"))),
			going(view{Phase: "Running", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Waiting Waiting", Progressing: `False ImagePullBackOff: container "b" cannot start: back-off`}),
		},
		"before the first step, which waits for another webhook's container": {
			mirrored(order("0"), containers(running("a"), running("b"), running("c"), running("proxy"))),
			func() view {
				v := going(view{
					Phase: "Running", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
					Progressing: `True StepWaiting: step "a" waits until the helper containers are ready`,
				})
				v.Order = 0
				return v
			}(),
		},
		"the agents are ahead of the annotation": {
			mirrored(containers(succeeded("a"), running("b"), running("c"))),
			going(view{Phase: "Running", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Running Waiting", Progressing: `True StepRunning: step "b" is running`}),
		},
		"the annotation is about to release the next step": {
			mirrored(byAnnotation, containers(succeeded("a"), running("b"), running("c"))),
			going(view{Phase: "Running", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Running Waiting", Progressing: `True StepRunning: step "b" is running`}),
		},
		"between two steps": {
			mirrored(containers(succeeded("a"), waiting("b", "ContainerCreating", ""), running("c"))),
			going(view{Phase: "Running", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Waiting Waiting", Progressing: `True StepWaiting: step "b" is next`}),
		},
		"a failed step is started again": {
			mirrored(restartPolicy(corev1.RestartPolicyOnFailure), containers(waiting("a", "CrashLoopBackOff", "back-off 10s"), running("b"), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `False CrashLoopBackOff: step "a" failed, and the kubelet restarts it: back-off 10s`}),
		},
		"a failed step is started again, and its exit code is known": {
			mirrored(restartPolicy(corev1.RestartPolicyOnFailure), containers(crashed("a", 3), running("b"), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `False CrashLoopBackOff: step "a" failed with exit code 3, and the kubelet restarts it: back-off 10s`}),
		},
		"a sidecar that ended is started again": {
			mirrored(initContainers(crashed("proxy", 0)), containers(running("a"), running("b"), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Waiting Waiting", Progressing: `True StepRunning: step "a" is running; container "proxy" ended with exit code 0, and the kubelet restarts it: back-off 10s`}),
		},
		"a step failed while it waited: the one that runs goes on": {
			mirrored(containers(running("a"), exited("b", 137, "OOMKilled", ""), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Failed Waiting", Progressing: `True StepRunning: step "a" is running`}),
		},

		"all steps have ended": {
			mirrored(order("3"), containers(allWell...), phase(corev1.PodSucceeded)),
			over("12:01:05", "65s", view{Phase: "Succeeded", Order: 3, Progress: "3/3", Steps: "Succeeded Succeeded Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},
		"all steps have ended, and a sidecar hasn't": {
			mirrored(order("3"), containers(allWell...), initContainers(running("proxy"))),
			over("12:01:05", "65s", view{Phase: "Succeeded", Order: 3, Progress: "3/3", Steps: "Succeeded Succeeded Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},
		"all steps have ended, and the Pod is being deleted": {
			mirrored(order("3"), containers(allWell...), deleted),
			over("12:01:05", "65s", view{Phase: "Succeeded", Order: 3, Progress: "3/3", Steps: "Succeeded Succeeded Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},
		"all steps have ended, on a node whose clock is behind": {
			mirrored(order("3"), containers(allWell...), func(pod *corev1.Pod) { pod.CreationTimestamp.Time = ended.Add(time.Minute) }),
			func() view {
				v := over("12:02:05", "0s", view{Phase: "Succeeded", Order: 3, Progress: "3/3", Steps: "Succeeded Succeeded Succeeded", Complete: "True " + ok, Progressing: "False " + ok})
				v.Started = "12:02:05"
				return v
			}(),
		},
		// The API server keeps whole seconds, so the status must be the same when it is read again.
		"all steps have ended, within a second": {
			mirrored(annotated(contract.StepsAnnotation, "a"), containers(exited("a", 0, "Completed", contract.Record{
				StartedAt: &started, FinishedAt: ended.Add(999 * time.Millisecond),
			}.Marshal()))),
			over("12:01:05", "65s", view{Phase: "Succeeded", Progress: "1/1", Steps: "Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},
		"all steps have ended, at an unknown time": {
			mirrored(annotated(contract.StepsAnnotation, "a"), containers(corev1.ContainerStatus{Name: "a", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}})),
			over("12:03:00", "3m", view{Phase: "Succeeded", Progress: "1/1", Steps: "Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},

		"a step failed": {
			mirrored(order("2"), containers(succeeded("a"), failedWith("b", 3), running("c"))),
			over("12:01:05", "65s", view{
				Phase: "Failed", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Failed Skipped",
				Failed: `True StepFailed: step "b" failed with exit code 3`, Progressing: `False StepFailed: step "b" failed with exit code 3`,
			}),
		},
		"a step failed, and the rest was skipped": {
			mirrored(halt("why"), phase(corev1.PodFailed), containers(exited("a", 137, "OOMKilled", ""), skipped("b"), skipped("c"))),
			over("12:01:05", "65s", view{
				Phase: "Failed", Progress: "0/3", Current: "a", Steps: "Failed Skipped Skipped",
				Failed: `True StepFailed: step "a" failed with exit code 137 (OOMKilled)`, Progressing: `False StepFailed: step "a" failed with exit code 137 (OOMKilled)`,
			}),
		},
		"the Pod is being deleted": {
			mirrored(deleted, containers(running("a"), running("b"), running("c"))),
			over("12:03:00", "3m", view{
				Phase: "Failed", Progress: "0/3", Current: "a", Steps: "Failed Skipped Skipped",
				Failed:      `True PodDeleted: the Pod "example" was deleted before all steps had ended`,
				Progressing: `False PodDeleted: the Pod "example" was deleted before all steps had ended`,
			}),
		},
		"the Pod was too slow": {
			mirrored(reason("DeadlineExceeded", "Pod was active too long"), containers(exited("a", 143, "Error", ""), exited("b", 143, "Error", ""), exited("c", 143, "Error", ""))),
			over("12:03:00", "3m", view{
				Phase: "Failed", Progress: "0/3", Current: "a", Steps: "Failed Failed Failed",
				Failed: "True DeadlineExceeded: the Pod failed: Pod was active too long", Progressing: "False DeadlineExceeded: the Pod failed: Pod was active too long",
			}),
		},
		"the Pod was evicted, and its node says no more": {
			mirrored(order("2"), reason("Evicted", "The node was low on memory."), containers(succeeded("a"), running("b"), running("c"))),
			over("12:03:00", "3m", view{
				Phase: "Failed", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Failed Skipped",
				Failed: "True Evicted: the Pod failed: The node was low on memory.", Progressing: "False Evicted: the Pod failed: The node was low on memory.",
			}),
		},
		"the Pod's node is gone": {
			mirrored(order("2"), phase(corev1.PodFailed), containers(succeeded("a"), running("b"), running("c")), func(pod *corev1.Pod) {
				pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: "node no longer exists"}}
			}),
			over("12:03:00", "3m", view{
				Phase: "Failed", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Failed Skipped",
				Failed: "True DeletionByPodGC: the Pod failed: node no longer exists", Progressing: "False DeletionByPodGC: the Pod failed: node no longer exists",
			}),
		},
		"an init container failed": {
			mirrored(phase(corev1.PodFailed), initContainers(succeeded("first"), failedWith("prepare", 3)), containers(waiting("a", "PodInitializing", ""))),
			over("12:01:05", "65s", view{
				Phase: "Failed", Progress: "0/3", Current: "a", Steps: "Skipped Skipped Skipped",
				Failed: `True PodFailed: init container "prepare" failed with exit code 3 (Error)`, Progressing: `False PodFailed: init container "prepare" failed with exit code 3 (Error)`,
			}),
		},
		"a user set halt": {
			mirrored(halt("why"), phase(corev1.PodSucceeded), containers(succeeded("a"), skipped("b"), skipped("c"))),
			over("12:03:00", "3m", view{
				Phase: "Failed", Progress: "1/3", Current: "b", Steps: "Succeeded Skipped Skipped",
				Failed: "True PodFailed: the Pod ended before all steps had run", Progressing: "False PodFailed: the Pod ended before all steps had run",
			}),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, viewOf(statusAfter(c.pod))); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			assertStays(t, c.pod)

			// Each state ends a suspension.
			resumed := c.want
			resumed.Suspended = "False Resumed: spec.suspend is false"
			if diff := cmp.Diff(resumed, viewOf(statusAfter(suspended, c.pod))); diff != "" {
				t.Errorf("the status after a suspension (-want +got):\n%s", diff)
			}
		})
	}
}
