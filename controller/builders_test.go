package controller

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// The times of the tests: the Pod is created, its steps start and end, and the controller looks.
var (
	created  = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	started  = created.Add(2 * time.Second)
	ended    = created.Add(65 * time.Second)
	lookedAt = created.Add(3 * time.Minute)
)

// edit changes a Pod.
type edit = func(*corev1.Pod)

// newTask returns a Task with the containers as its steps.
func newTask(steps ...corev1.Container) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example", Namespace: "default", UID: "task"}}
	for _, step := range steps {
		step.Image = cmp.Or(step.Image, "busybox")
		task.Spec.Steps = append(task.Spec.Steps, v1alpha1.Step{Container: step})
	}
	return task
}

// sequential returns a gated Pod with the steps a, b and c, of which the first is released.
func sequential(edits ...edit) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:              "example",
			Namespace:         "default",
			UID:               "pod",
			CreationTimestamp: metav1.Time{Time: created},
			Annotations:       map[string]string{contract.StepsAnnotation: "a,b,c", contract.OrderAnnotation: "1"},
		},
		Spec:   corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, edit := range edits {
		edit(pod)
	}
	return pod
}

func annotated(key, value string) edit {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

func order(value string) edit { return annotated(contract.OrderAnnotation, value) }

// byAnnotation makes the annotation alone release steps: the agents do not hand over.
func byAnnotation(pod *corev1.Pod) {
	annotated(contract.HandoffAnnotation, contract.HandoffController)(pod)
}

// mayFail makes the sequence go on when the step has failed.
func mayFail(step string) edit {
	return annotated(contract.OptionsAnnotation, contract.Options{step: {ContinueOnError: true}}.Marshal())
}

// mountsAgent delivers the agent as an image volume.
func mountsAgent(pod *corev1.Pod) {
	pod.Spec.Volumes = []corev1.Volume{{Name: contract.BinVolume, VolumeSource: corev1.VolumeSource{
		Image: &corev1.ImageVolumeSource{Reference: "taskflow/agent:1"},
	}}}
}

// ofImage sets the image of a container.
func ofImage(container corev1.ContainerStatus, image string) corev1.ContainerStatus {
	container.Image = image
	return container
}

func halt(why string) edit { return annotated(contract.HaltAnnotation, why) }

func containers(statuses ...corev1.ContainerStatus) edit {
	return func(pod *corev1.Pod) { pod.Status.ContainerStatuses = statuses }
}

func restartPolicy(policy corev1.RestartPolicy) edit {
	return func(pod *corev1.Pod) { pod.Spec.RestartPolicy = policy }
}

func phase(phase corev1.PodPhase) edit {
	return func(pod *corev1.Pod) { pod.Status.Phase = phase }
}

// deleted marks the Pod as just deleted, with a grace period left for its containers.
func deleted(pod *corev1.Pod) {
	pod.DeletionTimestamp = &metav1.Time{Time: lookedAt.Add(30 * time.Second)}
}

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: created}},
	}}
}

func isReady(container corev1.ContainerStatus) corev1.ContainerStatus {
	container.Ready = true
	return container
}

func waiting(name, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message},
	}}
}

// exited returns a container that has ended, and left a termination message.
func exited(name string, code int32, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, Message: message,
			StartedAt: metav1.Time{Time: created}, FinishedAt: metav1.Time{Time: ended},
		},
	}}
}

func succeeded(name string) corev1.ContainerStatus { return exited(name, 0, "Completed", "") }

func failedWith(name string, code int32) corev1.ContainerStatus {
	return exited(name, code, "Error", "")
}

// skipped returns a container whose agent never ran the command.
func skipped(name string) corev1.ContainerStatus {
	return exited(name, 0, "Completed", contract.Record{FinishedAt: ended, Reason: contract.ReasonSkipped, Message: "halted"}.Marshal())
}

// states returns the steps' states in one line.
func states(steps []v1alpha1.StepStatus) string {
	var all []string
	for _, step := range steps {
		all = append(all, string(step.State))
	}
	return strings.Join(all, " ")
}

// randomPod returns a Pod with up to six steps in any states, also in states that no kubelet would report.
func randomPod(t *testing.T, random *rand.Rand) *corev1.Pod {
	t.Helper()
	var names []string
	var statuses []corev1.ContainerStatus
	for i := range 1 + random.IntN(6) {
		name := fmt.Sprintf("s%d", i)
		names = append(names, name)
		if status := randomStatus(random, name); status != nil {
			statuses = append(statuses, *status)
		}
	}
	if status := randomStatus(random, "no-step"); status != nil {
		statuses = append(statuses, *status)
	}
	random.Shuffle(len(statuses), func(i, j int) { statuses[i], statuses[j] = statuses[j], statuses[i] })

	pod := sequential(
		annotated(contract.StepsAnnotation, contract.FormatSteps(names)),
		containers(statuses...),
		order(pick(random, "", "x", "-1", "1", "1", strconv.Itoa(random.IntN(len(names)+2)))),
		phase(pick(random, "", corev1.PodPending, corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed)),
		restartPolicy(pick(random, corev1.RestartPolicyNever, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure)),
	)
	if random.IntN(8) == 0 {
		halt("a user's reason")(pod)
	}
	if random.IntN(8) == 0 {
		deleted(pod)
	}
	if random.IntN(2) == 0 {
		mountsAgent(pod)
	}
	if random.IntN(8) == 0 {
		pod.Status.Reason, pod.Status.Message = "Evicted", "no space left"
	}
	if random.IntN(4) == 0 {
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{exited("init", 1, "Error", "")}
	}
	if random.IntN(8) == 0 {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
	}
	return pod
}

func randomStatus(random *rand.Rand, name string) *corev1.ContainerStatus {
	record := contract.Record{
		FinishedAt: ended,
		ExitCode:   pick(random, 0, 0, 1),
		Reason:     pick(random, "", contract.ReasonSkipped, contract.ReasonStartError),
	}
	switch random.IntN(8) {
	case 0:
		return nil
	case 1:
		return new(ofImage(waiting(name, pick(random, "", "PodInitializing", "ImagePullBackOff"), pick(random, "why", "taskflow/agent:1")), "busybox"))
	case 2, 3:
		return new(running(name))
	default:
		code := pick(random, int32(0), 0, 0, 0, 0, 0, 1, 137)
		return new(exited(name, code, pick(random, "", "Completed", "Error", "OOMKilled"), pick(random, "", "", "mine", record.Marshal())))
	}
}

func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }
