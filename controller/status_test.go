package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// bring is one of the ways to a state.
type bring = func(*next)

// The ways by name.
var (
	suspended bring = (*next).suspended
	refused   bring = func(n *next) { n.waiting(v1alpha1.ReasonPodRefused, "exceeded quota") }
	conflict  bring = func(n *next) { n.failed(v1alpha1.ReasonPodNameConflict, "a Pod of the name exists", lookedAt) }
	gone      bring = (*next).podDeleted
)

// look decides about a Pod, or its absence, at a time.
func look(n *next, pod *corev1.Pod, now time.Time) {
	f := n.facts
	f.task = f.task.DeepCopy()
	f.task.Status = n.TaskStatus
	f.pod, f.now = pod, now
	*n = *decide(f)
}

// statusOf begins the next status of a Task, as the tests' clock has it.
func statusOf(task *v1alpha1.Task, startGrace time.Duration) *next {
	return nextStatus(facts{task: task, startGrace: startGrace, now: lookedAt})
}

func mirrored(edits ...edit) bring {
	return func(n *next) {
		pod := sequential(edits...)
		n.task = n.task.DeepCopy()
		n.task.Spec.Steps = make([]v1alpha1.Step, len(contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])))
		look(n, pod, lookedAt)
	}
}

// twoSteps are those of a Task, as long as it has no Pod.
var twoSteps = v1alpha1.TaskSpec{Steps: []v1alpha1.Step{{Container: corev1.Container{Name: "a"}}, {Container: corev1.Container{Name: "b"}}}}

// statusAfter is the status of a Task that has been brought through the states in turn, each a reconciliation of its own.
func statusAfter(states ...bring) v1alpha1.TaskStatus {
	task := v1alpha1.Task{Spec: twoSteps}
	for _, bring := range states {
		task.Generation++
		n := statusOf(&task, 5*time.Minute)
		bring(n)
		task.Status = n.TaskStatus
		for i := range task.Status.Conditions {
			// As it is when it comes back from the API server, later.
			task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: created.Add(time.Duration(task.Generation))}
		}
	}
	return task.Status
}

// view is a status as people read it.
type view struct {
	Phase               v1alpha1.TaskPhase
	Order               int32
	Progress, Current   string
	Steps               string
	Started, Completed  string
	Duration            string
	Progressing         string
	Complete, Failed    string
	Suspended           string
	PodName             string
	UnexpectedCondition string
}

func viewOf(status v1alpha1.TaskStatus) view {
	v := view{
		Phase: status.Phase, Order: status.Order, Progress: status.Progress, Current: status.CurrentStep, Steps: states(status.Steps),
		Started: clock(status.StartTime), Completed: clock(status.CompletionTime), Duration: status.Duration, PodName: status.PodName,
	}
	for _, condition := range status.Conditions {
		text := fmt.Sprintf("%s %s: %s", condition.Status, condition.Reason, condition.Message)
		switch condition.Type {
		case v1alpha1.ConditionProgressing:
			v.Progressing = text
		case v1alpha1.ConditionComplete:
			v.Complete = text
		case v1alpha1.ConditionFailed:
			v.Failed = text
		case v1alpha1.ConditionSuspended:
			v.Suspended = text
		default:
			v.UnexpectedCondition = condition.Type
		}
	}
	return v
}

func clock(t *metav1.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("15:04:05.999999999")
}

