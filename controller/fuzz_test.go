package controller

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/internal/podspec"
)

// FuzzStory proves what must hold for any events in any order: there is no panic, and story's promises hold.
// Run it for longer with: go test ./controller -run '^$' -fuzz FuzzStory
func FuzzStory(f *testing.F) {
	for _, seed := range [][]byte{
		{},
		// Three steps, one after another, to the end.
		{2, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aContainer, 1, isRunning, aContainer, 2, isRunning, aContainer, 0, succeeded0, aContainer, 1, succeeded0, aContainer, 2, succeeded0, aPhase, 2},
		// Two steps; the first fails, the second is skipped; and again with another attempt, and with onError Continue.
		{1, 0, 0, 0, aPhase, 1, aContainer, 0, failedWith1, aContainer, 1, wasSkipped, aPhase, 3},
		{1, 0, 0, 1, aPhase, 1, aContainer, 0, failedWith1, aContainer, 1, wasSkipped, aPhase, 3, aContainer, 0, failedWith1, aPhase, 3},
		{1, 1, 0, 0, aPhase, 1, aContainer, 0, failedWith1, aContainer, 1, succeeded0, aPhase, 3},
		{1, 3, 0, 0, aPhase, 1, aContainer, 0, wasTerminated, aContainer, 1, failedWith1, aPhase, 3},
		// OnFailure: a step is started again, and the Pod runs out of time.
		{1, 0, 1, 0, aPhase, 1, aContainer, 0, failedWith1, aContainer, 0, isStuck, aContainer, 0, isRunning, aContainer, 0, succeeded0, aReason, 2, aPhase, 3},
		// Evicted, in two writes.
		{1, 0, 0, 0, aPhase, 1, aContainer, 0, wasKilled137, aContainer, 1, wasTerminated, aReason, 1, aPhase, 3},
		// Preempted; deleted; gone.
		{1, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aCondition, 2, aDeletion, aContainer, 0, wasKilled137, theEnd},
		// Cancelled: while no node takes the Pod, while a step runs, between two steps.
		{1, 0, 0, 0, aCondition, 0, aCancel},
		{1, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aContainer, 1, isRunning, aCancel, aContainer, 0, wasCancelled, aContainer, 1, wasSkipped, aPhase, 3},
		{1, 0, 0, 0, aPhase, 1, aContainer, 0, succeeded0, aCancel, aContainer, 1, wasSkipped, aPhase, 2},
		// Containers that can't start, until the start grace period is over.
		{1, 0, 0, 0, aContainer, 0, isStuck, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aPhase, 3},
		{1, 0, 0, 2, anInit, isStuck, aMinute, aMinute, aMinute, aMinute, aMinute, aMinute, aContainer, 0, hasBadName, aPhase, 3},
		// Killed for its memory while it waited; a record that the kubelet's exit code contradicts; a helper runs on.
		{2, 0, 0, 0, aPhase, 1, aContainer, 0, isRunning, aContainer, 2, ranOutOfMemory, aContainer, 0, succeeded0, aPhase, 3},
		{0, 0, 0, 0, aHelper, isRunning, aContainer, 0, succeeded0, aHelper, failedWith1, aPhase, 3},
		// What a user writes.
		{2, 0, 0, 0, aUser, 0, aUser, 1, aPhase, 1, aContainer, 0, isRunning, aUser, 2, aContainer, 0, succeeded0, aUser, 4, aPhase, 2},
		{2, 0, 0, 0, aUser, 3, aPhase, 1},
	} {
		if len(seed) > 0 {
			seed = slices.Insert(seed, 4, 0) // each step follows the one before it
		}
		f.Add(seed)
	}
	for _, seed := range graphSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, bytes []byte) { story(t, bytes) })
}

// TestRandomStories is FuzzStory for as many stories as a test run has time for. Their seed is fixed, so that a failure is repeated.
func TestRandomStories(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 11))
	ends := map[v1alpha1.TaskPhase]int{}
	for range 5000 {
		bytes := make([]byte, random.IntN(120))
		for i := range bytes {
			bytes[i] = byte(random.IntN(256))
		}
		ends[story(t, bytes).Phase]++
		if t.Failed() {
			t.Fatalf("the above is of the story %v", bytes)
		}
	}
	for _, phase := range []v1alpha1.TaskPhase{v1alpha1.TaskPending, v1alpha1.TaskRunning, v1alpha1.TaskSucceeded, v1alpha1.TaskFailed, v1alpha1.TaskCancelled} {
		if ends[phase] == 0 {
			t.Errorf("no story ends %s: they prove too little: %v", phase, ends)
		}
	}
}

