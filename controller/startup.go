package controller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

const (
	// startPatience is how long a Pod may take to start before the status says what the Pod waits for. Most Pods take less, and cost no
	// further status write.
	startPatience = 10 * time.Second
	// startCheck is how soon a Pod that is still starting is checked again. Its events change while the Pod itself does not.
	startCheck = 15 * time.Second
)

// startWait is what a Pod waits for while it starts: the content of the condition Progressing.
type startWait struct {
	status          metav1.ConditionStatus
	reason, message string
	// isMistake reports whether a user must fix it. The start grace period bounds such a wait.
	isMistake bool
}

// startFailures are the reasons of events with which a kubelet says why a Pod can't start, and what each means.
var startFailures = map[string]string{
	"FailedMount":                   "a volume cannot be mounted",
	"FailedMapVolume":               "a volume cannot be mounted",
	"FailedAttachVolume":            "a volume cannot be attached",
	"FailedCreatePodSandBox":        "the node cannot create the Pod's sandbox",
	"FailedCreatePodContainer":      "the node cannot set up the Pod",
	"FailedPrepareDynamicResources": "the node cannot prepare the Pod's resource claims",
	"NetworkNotReady":               "the node's network is not ready",
}

// startSteps are the reasons of events that tell progress of a Pod's start. A failure before one of them is over.
var startSteps = []string{"SuccessfulAttachVolume", "Pulling", "Pulled", "Created", "Started"}

// startReasons are the reasons that findStartWait gives beyond those in startFailures.
var startReasons = []string{
	v1alpha1.ReasonNoScheduler, v1alpha1.ReasonNodeNotResponding, v1alpha1.ReasonInitContainerRunning,
	v1alpha1.ReasonSidecarNotStarted, v1alpha1.ReasonContainersNotReady, v1alpha1.ReasonPullingImage,
}

// isStartReason reports whether the reason of the condition Progressing is one that findStartWait gives.
func isStartReason(reason string) bool {
	return slices.Contains(startReasons, reason) || startFailures[reason] != ""
}

// isStarting reports whether a Pod has containers that have not started yet.
func isStarting(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodPending || pod.Status.Phase == ""
}

// isUnstarted reports whether no container of the Pod has started on its node: the kubelet prepares volumes and network first.
func isUnstarted(pod *corev1.Pod) bool {
	return isStarting(pod) && findCondition(pod, corev1.PodReadyToStartContainers, corev1.ConditionFalse) != nil
}

// isOverdue reports whether the Pod has been starting for so long that the Task says what the Pod waits for. It depends on the condition
// Progressing as it was last written.
func isOverdue(progress *metav1.Condition, now time.Time) bool {
	if progress != nil && (progress.Reason == v1alpha1.ReasonPodCreated || progress.Reason == v1alpha1.ReasonStepWaiting) {
		return now.Sub(progress.LastTransitionTime.Time) >= startPatience
	}
	return progress != nil && isStartReason(progress.Reason)
}

// needsReports reports whether the Pod's events would say more than its status about what it waits for.
func (f facts) needsReports() bool {
	return f.pod != nil && isStarting(f.pod) && f.pod.DeletionTimestamp == nil && !f.task.Spec.Cancel &&
		isOverdue(meta.FindStatusCondition(f.task.Status.Conditions, v1alpha1.ConditionProgressing), f.now) &&
		f.pod.Spec.NodeName != "" && len(f.pod.Status.ContainerStatuses) > 0
}

// starting sets the condition Progressing while no step runs: to the usual wait at first, and to what the Pod waits for if that takes long.
func (n *next) starting(wait *startWait) {
	if isOverdue(n.progress(), n.now) {
		switch found := findStartWait(n.pod, n.reports); {
		case found != nil:
			wait = found
		case n.reports == nil && isStartReason(n.progress().Reason) && n.pod.Spec.NodeName != "": // the events could not be read this time
			n.again = startCheck
			return
		}
	}
	n.progressing(wait.status, wait.reason, wait.message)
	waited := n.now.Sub(n.progress().LastTransitionTime.Time)
	n.again = startCheck
	if waited < startPatience {
		n.again = startPatience - max(0, waited)
	}
	switch left := n.startGrace - waited; {
	case !wait.isMistake:
	case left > 0:
		n.again = min(n.again, left)
	default:
		n.halts(wait.message)
		n.startFailed(wait.reason, wait.message, true)
	}
}

// waits returns a wait in which nothing goes on, and works one in which something does.
func waits(reason, format string, args ...any) *startWait {
	return &startWait{status: metav1.ConditionFalse, reason: reason, message: fmt.Sprintf(format, args...)}
}

func works(reason, format string, args ...any) *startWait {
	return &startWait{status: metav1.ConditionTrue, reason: reason, message: fmt.Sprintf(format, args...)}
}