// TestStatusWithoutAPod proves the states of a Task that has no Pod.
func TestStatusWithoutAPod(t *testing.T) {
	const isSuspended = "True Suspended: spec.suspend is true: set it to false to run the Task"
	cases := map[string]struct {
		states []bring
		want   view
	}{
		"new": {
			[]bring{func(*next) {}},
			view{},
		},
		"suspended": {
			[]bring{suspended},
			view{Phase: "Suspended", Suspended: isSuspended, Progressing: "False Suspended: spec.suspend is true"},
		},
		"waiting": {
			[]bring{refused},
			view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Progressing: "False PodRefused: exceeded quota"},
		},
		"waiting, after it was suspended": {
			[]bring{suspended, refused},
			view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Suspended: "False Resumed: spec.suspend is false", Progressing: "False PodRefused: exceeded quota"},
		},
		"suspended, resumed, suspended": {
			[]bring{suspended, refused, suspended},
			view{Phase: "Suspended", Suspended: isSuspended, Progressing: "False Suspended: spec.suspend is true"},
		},
		"failed": {
			[]bring{conflict},
			view{
				Phase: "Failed", Progress: "0/2", Steps: "Skipped Skipped", Completed: "12:03:00",
				Failed: "True PodNameConflict: a Pod of the name exists", Progressing: "False PodNameConflict: a Pod of the name exists",
			},
		},
		"failed, after it was suspended": {
			[]bring{suspended, conflict},
			view{
				Phase: "Failed", Progress: "0/2", Steps: "Skipped Skipped", Completed: "12:03:00", Suspended: "False Resumed: spec.suspend is false",
				Failed: "True PodNameConflict: a Pod of the name exists", Progressing: "False PodNameConflict: a Pod of the name exists",
			},
		},
		"the Pod has gone": {
			[]bring{mirrored(order("2"), containers(succeeded("a"), running("b"), running("c"))), gone},
			view{
				Phase: "Failed", PodName: "example", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Failed Skipped",
				Started: "12:00:00", Completed: "12:03:00", Duration: "3m",
				Failed:      `True PodDeleted: the Pod "example" was deleted before all steps had ended`,
				Progressing: `False PodDeleted: the Pod "example" was deleted before all steps had ended`,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, viewOf(statusAfter(c.states...))); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			assertStays(t, c.states...)
		})
	}
}

// crashed is a container that ended, and that the kubelet starts again after a while.
func crashed(name string, code int32) corev1.ContainerStatus {
	status := waiting(name, reasonCrashLoop, "back-off 10s")
	status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error"}
	return status
}