// story plays a story, in which both controllers reconcile after each event, and returns the Task's status at its end. Its promises:
//   - the order never decreases, and after a halt it follows only to steps that have ended, or to final steps; a halt never changes;
//   - a step is released only when each one of an earlier stage has succeeded, or has failed by itself and may (onError: Continue, FailAtEnd);
//   - a final step is released only when the containers of all steps that are not final have ended, and is told how they ended;
//   - a Pod that has ended, or is gone, leaves its Task in a final state, or with another attempt, of which there are no more than asked for;
//   - a Task is Complete only when all of its steps are past, and then always, or when one of them finished the sequence; in a final state no step
//     waits or runs, and beside branches or before final steps, no container does;
//   - what was written once is not written again.
func story(t *testing.T, bytes []byte) v1alpha1.TaskStatus {
	tell := &teller{bytes: bytes}
	task := storyTask(tell)
	now := created
	for attempt := 0; ; attempt++ {
		pod := storyPod(task)
		for {
			if finished(&task.Status) {
				return task.Status
			}
			if len(task.Status.Attempts) > attempt {
				break // another Pod
			}
			if tell.isOver() {
				return task.Status
			}
			gone := tell.event(pod, task, &now)
			lookAtOrder(t, pod)
			judged := pod.DeepCopy()
			if gone {
				n := statusOf(task, 5*time.Minute)
				n.PodName = pod.Name
				look(n, nil, now)
				task.Status = n.TaskStatus
			} else {
				lookAtTask(t, task, pod, now)
			}
			lookAtOrder(t, pod)
			assertFinal(t, task, judged, gone, attempt)
			if t.Failed() {
				t.Logf("attempt %d, the Pod: %s", attempt, asJSON(pod))
				t.Logf("the Task: %s", asJSON(task))
				return task.Status
			}
		}
	}
}

// lookAtOrder is what the order controller does.
func lookAtOrder(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	write(t, pod, observe(pod))
	if again := orderPatch(pod, observe(pod)); len(again) > 0 {
		t.Errorf("what is written is written again: %v", again)
	}
}

// write does what the patch of a Pod does, and proves what it may do.
func write(t *testing.T, pod *corev1.Pod, want observation) {
	t.Helper()
	if len(orderPatch(pod, want)) == 0 {
		return
	}
	before, halt := released(pod), pod.Annotations[contract.HaltAnnotation]
	steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])
	if want.order < before {
		t.Errorf("the order goes from %d back to %d", before, want.order)
	}
	if halt != "" && want.halt != halt {
		t.Errorf("halt was %q, and is %q", halt, want.halt)
	}
	own := readOwn(pod)
	switch {
	case want.halt == "" || want.order == before:
	case own.isPlain && !hasEnded(want.steps[want.order-1]) && want.steps[want.order-1].Reason != contract.ReasonWhenFalse:
		t.Errorf("the order goes from %d to %d after a halt, and step %q has not run", before, want.order, steps[want.order-1])
	case !own.isPlain && want.order < own.firstFinal:
		t.Errorf("the order goes from %d to %d after a halt, and final steps begin with stage %d", before, want.order, own.firstFinal)
	}
	if want.order > max(before, own.lastStage) {
		t.Errorf("the order is %d for %d stages", want.order, own.lastStage)
	}
	for stage := max(before, 1) + 1; stage <= want.order; stage++ {
		isFinal := stage >= own.firstFinal
		if !isFinal && want.halt != "" && want.order >= own.firstFinal {
			continue // no agent takes it for a release
		}
		for _, step := range own.steps {
			isReady := step.isPast()
			if isFinal {
				isReady = step.isOver && (want.halt != "" || step.isFinal || isReady)
			}
			if step.stage < stage && !isReady {
				t.Errorf("stage %d is released, and step %q is %q", stage, step.name, step.end)
			}
		}
	}
	if want.outcome != "" {
		pod.Annotations[contract.OutcomeAnnotation] = want.outcome
	}
	if before < own.firstFinal && want.order >= own.firstFinal {
		own.checkOutcome(t, pod)
	}
	pod.Annotations[contract.OrderAnnotation] = strconv.Itoa(want.order)
	if want.halt != "" {
		pod.Annotations[contract.HaltAnnotation] = want.halt
	}
	if want.end {
		pod.Spec.ActiveDeadlineSeconds = new(int64(endNow))
	}
}

