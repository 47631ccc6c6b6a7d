package controller

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// A story is a sequence of bytes that encodes what happens to a Task and its Pod: first the Task (storyTask), then one event after another, each
// as a byte that names it and bytes with its details. It may contain what no kubelet would do. It ends with the bytes.
const (
	aContainer  = iota // step, state: see storyState
	aHelper            // state
	anInit             // state: of an init container
	aPhase             // 0 Pending, 1 Running, 2 Succeeded, 3 Failed
	aReason            // 0 none, 1 Evicted, 2 DeadlineExceeded
	aCondition         // 0 no node, 1 a node, 2 disrupted
	aDeletion          // the Pod is being deleted
	theEnd             // the Pod is gone
	aCancel            // spec.cancel is true; the second time, spec.cancelFinally too
	aUser              // 0 sets halt, 1 raises the order, 2 spoils the order, 3 changes the steps, 4 spoils the options
	aMinute            // passes
	storyEvents        // how many there are
)

// States of a container in a story.
const (
	isWaiting = iota
	isStuck
	hasBadName
	isRunning
	succeeded0
	failedWith1
	wasKilled137
	wasTerminated // told to stop while it waited
	wasCancelled
	wasSkipped
	ranOutOfMemory
	cantExecute
	wroteAMessage
	wasInterrupted0 // told to stop while it ran
	wasInterrupted143
	isGone
	finished78   // a rule says that the sequence is finished
	continued3   // exits with 0, and the record says that the command failed
	wasWhenFalse // a condition did not hold
	waitedInVain // for a halt
	storyStates
)

// teller reads a story.
type teller struct{ bytes []byte }

func (s *teller) isOver() bool { return len(s.bytes) == 0 }

// next returns a number from 0 up to the limit, which is excluded; 0 after the end.
func (s *teller) next(limit int) int {
	if s.isOver() {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b) % limit
}

func storyTask(s *teller) *v1alpha1.Task {
	task := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Name: "example", Namespace: "default", UID: "task", Generation: 1}}
	count, continues, onFailure := 1+s.next(4), s.next(16), s.next(2) == 1
	for i := range count {
		step := v1alpha1.Step{Container: corev1.Container{Name: fmt.Sprintf("s%d", i), Image: "x", Command: []string{"x"}}}
		if continues&(1<<i) != 0 && !onFailure { // admission refuses both at once
			step.OnError = v1alpha1.OnErrorContinue
		}
		task.Spec.Steps = append(task.Spec.Steps, step)
	}
	if onFailure {
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyOnFailure}}
	}
	task.Spec.BackoffLimit = int32(s.next(3))
	if shape := s.next(8); shape != 0 {
		s.shape(task, shape, onFailure)
	}
	return task
}

// shape makes some steps of the Task run side by side, on conditions, or finally, and gives it a timeout.
func (s *teller) shape(task *v1alpha1.Task, shape int, onFailure bool) {
	steps := task.Spec.Steps
	whens, rules, atEnd := s.next(16), s.next(16), s.next(16)
	for i := range steps {
		step := &steps[i]
		if whens&(1<<i) != 0 && i > 0 {
			step.When = []v1alpha1.Condition{{Step: steps[0].Name, State: &v1alpha1.StateTest{In: []v1alpha1.StepState{v1alpha1.StepSucceeded}}}}
		}
		if rules&(1<<i) != 0 {
			step.ExitCodes = []v1alpha1.ExitCodeRule{{In: []int32{78}, Then: v1alpha1.ExitCodeFinish}}
		}
		if atEnd&(1<<i) != 0 && !onFailure {
			step.OnError = v1alpha1.OnErrorFailAtEnd
		}
		if shape&1 == 0 {
			continue
		}
		step.DependsOn = []string{}
		for before, mask := 0, s.next(16); before < i; before++ {
			if mask&(1<<before) != 0 {
				step.DependsOn = append(step.DependsOn, steps[before].Name)
			}
		}
	}
	if shape&2 != 0 {
		for i := max(1, len(steps)-1-s.next(2)); i < len(steps); i++ {
			steps[i].Finally, steps[i].DependsOn = true, nil
		}
	}
	if shape&4 != 0 {
		task.Spec.Timeout, task.Spec.FinallyTimeout = &metav1.Duration{Duration: 3 * time.Minute}, &metav1.Duration{Duration: 2 * time.Minute}
	}
}

// storyPod returns the Task's next Pod, gated.
func storyPod(task *v1alpha1.Task) *corev1.Pod {
	pod := podspec.New(task, task.Status.Attempt, nil)
	pod.UID, pod.CreationTimestamp.Time = "pod", created
	pod.Annotations[contract.OrderAnnotation] = "1"
	pod.Status.Phase = corev1.PodPending
	return pod
}