// TestMirror proves what a Task says of its Pod.
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
	// A Pod that is going on, and one that has ended, with what differs from that.
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
			going(view{Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting", Progressing: `False ImagePullBackOff: container "taskflow-agent" can't start: not found`}),
		},
		"the agent's image, mounted, is missing": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "ErrImagePull", `failed to pull image "docker.io/taskflow/agent:1": not found`), "busybox"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False ImagePullBackOff: the image of taskflow's agent can't be mounted: failed to pull image "docker.io/taskflow/agent:1": not found`,
			}),
		},
		"the agent's image is mounted, and the step's own is missing": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "ErrImagePull", `failed to pull image "taskflow/agent:11": not found`), "taskflow/agent:11"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False ImagePullBackOff: container "a" can't start: failed to pull image "taskflow/agent:11": not found`,
			}),
		},
		"the runtime doesn't mount the agent's image, and can't create the container": {
			mirrored(mountsAgent, phase(corev1.PodPending), containers(ofImage(waiting("a", "CreateContainerError", "stat /taskflow/bin/agent: no such file"), "busybox"))),
			going(view{
				Phase: "Pending", Progress: "0/3", Current: "a", Steps: "Waiting Waiting Waiting",
				Progressing: `False CreateContainerError: container "a" can't start: the node can't run taskflow's agent from its image: ` +
					`annotate the Pod with taskflow.practice.com/agent-delivery: init (stat /taskflow/bin/agent: no such file)`,
			}),
		},
		"the first step runs": {
			mirrored(containers(running("a"), running("b"), running("c"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Waiting Waiting", Progressing: `True StepRunning: step "a" is running`}),
		},
		"the first step runs, the last one's image is missing": {
			mirrored(phase(corev1.PodPending), containers(running("a"), running("b"), waiting("c", "ImagePullBackOff", "back-off"))),
			going(view{Phase: "Running", Progress: "0/3", Current: "a", Steps: "Running Waiting Waiting", Progressing: `True StepRunning: step "a" is running; container "c" can't start: back-off`}),
		},
		"the next one's image is missing": {
			mirrored(order("2"), phase(corev1.PodPending), containers(succeeded("a"), waiting("b", "ImagePullBackOff", "back-off"), running("c"))),
			going(view{Phase: "Running", Order: 2, Progress: "1/3", Current: "b", Steps: "Succeeded Waiting Waiting", Progressing: `False ImagePullBackOff: container "b" can't start: back-off`}),
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
		// The API server keeps whole seconds: what it gives back must be the same.
		"all steps have ended, within a second": {
			mirrored(annotated(contract.StepsAnnotation, "a"), containers(exited("a", 0, "Completed", contract.Record{
				StartedAt: &started, FinishedAt: ended.Add(999 * time.Millisecond),
			}.Marshal()))),
			over("12:01:05", "65s", view{Phase: "Succeeded", Progress: "1/1", Steps: "Succeeded", Complete: "True " + ok, Progressing: "False " + ok}),
		},
		"all steps have ended, nobody knows when": {
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
		"somebody set halt": {
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

			// Whatever the state, it ends a suspension.
			resumed := c.want
			resumed.Suspended = "False Resumed: spec.suspend is false"
			if diff := cmp.Diff(resumed, viewOf(statusAfter(suspended, c.pod))); diff != "" {
				t.Errorf("the status after a suspension (-want +got):\n%s", diff)
			}
		})
	}
}

// assertStays proves that the last state, reached once more, changes nothing: no write to the API server, no time that moves.
func assertStays(t *testing.T, states ...bring) {
	t.Helper()
	task := &v1alpha1.Task{Spec: twoSteps, Status: statusAfter(states...)}
	task.Generation = task.Status.ObservedGeneration
	for i := range task.Status.Conditions { // after a while, others may be said of a Pod that is still starting
		task.Status.Conditions[i].LastTransitionTime = metav1.Time{Time: lookedAt}
	}
	n := statusOf(task, 5*time.Minute)
	states[len(states)-1](n)
	if diff := cmp.Diff(task.Status, n.TaskStatus); diff != "" {
		t.Errorf("the same state once more (-first +second):\n%s", diff)
	}
}

// TestMirrorKeepsTheSteps proves that a step's details are those of observe, and what is said of steps that nobody hears of any more.
func TestMirrorKeepsTheSteps(t *testing.T) {
	at := func(t time.Time) *metav1.MicroTime { return &metav1.MicroTime{Time: t} }
	want := []v1alpha1.StepStatus{
		{Name: "a", State: "Succeeded", Reason: "Completed", ExitCode: new(int32(0)), StartedAt: at(created), FinishedAt: at(ended), Duration: "65s", ImageID: "sha256:0", Message: "mine"},
		{Name: "b", State: "Failed", Reason: "PodDeleted", StartedAt: at(ended)},
		{Name: "c", State: "Skipped", Reason: "Skipped"},
	}
	status := statusAfter(mirrored(order("2"), deleted, containers(
		withImage(exited("a", 0, "Completed", "mine"), "sha256:0"), running("b"), waiting("c", "ImagePullBackOff", "back-off"))))
	if diff := cmp.Diff(want, status.Steps); diff != "" {
		t.Errorf("the steps (-want +got):\n%s", diff)
	}
}

// TestMirrorWaitsForThePodsReason proves that a Pod whose containers were all killed is not judged before the kubelet has said what became
// of it, and that nothing else is waited for.
func TestMirrorWaitsForThePodsReason(t *testing.T) {
	killed := containers(succeeded("a"), exited("b", 137, "Error", ""), exited("c", 143, "Error", ""))
	before := mirrored(order("2"), containers(succeeded("a"), running("b"), running("c")))
	cases := map[string]struct {
		pod  bring
		want bool
	}{
		"all are killed":                    {mirrored(order("2"), killed), true},
		"one of them ended well":            {mirrored(order("2"), containers(succeeded("a"), succeeded("b"), exited("c", 143, "Error", ""))), true},
		"one failed by itself":              {mirrored(order("2"), containers(succeeded("a"), failedWith("b", 1), succeeded("c"))), false},
		"one was killed for its memory":     {mirrored(order("2"), containers(succeeded("a"), exited("b", 137, "OOMKilled", ""), succeeded("c"))), false},
		"one was killed, and others run":    {mirrored(order("2"), containers(succeeded("a"), exited("b", 137, "Error", ""), running("c"))), false},
		"a sidecar runs":                    {mirrored(order("2"), killed, func(pod *corev1.Pod) { pod.Status.InitContainerStatuses = []corev1.ContainerStatus{running("proxy")} }), false},
		"the kubelet has said it":           {mirrored(order("2"), killed, phase(corev1.PodFailed)), false},
		"somebody has deleted the Pod":      {mirrored(order("2"), killed, deleted), false},
		"the kubelet will start them again": {mirrored(order("2"), killed, restartPolicy(corev1.RestartPolicyOnFailure)), false},
		"the Task is cancelled":             {func(n *next) { n.task = n.task.DeepCopy(); n.task.Spec.Cancel = true; mirrored(order("2"), killed)(n) }, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			was, is := statusAfter(before), statusAfter(before, c.pod)
			if waits := states(was.Steps) == states(is.Steps) && is.Phase == was.Phase; waits != c.want {
				t.Errorf("it waits: %t, want %t; the steps are %s, the phase is %s", waits, c.want, states(is.Steps), is.Phase)
			}
		})
	}
}

// TestIsUnsettled proves which Pods the kubelet may still have another word about.
func TestIsUnsettled(t *testing.T) {
	killed := exited("b", 143, "Error", "")
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"it runs":                    {sequential(phase(corev1.PodRunning), containers(succeeded("a"), running("b"))), false},
		"over, and one runs":         {sequential(phase(corev1.PodFailed), containers(succeeded("a"), running("b"))), true},
		"over, and one waits":        {sequential(phase(corev1.PodFailed), containers(waiting("a", "PodInitializing", ""), killed)), true},
		"over, and all have ended":   {sequential(phase(corev1.PodFailed), containers(succeeded("a"), killed)), false},
		"over, and nothing is known": {sequential(phase(corev1.PodFailed)), false},
	} {
		if got := isUnsettled(c.pod); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
}

// TestMirrorStopped proves that a Pod which was stopped isn't taken for one whose steps have all ended well, whatever they end with when
// they are told to stop: the exit code 0, or a failure that doesn't matter.
func TestMirrorStopped(t *testing.T) {
	may := annotated(contract.OptionsAnnotation, `{"c":{"continueOnError":true}}`)
	told := func(code int32) corev1.ContainerStatus {
		return exited("c", code, "Error", contract.Record{FinishedAt: ended, ExitCode: int(code), Reason: contract.ReasonStopped}.Marshal())
	}
	evicted := func(pod *corev1.Pod) { pod.Status.Reason = "Evicted" }
	preempted := func(pod *corev1.Pod) {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler"}}
	}
	pod := func(last corev1.ContainerStatus, edits ...edit) bring {
		return mirrored(append([]edit{order("3"), phase(corev1.PodFailed), containers(succeeded("a"), succeeded("b"), last)}, edits...)...)
	}
	own := func(code int32) corev1.ContainerStatus { return exited("c", code, "Error", "a message of its own") }
	cases := map[string]struct {
		pod  bring
		want string // reason of the condition, state and reason of the last step
	}{
		"ends with 0":                      {pod(told(0), evicted), "Evicted Failed Evicted"},
		"fails, and may":                   {pod(told(143), may, evicted), "Evicted Failed Evicted"},
		"fails by another code, and may":   {pod(told(1), may, evicted), "Evicted Failed Evicted"},
		"fails, and may, without a record": {pod(own(143), may, evicted), "Evicted Failed Evicted"},
		"fails, and may, preempted":        {pod(told(143), may, preempted), "PreemptionByScheduler Failed PreemptionByScheduler"},
		"ends with 0, deleted":             {pod(told(0), phase(corev1.PodRunning), deleted), "PodDeleted Failed PodDeleted"},
		"nobody knows how it ended": {
			mirrored(phase(corev1.PodFailed), evicted, containers(
				succeeded("a"), exited("b", 137, "ContainerStatusUnknown", "could not be located"), exited("c", 137, "ContainerStatusUnknown", "could not be located"))),
			"Evicted Skipped Skipped",
		},
		"had failed by itself before, and may": {pod(failedWith("c", 1), may, evicted), "StepsSucceeded Failed Error"},
		"told by somebody in the container":    {pod(told(0), phase(corev1.PodSucceeded)), "StepsSucceeded Succeeded Stopped"},
		"and fails":                            {pod(told(143), may), "StepFailed Failed Stopped"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			status := statusAfter(c.pod)
			got := "not at its end"
			for _, condition := range status.Conditions {
				if condition.Type != v1alpha1.ConditionProgressing && condition.Status == metav1.ConditionTrue {
					got = fmt.Sprintf("%s %s %s", condition.Reason, status.Steps[2].State, status.Steps[2].Reason)
				}
			}
			if got != c.want {
				t.Errorf("the Task: %s, want %s", got, c.want)
			}
		})
	}
}

