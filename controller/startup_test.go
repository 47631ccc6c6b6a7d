package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
)

// bound puts a Pod on a node, where it has not started.
func bound(pod *corev1.Pod) {
	pod.Status.Phase = corev1.PodPending
	pod.Spec.NodeName = "node-1"
}

// creating has the kubelet create the containers.
var creating = containers(
	ofImage(waiting("a", "ContainerCreating", ""), "busybox:1"), waiting("b", "ContainerCreating", ""), waiting("c", "ContainerCreating", ""))

func unstarted(pod *corev1.Pod) {
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse})
}

// sidecar adds a running sidecar.
func sidecar(name string, hasProbe, isStarted bool) edit {
	return func(pod *corev1.Pod) {
		container := corev1.Container{Name: name, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}
		if hasProbe {
			container.StartupProbe = &corev1.Probe{PeriodSeconds: 1}
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, container)
		status := running(name)
		status.Started = &isStarted
		pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, status)
	}
}

func initStatus(status corev1.ContainerStatus) edit {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: status.Name})
		pod.Status.InitContainerStatuses = append(pod.Status.InitContainerStatuses, status)
	}
}

// TestFindStartWait proves that the cause is named if a Pod does not start: from its status, or from its newest event. The answer is the same
// for a Pod from the cache.
func TestFindStartWait(t *testing.T) {
	report := func(second int, reason, note string) startReport {
		return startReport{at: created.Add(time.Duration(second) * time.Second), reason: reason, note: note}
	}
	of := func(container string, r startReport) startReport {
		r.container = container
		return r
	}
	const noSecret = `MountVolume.SetUp failed for volume "keys" : secret "keys" not found`
	cases := map[string]struct {
		pod     *corev1.Pod
		reports []startReport
		want    string
	}{
		"no scheduler": {
			sequential(phase(corev1.PodPending), func(pod *corev1.Pod) { pod.Spec.SchedulerName = "mine" }), nil,
			`False NoScheduler: no scheduler has handled the Pod: check spec.template.spec.schedulerName, and that a scheduler named "mine" runs`,
		},
		"a node that is away": {
			sequential(bound), nil,
			`False NodeNotResponding: the kubelet of node "node-1" has not reported on the Pod: check that the node exists and is ready`,
		},
		"no event": {sequential(bound, creating), nil, "nothing"},
		"a Secret is missing": {
			sequential(bound, creating), []startReport{report(1, "FailedMount", noSecret)},
			"False FailedMount: a volume cannot be mounted: " + noSecret + " (a mistake)",
		},
		"a Secret is missing, and the kubelet sums up": {
			sequential(bound, creating),
			[]startReport{report(1, "FailedMount", noSecret), report(120, "FailedMount", "Unable to attach or mount volumes: unmounted volumes=[keys]")},
			"False FailedMount: a volume cannot be mounted: " + noSecret + " (a mistake)",
		},
		"a key is missing": {
			sequential(bound, creating), []startReport{report(1, "FailedMount", `MountVolume.SetUp failed for volume "c" : references non-existent config key: x`)},
			`False FailedMount: a volume cannot be mounted: MountVolume.SetUp failed for volume "c" : references non-existent config key: x (a mistake)`,
		},
		"a file server is away": {
			sequential(bound, creating), []startReport{report(1, "FailedMount", "mount.nfs: Connection timed out")},
			"False FailedMount: a volume cannot be mounted: mount.nfs: Connection timed out",
		},
		"a disk is attached elsewhere": {
			sequential(bound, creating), []startReport{report(1, "FailedAttachVolume", "Multi-Attach error for volume x")},
			"False FailedAttachVolume: a volume cannot be attached: Multi-Attach error for volume x",
		},
		"a disk was attached elsewhere": {
			sequential(bound, creating),
			[]startReport{report(1, "FailedAttachVolume", "Multi-Attach error for volume x"), report(1, "SuccessfulAttachVolume", "done")},
			"nothing",
		},
		"no sandbox": {
			sequential(bound, creating), []startReport{report(1, "FailedCreatePodSandBox", `no runtime for "x" is configured`)},
			`False FailedCreatePodSandBox: the node cannot create the Pod's sandbox: no runtime for "x" is configured`,
		},
		"an image is being pulled": {
			sequential(bound, creating), []startReport{report(1, "FailedMount", noSecret), of("a", report(2, "Pulling", `Pulling image "busybox:1"`))},
			`True PullingImage: the node is pulling the image "busybox:1" of container "a"`,
		},
		"an image was pulled": {
			sequential(bound, creating), []startReport{of("a", report(2, "Pulling", `Pulling image "busybox:1"`)), of("a", report(2, "Pulled", "done"))},
			"nothing",
		},
		"an image was pulled, and no event says so": {
			sequential(bound, containers(running("a"), waiting("b", "ContainerCreating", ""))), []startReport{of("a", report(2, "Pulling", `Pulling image "busybox:1"`))},
			"nothing",
		},
		"an image volume is being pulled": {
			sequential(bound, creating), []startReport{report(2, "Pulling", `Pulling image "models:1"`)},
			`True PullingImage: the node is pulling an image for the Pod: Pulling image "models:1"`,
		},
		"an init container runs": {
			sequential(bound, creating, initStatus(succeeded("taskflow-agent")), initStatus(running("prepare"))), nil,
			`True InitContainerRunning: init container "prepare" is running, and the steps wait for its end`,
		},
		"an init container has yet to start": {
			sequential(bound, creating, initStatus(ofImage(waiting("prepare", "PodInitializing", ""), "big:1"))),
			[]startReport{of("prepare", report(2, "Pulling", `Pulling image "big:1"`))},
			`True PullingImage: the node is pulling the image "big:1" of container "prepare"`,
		},
		"a sidecar does not pass its startupProbe": {
			sequential(bound, creating, sidecar("first", false, true), sidecar("db", true, false), initStatus(waiting("prepare", "PodInitializing", ""))), nil,
			`False SidecarNotStarted: sidecar "db" has not started: its startupProbe has not succeeded`,
		},
		"a sidecar has a hook": {
			sequential(bound, creating, sidecar("db", false, false)), nil,
			`False SidecarNotStarted: sidecar "db" has not started: its lifecycle.postStart hook has not finished`,
		},
		"helpers that are not ready": {
			sequential(order("0"), containers(running("a"), running("y"), isReady(running("z")), running("x"), succeeded("w"), running("b"), running("c"))), nil,
			`False ContainersNotReady: the first step waits for containers that are not ready: "x", "y"`,
		},
		"between two steps": {sequential(order("2"), containers(succeeded("a"), succeeded("b"), running("c"))), nil, "nothing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for from, pod := range map[string]*corev1.Pod{"the API server": c.pod, "the cache": strip(t, c.pod)} {
				got := "nothing"
				if wait := findStartWait(pod, c.reports); wait != nil {
					got = fmt.Sprintf("%s %s: %s", wait.status, wait.reason, wait.message)
					if !isStartReason(wait.reason) {
						t.Errorf("the reason %s is unknown to isStartReason", wait.reason)
					}
					if wait.isMistake {
						got += " (a mistake)"
					}
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("the Pod from %s waits for (-want +got):\n%s", from, diff)
				}
			}
		})
	}
}

// TestStartWaitTimes proves when a Task says what its Pod waits for, when it is reconciled again, and that only a mistake makes it fail.
func TestStartWaitTimes(t *testing.T) {
	missing := []startReport{{at: created, reason: "FailedMount", note: `secret "keys" not found`}}
	passing := []startReport{{at: created, reason: "FailedAttachVolume", note: "Multi-Attach error"}}
	cases := map[string]struct {
		reason  string        // of the condition Progressing
		since   time.Duration // how long ago it changed
		reports []startReport
		reads   bool // whether events are to be read
		want    string
		again   time.Duration
		failed  bool
	}{
		"at first":                      {"", 0, nil, false, "PodCreated", startPatience, false},
		"after a while":                 {"PodCreated", 4 * time.Second, missing, false, "PodCreated", 6 * time.Second, false},
		"too long":                      {"PodCreated", startPatience, missing, true, "FailedMount", startPatience, false},
		"too long, for no known cause":  {"PodCreated", time.Hour, []startReport{}, true, "PodCreated", startCheck, false},
		"too long, and nothing is read": {"PodCreated", time.Hour, nil, true, "PodCreated", startCheck, false},
		"still":                         {"FailedMount", time.Minute, missing, true, "FailedMount", startCheck, false},
		"still, and nothing is read":    {"FailedMount", time.Hour, nil, true, "FailedMount", startCheck, false},
		"shortly before the grace":      {"FailedMount", 299 * time.Second, missing, true, "FailedMount", time.Second, false},
		"for too long":                  {"FailedMount", 5 * time.Minute, missing, true, "FailedMount", startCheck, true},
		"what may pass":                 {"FailedAttachVolume", time.Hour, passing, true, "FailedAttachVolume", startCheck, false},
		"it has passed":                 {"FailedMount", time.Hour, []startReport{}, true, "PodCreated", startPatience, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			task := &v1alpha1.Task{Spec: v1alpha1.TaskSpec{Steps: make([]v1alpha1.Step, 3)}}
			if c.reason != "" {
				task.Status.Conditions = []metav1.Condition{{
					Type: v1alpha1.ConditionProgressing, Status: metav1.ConditionFalse, Reason: c.reason, LastTransitionTime: metav1.Time{Time: lookedAt.Add(-c.since)},
				}}
				if c.reason == v1alpha1.ReasonPodCreated {
					task.Status.Conditions[0].Status = metav1.ConditionTrue
				}
			}
			f := facts{task: task, now: lookedAt, startGrace: 5 * time.Minute, pod: sequential(bound, creating), reports: c.reports}
			if got := f.needsReports(); got != c.reads {
				t.Errorf("needsReports is %v", got)
			}
			n := decide(f)
			type seen struct {
				Reason         string
				Again          time.Duration
				Failed, Halted bool
			}
			want := seen{c.want, c.again, c.failed, c.failed}
			got := seen{meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionProgressing).Reason, n.again, finished(&n.TaskStatus), n.halt != ""}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("what comes of it (-want +got):\n%s", diff)
			}
			if failed := meta.FindStatusCondition(n.Conditions, v1alpha1.ConditionFailed); failed != nil {
				const want = `a volume cannot be mounted: secret "keys" not found; this lasted 5m0s (--start-grace-period); the Task has failed: fix the cause, then create the Task again`
				if diff := cmp.Diff(want, failed.Message); diff != "" {
					t.Errorf("the condition Failed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestSchedulingGates proves that the condition names the scheduling gates.
func TestSchedulingGates(t *testing.T) {
	pod := sequential(phase(corev1.PodPending), func(pod *corev1.Pod) {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/quota"}, {Name: "example.com/licence"}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated}}
	})
	status := statusAfter(func(n *next) {
		n.task.Spec.Steps = make([]v1alpha1.Step, 3)
		look(n, strip(t, pod), lookedAt)
	})
	want := "False SchedulingGated: the Pod is not scheduled before its scheduling gates are removed: example.com/quota, example.com/licence"
	if diff := cmp.Diff(want, viewOf(status).Progressing); diff != "" {
		t.Errorf("the condition Progressing (-want +got):\n%s", diff)
	}
}

// TestHaltEndsUnstartedPod proves that a Pod is ended if it was halted before its node started a container: it would run its init containers
// as soon as its volumes and network are ready.
func TestHaltEndsUnstartedPod(t *testing.T) {
	cases := map[string]struct {
		pod  *corev1.Pod
		want bool
	}{
		"nothing has started":             {sequential(bound, creating, unstarted, halt("why")), true},
		"nothing has started, no halt":    {sequential(bound, creating, unstarted), false},
		"an init container runs":          {sequential(bound, creating, initStatus(running("prepare")), halt("why")), false},
		"its network is gone, and it ran": {sequential(containers(succeeded("a"), running("b"), running("c")), unstarted, halt("why")), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := observe(strip(t, c.pod)).end; got != c.want {
				t.Errorf("end is %v", got)
			}
		})
	}
}

// eventReader has the events of one Pod, records the reads, and may fail.
type eventReader struct {
	client.Reader
	events []eventsv1.Event
	reads  []string
	err    error
}

func (r *eventReader) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(options)
	r.reads = append(r.reads, o.Namespace+" "+o.FieldSelector.String())
	list.(*eventsv1.EventList).Items = r.events
	return r.err
}

// TestStartReports proves what is read of events, and that events are read rarely: for each Pod, and for all Pods.
func TestStartReports(t *testing.T) {
	pod := sequential(bound)
	reader := &eventReader{events: []eventsv1.Event{
		{Reason: "FailedMount", Note: "no Secret \n", DeprecatedLastTimestamp: metav1.Time{Time: ended}},
		{Reason: "FailedMount", Note: "mine", ReportingController: reporter},
		{Reason: "Scheduled", Note: "no matter"},
		{
			Reason: "Pulling", Note: "an image", EventTime: metav1.MicroTime{Time: created}, Series: &eventsv1.EventSeries{LastObservedTime: metav1.MicroTime{Time: lookedAt}},
			Regarding: corev1.ObjectReference{FieldPath: "spec.containers{a}"},
		},
	}}
	var (
		reports           reportReader
		known, ofTheOther podReports
	)
	read := func(known *podReports, pod *corev1.Pod, after time.Duration) []startReport {
		return reports.read(t.Context(), reader, known, pod, lookedAt.Add(after))
	}
	want := []startReport{{at: ended, reason: "FailedMount", note: "no Secret"}, {at: lookedAt, reason: "Pulling", note: "an image", container: "a"}}
	if diff := cmp.Diff(want, read(&known, pod, 0), cmp.AllowUnexported(startReport{})); diff != "" {
		t.Errorf("the reports (-want +got):\n%s", diff)
	}
	if got := read(&known, pod, startCheck-1); len(got) != 2 {
		t.Errorf("soon after, they are %v", got)
	}
	other := sequential(bound, func(pod *corev1.Pod) { pod.UID = "other" })
	if got := read(&ofTheOther, other, reportInterval/2); got != nil {
		t.Errorf("those of another Pod are read at once: %v", got)
	}
	if diff := cmp.Diff([]string{"default regarding.uid=pod"}, reader.reads); diff != "" {
		t.Errorf("the reads (-want +got):\n%s", diff)
	}
	read(&ofTheOther, other, reportInterval)
	read(&known, pod, startCheck)
	reader.err, reader.events = errors.New("forbidden"), nil
	if got := read(&known, pod, 2*startCheck); len(got) != 2 {
		t.Errorf("after a failure, they are %v", got)
	}
	reader.err = nil
	known = podReports{}
	if got := read(&known, pod, 2*startCheck+reportPause-1); got != nil {
		t.Errorf("soon after a failure in the namespace, they are %v", got)
	}
	if got := read(&known, pod, 2*startCheck+reportPause); got == nil || len(got) != 0 {
		t.Errorf("of a Pod without events, they are %v", got)
	}
	if len(reader.reads) != 5 {
		t.Errorf("the reads are %q", reader.reads)
	}
}
