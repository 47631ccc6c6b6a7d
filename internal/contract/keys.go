package contract

import "strconv"

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
	// OrderAnnotation is a whole number k: steps 1 to k are released. It never decreases. The webhook writes the first value: 0 if the first step
	// waits for helpers, else 1. The order controller writes every later value, and the agents read it through the downward API.
	OrderAnnotation = Group + "order"

	// HaltAnnotation says why no further step is released. The order controller sets it once and nothing removes it. The agents read it
	// through the downward API. Empty means the same as absent: continue.
	HaltAnnotation = Group + "halt"

	// StepsAnnotation is the sequence: container names in order, separated by commas. Users may write it on their Pod to choose some of its
	// containers, or another order; the webhook replaces it with the resolved list. The Task controller writes it too. The controllers read it.
	StepsAnnotation = Group + "steps"

	// HandoffAnnotation chooses how steps are released. Users may set it to HandoffController. By default the agents release each other's steps
	// through the run directory, and the order follows. The webhook and the controllers read it.
	HandoffAnnotation = Group + "handoff"
	// HandoffController is the value of HandoffAnnotation with which only OrderAnnotation releases steps.
	HandoffController = "controller"

	// DeliveryAnnotation is how the agent gets into the Pod: DeliveryInit or DeliveryImage. Users may set it. Default: the operator's configuration.
	// The webhook reads it when it mutates the Pod for the first time.
	DeliveryAnnotation = Group + "agent-delivery"

	// OptionsAnnotation holds what steps have beyond their containers: Options. The Task controller and the webhook write it from a Task, and
	// both read it.
	OptionsAnnotation = Group + "options"

	// TaskUIDAnnotation is the UID of the Task that owns the Pod. The Task controller writes and reads it. The webhook refuses it
	// from all others. Pods of earlier releases don't have it.
	TaskUIDAnnotation = Group + "task-uid"

	// ScriptAnnotationPrefix plus the number of a step, from 1, is the annotation with the script of that step. It has the writers of
	// OptionsAnnotation. The downward API projects it into ScriptsVolume.
	ScriptAnnotationPrefix = Group + "script-"
)

// The agent inside a Pod.
const (
	// DeliveryInit is the delivery by an init container, which copies the agent from its image into BinVolume.
	DeliveryInit = "init"
	// DeliveryImage is the delivery as an image volume: BinVolume is the agent's image, which has the binary as /agent.
	DeliveryImage = "image"
	// AgentContainer is the name of the init container of DeliveryInit.
	AgentContainer = "taskflow-agent"
	// BinVolume is the volume with the agent's binary.
	BinVolume = "taskflow-bin"
	// BinDir is the mount path of BinVolume, in every step and in the init container.
	BinDir = "/taskflow/bin"
	// OwnDir is reserved in a step for taskflow's mounts: users can't mount anything there.
	OwnDir = "/taskflow"
	// AgentTitle plus the number of a step is what tools such as ps and pgrep show of an agent instead of its command line.
	AgentTitle = "taskflow"
	// AgentPath is the agent's binary as a step sees it.
	AgentPath = BinDir + "/agent"
)

// The run directory inside a Pod. It has one directory for each step, named by the step's number. Only that step can write there.
const (
	// RunVolume is the volume of the run directory.
	RunVolume = "taskflow-run"
	// RunDir is its mount path: read-only as a whole, for the records of other steps, with the step's own directory mounted over it.
	RunDir = OwnDir + "/run"
	// StartedFile exists in a step's directory from the start of its command.
	StartedFile = "started"
	// RecordFile is the record of a step in its directory. It exists once the step has ended, and nothing of the step runs any more.
	RecordFile = "record"
)

// StepDir returns the directory of step n in a run directory.
func StepDir(runDir string, n int) string { return runDir + "/" + strconv.Itoa(n) }

// The projected annotations inside a Pod.
const (
	// PodInfoVolume is the downward-API volume with the files OrderFile and HaltFile.
	PodInfoVolume = "taskflow-podinfo"
	// PodInfoDir is the mount path of PodInfoVolume in a step.
	PodInfoDir = "/etc/podinfo"
	// PodInfoDirAside is the mount path in a step that has a mount of its own at, above or below PodInfoDir.
	PodInfoDirAside = "/taskflow/podinfo"
	// OrderFile holds the value of OrderAnnotation.
	OrderFile = "order"
	// HaltFile holds the value of HaltAnnotation. It is empty while the Pod has no such annotation.
	HaltFile = "halt"
)

// The scripts of steps, in Pods that have some.
const (
	// ScriptsVolume is the downward-API volume with the scripts. Each file is named by the number of its step.
	ScriptsVolume = "taskflow-scripts"
	// ScriptsDir is the mount path of ScriptsVolume, in steps that have a script.
	ScriptsDir = OwnDir + "/scripts"
)

// ReservedPrefix starts the names of the containers and volumes that the webhook adds. Users can't use such names.
const ReservedPrefix = "taskflow-"