// event applies the next event. It returns true if the Pod is gone.
func (s *teller) event(pod *corev1.Pod, task *v1alpha1.Task, now *time.Time) bool {
	status := &pod.Status
	switch s.next(storyEvents) {
	case aContainer:
		name := task.Spec.Steps[s.next(len(task.Spec.Steps))].Name
		status.ContainerStatuses = with(status.ContainerStatuses, name, s.state())
	case aHelper:
		status.ContainerStatuses = with(status.ContainerStatuses, "helper", s.state())
	case anInit:
		status.InitContainerStatuses = with(status.InitContainerStatuses, "init", s.state())
	case aPhase:
		status.Phase = []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed}[s.next(4)]
	case aReason:
		status.Reason = []string{"", "Evicted", "DeadlineExceeded"}[s.next(3)]
	case aCondition:
		status.Conditions = append(status.Conditions, []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"},
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler", Message: "preempted"},
		}[s.next(3)])
	case aDeletion:
		pod.DeletionTimestamp = &metav1.Time{Time: now.Add(30 * time.Second)}
	case theEnd:
		return true
	case aCancel:
		task.Spec.Cancel, task.Spec.CancelFinally = true, task.Spec.Cancel
		task.Generation++
	case aUser:
		switch order := pod.Annotations[contract.OrderAnnotation]; s.next(5) {
		case 0:
			if pod.Annotations[contract.HaltAnnotation] == "" {
				pod.Annotations[contract.HaltAnnotation] = "a user's reason"
			}
		case 1:
			pod.Annotations[contract.OrderAnnotation] = strconv.Itoa(released(pod) + 1)
		case 2:
			pod.Annotations[contract.OrderAnnotation] = "0" + order
		case 3:
			pod.Annotations[contract.StepsAnnotation] = "s0,other"
		case 4:
			pod.Annotations[contract.OptionsAnnotation] = "{"
		}
	case aMinute:
		*now = now.Add(time.Minute)
	}
	return false
}

func with(statuses []corev1.ContainerStatus, name string, state *corev1.ContainerState) []corev1.ContainerStatus {
	statuses = slices.DeleteFunc(slices.Clone(statuses), func(s corev1.ContainerStatus) bool { return s.Name == name })
	if state != nil {
		statuses = append(statuses, corev1.ContainerStatus{Name: name, State: *state})
	}
	return statuses
}

// state returns the state of a container; nil if the kubelet has none.
func (s *teller) state() *corev1.ContainerState {
	wait := func(reason string) *corev1.ContainerState { return new(waiting("", reason, "why").State) }
	exit := func(code int32, reason string, record *contract.Record) *corev1.ContainerState {
		message := ""
		if record != nil {
			record.FinishedAt = ended
			message = record.Marshal()
		}
		return new(exited("", code, reason, message).State)
	}
	switch s.next(storyStates) {
	case isWaiting:
		return wait("PodInitializing")
	case isStuck:
		return wait("ImagePullBackOff")
	case hasBadName:
		return wait("InvalidImageName")
	case isRunning:
		return new(running("").State)
	case succeeded0:
		return exit(0, "Completed", &contract.Record{})
	case failedWith1:
		return exit(1, "Error", nil)
	case wasKilled137:
		return exit(137, "Error", nil)
	case wasTerminated:
		return exit(143, "Error", &contract.Record{ExitCode: 143, Reason: contract.ReasonTerminated})
	case wasCancelled:
		return exit(143, "Error", &contract.Record{ExitCode: 143, Reason: contract.ReasonCancelled})
	case wasSkipped:
		return exit(0, "Completed", &contract.Record{Reason: contract.ReasonSkipped})
	case ranOutOfMemory:
		return exit(137, "OOMKilled", &contract.Record{})
	case cantExecute:
		return exit(127, "Error", &contract.Record{ExitCode: 127, Reason: contract.ReasonStartError, Message: "not found"})
	case wasInterrupted0:
		return exit(0, "Completed", &contract.Record{Reason: contract.ReasonStopped})
	case wasInterrupted143:
		return exit(143, "Error", &contract.Record{ExitCode: 143, Reason: contract.ReasonStopped})
	case finished78:
		return exit(0, "Completed", &contract.Record{CommandExitCode: new(78), Reason: contract.ReasonFinished, StartedAt: &started})
	case continued3:
		return exit(0, "Completed", &contract.Record{CommandExitCode: new(3), Passes: true, StartedAt: &started})
	case wasWhenFalse:
		return exit(0, "Completed", &contract.Record{Reason: contract.ReasonWhenFalse})
	case waitedInVain:
		return exit(125, "Error", &contract.Record{ExitCode: 125, Reason: contract.ReasonHaltMissing})
	case wroteAMessage:
		return new(exited("", 0, "Completed", `{"taskflow":{"reason":"Skipped"}}`).State)
	}
	return nil
}
