package contract

import "strconv"

// Group is the prefix of every label and annotation key of taskflow.
const Group = "taskflow.practice.com/"

// Labels.
const (
	// SequentialLabel is "true" on every Pod whose containers wait for one another. Users write it on a Pod, or on the
	// template of a Job, and the webhook on those Pods that have a TaskLabel alone: so that the controllers' caches can
	// select on it, since a selector can't say "one label or the other".
	SequentialLabel = Group + "sequential"
	// TaskLabel holds the name of the Task that a Pod belongs to, or that it takes its steps from. The Task controller writes
	// it on the Pods that it makes, users on theirs. The webhook's object selectors have both labels.
	TaskLabel = Group + "task"
)

// Annotations.
const (
	// OrderAnnotation is a whole number k: steps 1 to k are released. It never decreases. The webhook
	// writes the first value, 0 where the first step has to wait for other containers and else 1, the order controller every later one, and the agents read it through
	// the downward API.
	OrderAnnotation = Group + "order"

	// HaltAnnotation says why no further step is released. The order controller sets it once and
	// nothing removes it; the agents read it through the downward API. Empty and absent mean: go on.
	HaltAnnotation = Group + "halt"

	// StepsAnnotation is the sequence: container names in order, separated by commas. Users may write it on a Pod of theirs
	// to choose some of its containers, or another order; the webhook leaves the resolved list there. The Task controller
	// writes it too, and the controllers read it.
	StepsAnnotation = Group + "steps"

	// HandoffAnnotation says how the next step learns that it is released. The user may set it to HandoffController; where it is
	// absent the agents tell each other, through the run directory, and the order follows. The webhook and the controllers read it.
	HandoffAnnotation = Group + "handoff"

	// DeliveryAnnotation says how the agent gets into the Pod: DeliveryInit or DeliveryImage. The user may set it; where it is absent
	// the operator's configuration says it. The webhook reads it, for a Pod that it hasn't been at.
	DeliveryAnnotation = Group + "agent-delivery"

	// OptionsAnnotation holds what steps have beyond their containers: Options. The Task controller
	// and the webhook write it, from a Task; both read it.
	OptionsAnnotation = Group + "options"

	// TaskUIDAnnotation is the UID of the Task whose own Pod it is. The Task controller writes it on the Pods that it creates, and reads it;
	// the webhook refuses it from everybody else. Pods of earlier releases have none.
	TaskUIDAnnotation = Group + "task-uid"

	// ScriptAnnotationPrefix and the number of a step, from 1, is the annotation with the step's script. It
	// is written as OptionsAnnotation is, and the downward API brings it into ScriptsVolume.
	ScriptAnnotationPrefix = Group + "script-"
)

// The agent inside a Pod.
const (
	// DeliveryInit is the delivery by an init container, which copies the agent from its image into BinVolume.
	DeliveryInit = "init"
	// DeliveryImage is the delivery without one: BinVolume is the agent's image itself, which has the binary as /agent.
	DeliveryImage = "image"
	// AgentContainer is the name of the init container of DeliveryInit.
	AgentContainer = "taskflow-agent"
	// BinVolume is the volume that holds the agent's binary.
	BinVolume = "taskflow-bin"
	// BinDir is where BinVolume is mounted, in every step and in the init container.
	BinDir = "/taskflow/bin"
	// OwnDir is the directory in a step that is taskflow's: what it mounts there, users may not.
	OwnDir = "/taskflow"
	// AgentTitle is what tools such as ps and pgrep show of an agent instead of its command line, followed by the number of its step.
	AgentTitle = "taskflow"
	// AgentPath is the agent's binary as a step sees it.
	AgentPath = BinDir + "/agent"
)

// HandoffController is the value of HandoffAnnotation that makes OrderAnnotation alone release steps.
const HandoffController = "controller"

// The run directory inside a Pod: a directory for each step, named as its number, which that step alone may write to.
const (
	// RunVolume is the volume of the run directory.
	RunVolume = "taskflow-run"
	// RunDir is where it is mounted: all of it read-only, for the records of others, and the step's own directory over it.
	RunDir = OwnDir + "/run"
	// StartedFile is in a step's directory from the start of its command on.
	StartedFile = "started"
	// RecordFile is the record of a step in its directory: there once the step has ended, and nothing of it runs any more.
	RecordFile = "record"
)

// StepDir is the directory of step n in a run directory.
func StepDir(runDir string, n int) string { return runDir + "/" + strconv.Itoa(n) }

// The projected annotations inside a Pod.
const (
	// PodInfoVolume is the downward-API volume with the files OrderFile and HaltFile.
	PodInfoVolume = "taskflow-podinfo"
	// PodInfoDir is where PodInfoVolume is mounted in a step.
	PodInfoDir = "/etc/podinfo"
	// PodInfoDirAside is where it is mounted in a step that has a mount of its own at, above or below
	// PodInfoDir.
	PodInfoDirAside = "/taskflow/podinfo"
	// OrderFile holds the value of OrderAnnotation.
	OrderFile = "order"
	// HaltFile holds the value of HaltAnnotation, and is empty while there is none.
	HaltFile = "halt"
)

// The scripts of steps, for those Pods that have some.
const (
	// ScriptsVolume is the downward-API volume with the scripts, each a file named as the number of its step.
	ScriptsVolume = "taskflow-scripts"
	// ScriptsDir is where it is mounted in the steps that have a script.
	ScriptsDir = OwnDir + "/scripts"
)

// ReservedPrefix starts the names of the containers and volumes that the webhook adds; those of
// users may not start with it.
const ReservedPrefix = "taskflow-"