// asked is a way to a state of a Task that asks for more.
func asked(edit func(*v1alpha1.TaskSpec), bring bring) bring {
	return func(n *next) {
		n.task = n.task.DeepCopy()
		edit(&n.task.Spec)
		bring(n)
	}
}

// TestAttempts proves that a failed Pod is followed by another as often as it may be, after pauses that double up to six minutes; and what
// the status says meanwhile.
func TestAttempts(t *testing.T) {
	retry := func(at time.Time) bring {
		return asked(func(spec *v1alpha1.TaskSpec) { spec.BackoffLimit = 8 }, func(n *next) {
			n.PodName = podspec.Name(&v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example"}}, int32(len(n.Attempts)+1))
			n.podFailed("StepFailed", "why", at)
		})
	}
	var states []bring
	for i, pause := range []time.Duration{10, 20, 40, 80, 160, 320, 360, 360} {
		states = append(states, retry(created.Add(time.Duration(i)*time.Hour+500*time.Millisecond)))
		status := statusAfter(states...)
		failed := created.Add(time.Duration(i) * time.Hour)
		n := &next{TaskStatus: status}
		if got, want := n.nextAttempt(), failed.Add(pause*time.Second); !got.Equal(want) {
			t.Errorf("after %d failures the next Pod is due at %s, want %s", i+1, got, want)
		}
		if got := len(status.Attempts); got != i+1 || status.Attempt != int32(i+2) || finished(&status) {
			t.Errorf("after %d failures the status is %+v", i+1, status)
		}
	}
	want := view{Phase: "Pending", Progress: "0/2", Steps: "Waiting Waiting", Progressing: `False Retrying: the Pod "example-retry-7" failed, and the next one is created at 19:06:00: why`}
	if diff := cmp.Diff(want, viewOf(statusAfter(states...))); diff != "" {
		t.Errorf("the status after 8 failures (-want +got):\n%s", diff)
	}
	last := statusAfter(append(states, retry(lookedAt))...)
	if last.Phase != v1alpha1.TaskFailed || !finished(&last) || len(last.Attempts) != 8 {
		t.Errorf("the status after the last failure is %+v", last)
	}
	if got := (&next{}).nextAttempt(); !got.IsZero() {
		t.Errorf("the first Pod is due at %s, want at once", got)
	}
}

// TestMirrorCancel proves that a cancelled Task ends as soon as nothing of its Pod runs, as Cancelled and nothing else.
func TestMirrorCancel(t *testing.T) {
	cancelled := exited("a", 143, "Error", contract.Record{FinishedAt: ended, ExitCode: 143, Reason: contract.ReasonCancelled}.Marshal())
	unscheduled := func(pod *corev1.Pod) {
		pod.Status.Phase = corev1.PodPending
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
	}
	const ending = "Progressing Cancelled: spec.cancel is true: the running containers are being terminated"
	cases := map[string]struct {
		pod  bring
		want string // phase, and the reason and message of the condition that says most; and the steps
	}{
		"a step runs":              {mirrored(containers(running("a"), running("b"), running("c"))), "Running " + ending + " [Running Waiting Waiting]"},
		"a step runs, after halt":  {mirrored(halt("cancelled"), containers(running("a"), skipped("b"), skipped("c"))), "Running " + ending + " [Running Skipped Skipped]"},
		"the step has ended":       {mirrored(halt("cancelled"), containers(cancelled, skipped("b"), skipped("c"))), "Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]"},
		"it is being started":      {mirrored(phase(corev1.PodPending), containers(waiting("a", "PodInitializing", ""))), "Pending " + ending + " [Waiting Waiting Waiting]"},
		"no node takes the Pod":    {mirrored(unscheduled), "Cancelled Failed Cancelled: spec.cancel is true; the Pod \"example\" was deleted, because no node had taken it [Skipped Skipped Skipped]"},
		"the Pod is being deleted": {mirrored(deleted, containers(running("a"), running("b"), running("c"))), "Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]"},
		"the Pod was evicted":      {mirrored(phase(corev1.PodFailed), func(pod *corev1.Pod) { pod.Status.Reason = "Evicted" }), "Cancelled Failed Cancelled: spec.cancel is true [Skipped Skipped Skipped]"},
		"all had ended well":       {mirrored(containers(succeeded("a"), succeeded("b"), succeeded("c"))), "Succeeded Complete StepsSucceeded: all steps succeeded [Succeeded Succeeded Succeeded]"},
		"attempts are left": {
			asked(func(spec *v1alpha1.TaskSpec) { spec.BackoffLimit = 3 }, mirrored(phase(corev1.PodFailed), containers(cancelled))),
			"Cancelled Failed Cancelled: spec.cancel is true [Failed Skipped Skipped]",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cancel := asked(func(spec *v1alpha1.TaskSpec) { spec.Cancel = true }, c.pod)
			status := statusAfter(cancel)
			var says *metav1.Condition
			for _, kind := range []string{v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionProgressing} {
				if says = meta.FindStatusCondition(status.Conditions, kind); says != nil {
					break
				}
			}
			got := fmt.Sprintf("%s %s %s: %s [%s]", status.Phase, says.Type, says.Reason, says.Message, states(status.Steps))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			n := statusOf(&v1alpha1.Task{}, 5*time.Minute)
			if cancel(n); n.halt == "" {
				t.Error("the Pod isn't to be halted")
			}
			assertStays(t, cancel)
		})
	}
}