// isEnded reports whether the Pod is being ended from outside.
func isEnded(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Reason != "" || slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue
	})
}

// lookAtTask is what the Task controller does.
func lookAtTask(t *testing.T, task *v1alpha1.Task, pod *corev1.Pod, now time.Time) {
	t.Helper()
	before := pod.DeepCopy()
	n := statusOf(task, 5*time.Minute)
	look(n, pod, now)
	if !reflect.DeepEqual(before, pod) {
		t.Errorf("mirror changed its Pod (-before +after):\n%s", cmp.Diff(before, pod))
	}
	if podspec.IsGated(pod) {
		for _, told := range n.untold(pod) {
			pod.Annotations[told.key] = told.value
		}
		if len(n.advance) > 0 {
			write(t, pod, n.seen)
		}
	}
	retries := len(n.Attempts) > len(task.Status.Attempts)
	task.Status = n.TaskStatus
	if retries || finished(&task.Status) {
		return // the Pod is not looked at again
	}
	again := statusOf(task, 5*time.Minute)
	look(again, pod, now)
	if again.halt == "" && !reflect.DeepEqual(task.Status, again.TaskStatus) && maps.Equal(pod.Annotations, before.Annotations) {
		t.Errorf("the same Pod once more changes the status (-first +second):\n%s", cmp.Diff(task.Status, again.TaskStatus))
	}
}

// assertFinal proves what must hold of a Task once its Pod has ended, and once it has ended itself.
func assertFinal(t *testing.T, task *v1alpha1.Task, pod *corev1.Pod, gone bool, attempt int) {
	t.Helper()
	status, final := task.Status, finished(&task.Status)
	podEnded := gone || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if podEnded && !final && len(status.Attempts) == attempt {
		t.Error("the Pod has ended, and the Task has no final state and no other attempt")
	}
	if got, limit := len(status.Attempts), int(task.Spec.BackoffLimit); got > limit {
		t.Errorf("there are %d attempts that failed and are followed by another, and may be %d", got, limit)
	}
	if (status.CompletionTime != nil) != final {
		t.Errorf("the completion time is %v, and the Task's state is final: %t", status.CompletionTime, final)
	}
	phases := []v1alpha1.TaskPhase{v1alpha1.TaskPending, v1alpha1.TaskRunning}
	if final {
		phases = []v1alpha1.TaskPhase{v1alpha1.TaskSucceeded, v1alpha1.TaskFailed, v1alpha1.TaskCancelled}
	}
	if status.Phase != "" && !slices.Contains(phases, status.Phase) {
		t.Errorf("the phase is %s, and the Task's state is final: %t", status.Phase, final)
	}
	if !final {
		return
	}
	for _, step := range status.Steps {
		if step.State == v1alpha1.StepWaiting || step.State == v1alpha1.StepRunning {
			t.Errorf("the Task has ended, and step %q is %s", step.Name, step.State)
		}
	}
	if gone || pod.Annotations[contract.StepsAnnotation] != podspec.New(task, 1, nil).Annotations[contract.StepsAnnotation] {
		return
	}
	own := readOwn(pod)
	isComplete, allPast, finished := status.Phase == v1alpha1.TaskSucceeded, true, false
	for _, step := range own.steps {
		allPast = allPast && step.isPast() && (step.end != "failed" || !step.atEnd && (!step.isFinal || step.continues))
		finished = finished || step.end == "finished"
	}
	allPast = allPast && !own.wasInterrupted(pod)
	if isComplete && !allPast && !finished || !isComplete && allPast {
		t.Errorf("the Task is complete: %t, and all of its steps are past: %t", isComplete, allPast)
	}
	reason := endOf(&status).Reason
	// If a final step can't start, its Pod is ended, and so are the steps after it.
	isStuck := slices.ContainsFunc(pod.Status.ContainerStatuses, cantStart)
	isJudged := isComplete || reason == v1alpha1.ReasonStepFailed || reason == v1alpha1.ReasonCancelled
	if own.isPlain || podEnded || isEnded(pod) || !isJudged || isStuck || pod.Status.Phase == corev1.PodPending && len(pod.Status.ContainerStatuses) == 0 {
		return
	}
	for _, step := range own.steps {
		if !step.isOver {
			t.Errorf("the Task has ended, and the container of step %q has not", step.name)
		}
	}
}

func asJSON(value any) string {
	content, err := json.Marshal(value)
	if err != nil {
		panic(err) // it came from the API's types
	}
	return string(content)
}