// findStartWait returns what the Pod waits for, or nil if that is unknown. The reports are from the Pod's events.
func findStartWait(pod *corev1.Pod, reports []startReport) *startWait {
	switch {
	case pod.Spec.NodeName == "" && isStarting(pod):
		return waits(v1alpha1.ReasonNoScheduler,
			"no scheduler has handled the Pod: check spec.template.spec.schedulerName, and that a scheduler named %q runs", pod.Spec.SchedulerName)
	case len(pod.Status.ContainerStatuses) == 0:
		return waits(v1alpha1.ReasonNodeNotResponding,
			"the kubelet of node %q has not reported on the Pod: check that the node exists and is ready", pod.Spec.NodeName)
	}
	if wait := initWait(pod); wait != nil {
		return wait
	}
	if isStarting(pod) {
		return reportWait(pod, reports)
	}
	return helperWait(pod)
}

// initWait returns the init container that the Pod waits for, if one runs.
func initWait(pod *corev1.Pod) *startWait {
	for _, container := range pod.Status.InitContainerStatuses {
		if hasSucceeded(container) {
			continue
		}
		sidecar := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == container.Name && isSidecar(c) })
		switch {
		case container.State.Running == nil:
			return nil // the events say why
		case sidecar < 0:
			return works(v1alpha1.ReasonInitContainerRunning, "init container %q is running, and the steps wait for its end", container.Name)
		case !ptr.Deref(container.Started, false):
			what := "lifecycle.postStart hook has not finished"
			if pod.Spec.InitContainers[sidecar].StartupProbe != nil {
				what = "startupProbe has not succeeded"
			}
			return waits(v1alpha1.ReasonSidecarNotStarted, "sidecar %q has not started: its %s", container.Name, what)
		}
	}
	return nil
}

// isSidecar reports whether an init container is a native sidecar.
func isSidecar(container corev1.Container) bool {
	return ptr.Deref(container.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways
}

// helperWait returns the helpers that the first step waits for because they are not ready, if there are any.
func helperWait(pod *corev1.Pod) *startWait {
	if released(pod) > 0 {
		return nil
	}
	steps := podspec.StepNames(pod)
	var names []string
	for _, container := range pod.Status.ContainerStatuses {
		if !slices.Contains(steps, container.Name) && !container.Ready && !hasSucceeded(container) {
			names = append(names, fmt.Sprintf("%q", container.Name))
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return waits(v1alpha1.ReasonContainersNotReady, "the first step waits for containers that are not ready: %s", strings.Join(names, ", "))
}

// startReport is what an event says about the start of a Pod.
type startReport struct {
	at           time.Time
	reason, note string
	container    string // that the event is about; empty for the Pod
}

// reportWait returns what the newest report says that the Pod waits for, or nil.
func reportWait(pod *corev1.Pod, reports []startReport) *startWait {
	if len(reports) == 0 {
		return nil
	}
	newest := slices.MaxFunc(reports, compareReports)
	what, fails := startFailures[newest.reason]
	switch {
	case fails:
		wait := waits(newest.reason, "%s: %s", what, newest.note)
		wait.isMistake = strings.HasPrefix(newest.reason, "FailedM") && isMissing(newest.note)
		return wait
	case newest.reason != "Pulling":
		return nil
	}
	all := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == newest.container })
	switch {
	case i < 0:
		return works(v1alpha1.ReasonPullingImage, "the node is pulling an image for the Pod: %s", newest.note)
	case all[i].State.Waiting == nil: // pulled, although no event says so
		return nil
	}
	return works(v1alpha1.ReasonPullingImage, "the node is pulling the image %q of container %q", all[i].Image, newest.container)
}

// compareReports orders reports by their time. Of two failures to mount, the kubelet's summary ("Unable to attach or mount volumes: ...")
// comes first, because the other one names the cause; events have whole seconds, and in one of them progress comes after failures.
func compareReports(a, b startReport) int {
	const summary = "Unable to attach or mount volumes"
	if aSums, bSums := strings.HasPrefix(a.note, summary), strings.HasPrefix(b.note, summary); a.reason == b.reason && aSums != bSums {
		if aSums {
			return -1
		}
		return 1
	}
	return cmp.Or(a.at.Compare(b.at), slices.Index(startSteps, a.reason)-slices.Index(startSteps, b.reason))
}

// isMissing reports whether a kubelet's message about a volume says that a user must create or fix something: a Secret, a ConfigMap, a key or a
// directory on the node. Other failures, such as an unreachable file server, may pass.
func isMissing(note string) bool {
	signs := []string{"not found", "non-existent", "hostPath type check failed"}
	return slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(note, sign) })
}
