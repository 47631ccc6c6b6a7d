package contract

// Group is the prefix of all label and annotation keys of taskflow.
const Group = "taskflow.practice.com/"

// Labels.
const (
	// SequentialLabel is "true" on every Pod whose steps run in order. Users write it on a Pod, or on the template of a Job. The webhook writes it
	// on Pods that have only a TaskLabel, so that the controllers' caches can select on it: a selector can't express "one label or the other".
	SequentialLabel = Group + "sequential"
	// TaskLabel is the name of the Task that a Pod belongs to, or takes its steps from. The Task controller writes it on its Pods,
	// users on theirs. The webhook's object selectors have both labels.
	TaskLabel = Group + "task"
)

// Annotations.
const (
	// OrderAnnotation is a whole number k: the stages 1 to k are released. In a plain sequence, each step is a stage. It never decreases. The webhook writes the first value: 0 if the first step
	// waits for helpers, else 1. The order controller writes every later value, and the agents read it through the downward API.
	OrderAnnotation = Group + "order"

	// HaltAnnotation says why no further step is released. The order controller sets it once and nothing removes it. The agents read it
	// through the downward API. Empty means the same as absent: continue.
	HaltAnnotation = Group + "halt"

	// HaltFinallyAnnotation says why no final step starts any more, and the one that runs ends. The Task controller sets it once and nothing
	// removes it. The agents of final steps read it through the downward API, instead of HaltAnnotation.
	HaltFinallyAnnotation = Group + "halt-finally"

	// CancelAnnotation says why the running steps must end: CancelCancelled or CancelDeadlineExceeded. The Task controller sets it together with
	// HaltAnnotation, on Pods with final steps or steps side by side, and nothing removes it. The agents of steps side by side end their
	// commands because of it, and not because of HaltAnnotation, which also follows the failure of another step. The order controller tells
	// the final steps.
	CancelAnnotation = Group + "cancel"
	// CancelCancelled is the value of CancelAnnotation because of spec.cancel.
	CancelCancelled = "Cancelled"
	// CancelDeadlineExceeded is the value of CancelAnnotation because of spec.timeout.
	CancelDeadlineExceeded = "DeadlineExceeded"

	// OutcomeAnnotation holds how steps have ended: Outcome. The order controller writes it together with OrderAnnotation on Pods with final steps or
	// with conditions, and together with HaltAnnotation on Pods with final steps or steps side by side: what it has decided about a step stays
	// decided. The agents read it through the downward API.
	OutcomeAnnotation = Group + "outcome"

	// StepsAnnotation is the sequence: container names in order, separated by commas. Users may write it on their Pod to choose some of its
	// containers, or another order, or as a YAML list with the options of each step; the webhook replaces it with the resolved list of names,
	// and writes the options to OptionsAnnotation. The Task controller writes it too. The controllers read it.
	StepsAnnotation = Group + "steps"

	// HandoffAnnotation chooses how steps are released. Users may set it to HandoffController. By default the agents release each other's steps
	// through the run directory, and the order follows. The webhook and the controllers read it.
	HandoffAnnotation = Group + "handoff"
	// HandoffController is the value of HandoffAnnotation with which only OrderAnnotation releases steps.
	HandoffController = "controller"

	// DeliveryAnnotation is how the agent gets into the Pod: DeliveryInit or DeliveryImage. Users may set it. Default: the operator's configuration.
	// The webhook reads it when it mutates the Pod for the first time.
	DeliveryAnnotation = Group + "agent-delivery"

	// OptionsAnnotation holds what steps have beyond their containers: Options. The Task controller writes it from a Task, and the webhook from a
	// Task and from StepsAnnotation. Both read it, and so does the order controller.
	OptionsAnnotation = Group + "options"

	// TaskUIDAnnotation is the UID of the Task that owns the Pod. The Task controller writes and reads it. The webhook refuses it
	// from all others. Pods of earlier releases don't have it.
	TaskUIDAnnotation = Group + "task-uid"

	// ScriptAnnotationPrefix plus the number of a step, from 1, is the annotation with the script of that step. It has the writers of
	// OptionsAnnotation. The downward API projects it into ScriptsVolume.
	ScriptAnnotationPrefix = Group + "script-"
)
