package contract

import "strconv"

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
	// OutputFile is the file in a step's directory that OutputVariable names. The command writes its outputs there, and later steps read them.
	OutputFile = "output"
)

// Environment variables of a command.
const (
	// OutputVariable is the path of OutputFile.
	OutputVariable = "TASKFLOW_OUTPUT"
	// StatusVariable tells a final step how the other steps ended: Outcome.Status.
	StatusVariable = "TASKFLOW_STATUS"
	// FailedStepVariable tells a final step which step failed: Outcome.FailedStep. It is empty if none did.
	FailedStepVariable = "TASKFLOW_FAILED_STEP"
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
	// CancelFile holds the value of CancelAnnotation, in Pods with steps side by side.
	CancelFile = "cancel"
	// HaltFinallyFile holds the value of HaltFinallyAnnotation, in Pods with final steps.
	HaltFinallyFile = "halt-finally"
	// OutcomeFile holds the value of OutcomeAnnotation, in Pods with final steps or conditions.
	OutcomeFile = "outcome"
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