// TestMirrorGrace proves how long a container that can't be started is waited for, and what for not at all.
func TestMirrorGrace(t *testing.T) {
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

// TestStartFailedMessage proves that a Task which failed because a container couldn't start says that, why, and that creating it again is what helps;
// and that the cause alone is said if another Pod follows.
func TestStartFailedMessage(t *testing.T) {
	const lasted = "; this lasted 30s (--start-grace-period)"
	const again = "; the Task has failed: fix the cause, then create the Task again"
	cases := map[string]struct {
		reason, message string
		backoffLimit    int32
		want            string
	}{
		"a Secret is missing":           {"CreateContainerConfigError", `secret "db" not found`, 0, `container "b" can't start: secret "db" not found` + lasted + again},
		"an invalid name, at once":      {"InvalidImageName", "bad", 0, `container "b" can't start: bad` + again},
		"another Pod follows":           {"CreateContainerConfigError", "x", 1, `container "b" can't start: x` + lasted},
		"a cause of a thousand letters": {"CreateContainerConfigError", strings.Repeat("x", 1100), 0, `container "b" can't start: ` + strings.Repeat("x", 1000-3-27-len(lasted+again)) + "…" + lasted + again},
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

// TestCompleteWithAFailure proves that a Task whose failed step was passed over is Complete, and says so.
func TestCompleteWithAFailure(t *testing.T) {
	status := statusAfter(mirrored(order("3"), annotated(contract.OptionsAnnotation, `{"b":{"continueOnError":true}}`), containers(succeeded("a"), failedWith("b", 3), succeeded("c")), phase(corev1.PodFailed)))
	const ok = `StepsSucceeded: all steps have ended; step "b" failed with exit code 3, which does not fail the Task (onError: Continue)`
	want := view{
		Phase: "Succeeded", PodName: "example", Order: 3, Progress: "3/3", Steps: "Succeeded Failed Succeeded",
		Started: "12:00:00", Completed: "12:01:05", Duration: "65s", Complete: "True " + ok, Progressing: "False " + ok,
	}
	if diff := cmp.Diff(want, viewOf(status)); diff != "" {
		t.Errorf("the status (-want +got):\n%s", diff)
	}
}

// TestNextStatus proves that a new status begins with the old one, is its own, and says of which generation it and its changed
// conditions are.
func TestNextStatus(t *testing.T) {
	task := &v1alpha1.Task{Status: statusAfter(suspended)}
	task.Generation = 7
	before := task.DeepCopy()
	n := statusOf(task, 5*time.Minute)
	want := before.Status.DeepCopy()
	want.ObservedGeneration = 7
	if diff := cmp.Diff(*want, n.TaskStatus); diff != "" {
		t.Errorf("nextStatus (-want +got):\n%s", diff)
	}

	mirrored(containers(running("a")))(n)
	if diff := cmp.Diff(before, task); diff != "" {
		t.Errorf("the Task has changed with its next status (-before +after):\n%s", diff)
	}
	for _, condition := range n.Conditions {
		if condition.ObservedGeneration != 7 {
			t.Errorf("the condition %s is of generation %d, want 7", condition.Type, condition.ObservedGeneration)
		}
	}
}

// TestFinished proves which conditions end a Task.
func TestFinished(t *testing.T) {
	cases := map[string]struct {
		status v1alpha1.TaskStatus
		want   bool
	}{
		"new":       {statusAfter(), false},
		"suspended": {statusAfter(suspended), false},
		"waiting":   {statusAfter(refused), false},
		"running":   {statusAfter(mirrored(containers(running("a")))), false},
		"failed":    {statusAfter(conflict), true},
		"complete":  {statusAfter(mirrored(containers(succeeded("a"), succeeded("b"), succeeded("c")))), true},
		"Failed is False": {
			v1alpha1.TaskStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionFailed, Status: metav1.ConditionFalse}}},
			false,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := finished(&c.status); got != c.want {
				t.Errorf("finished = %t, want %t", got, c.want)
			}
		})
	}
}

// TestProgressOfAStoppedStep proves that a step which was stopped with its Pod counts as not done, in PROGRESS and STEP too, although its command
// ended with 0.
func TestProgressOfAStoppedStep(t *testing.T) {
	told := exited("b", 0, "Completed", contract.Record{FinishedAt: ended, Reason: contract.ReasonStopped}.Marshal())
	waited := exited("c", 143, "Error", contract.Record{FinishedAt: ended, ExitCode: 143, Reason: contract.ReasonTerminated}.Marshal())
	status := statusAfter(mirrored(order("3"), phase(corev1.PodFailed), containers(succeeded("a"), told, waited), func(pod *corev1.Pod) {
		pod.Status.Reason = "DeadlineExceeded"
	}))
	got := []string{status.Progress, status.CurrentStep, string(status.Steps[1].State), status.Steps[1].Reason, string(status.Steps[2].State)}
	if diff := cmp.Diff([]string{"1/3", "b", "Failed", "DeadlineExceeded", "Skipped"}, got); diff != "" {
		t.Errorf("progress, step, and how the steps ended (-want +got):\n%s", diff)
	}
}
