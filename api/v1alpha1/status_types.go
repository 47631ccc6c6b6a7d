package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TaskPhase summarizes the state of a Task.
type TaskPhase string

const (
	// TaskPending means that no step is running yet.
	TaskPending TaskPhase = "Pending"
	// TaskRunning means that the Pod is running, or that a step is running or has run.
	TaskRunning TaskPhase = "Running"
	// TaskSucceeded means that all steps succeeded, or failed with onError: Continue, or that a step finished the sequence.
	TaskSucceeded TaskPhase = "Succeeded"
	// TaskFailed means that a step failed, or that the Task can't run.
	TaskFailed TaskPhase = "Failed"
	// TaskCancelled means that spec.cancel ended the Task.
	TaskCancelled TaskPhase = "Cancelled"
	// TaskSuspended means that spec.suspend is true and that the Task has no Pod.
	TaskSuspended TaskPhase = "Suspended"
)

// Types of a Task's conditions. Complete, Failed and Suspended have the meaning that they have in a Job, so that
// `kubectl wait --for=condition=Complete` works.
const (
	// ConditionComplete is true when the Task has succeeded.
	ConditionComplete = "Complete"
	// ConditionFailed is true when the Task has failed or was cancelled.
	ConditionFailed = "Failed"
	// ConditionSuspended is true while the Task is suspended.
	ConditionSuspended = "Suspended"
	// ConditionProgressing is true until the Task has finished. Its reason tells what the Task does or waits for.
	ConditionProgressing = "Progressing"
)

// Reasons of a Task's conditions. If the kubelet or the scheduler gives the reason, it is used unchanged: ImagePullBackOff, ErrImagePull,
// InvalidImageName, CreateContainerConfigError, Unschedulable, Evicted and others.
const (
	// ReasonStepsSucceeded (Complete): all steps succeeded.
	ReasonStepsSucceeded = "StepsSucceeded"
	// ReasonStepFailed (Failed): a step failed.
	ReasonStepFailed = "StepFailed"
	// ReasonCancelled (Failed): spec.cancel is true.
	ReasonCancelled = "Cancelled"
	// ReasonDeadlineExceeded (Failed): spec.timeout has expired. (Progressing): the Pod is terminating because of it.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonRetrying (Progressing): the Pod failed, and a new one will replace it.
	ReasonRetrying = "Retrying"
	// ReasonPodTerminating (Progressing): the next attempt waits until the failed Pod has terminated.
	ReasonPodTerminating = "PodTerminating"
	// ReasonImagePullBackOff (Progressing, Failed): the kubelet can't pull an image.
	ReasonImagePullBackOff = "ImagePullBackOff"
	// ReasonPodFailed (Failed): the Pod failed and has no reason of its own.
	ReasonPodFailed = "PodFailed"
	// ReasonPodDeleted (Failed): the Pod was deleted before the steps had finished.
	ReasonPodDeleted = "PodDeleted"
	// ReasonPodNameConflict (Failed): a Pod with the Task's name exists that the Task does not own.
	ReasonPodNameConflict = "PodNameConflict"
	// ReasonPodInvalid (Failed): the API server rejects the Pod as invalid.
	ReasonPodInvalid = "PodInvalid"
	// ReasonPodRefused (Progressing): a quota, a webhook or a policy refuses the Pod. (Failed): the API server does not call taskflow's webhook.
	ReasonPodRefused = "PodRefused"
	// ReasonEntrypointUnresolved (Progressing, Failed): the entrypoint of a step's image can't be resolved.
	ReasonEntrypointUnresolved = "EntrypointUnresolved"
	// ReasonSuspended (Suspended, Progressing): spec.suspend is true.
	ReasonSuspended = "Suspended"
	// ReasonResumed (Suspended): spec.suspend was true and no longer is.
	ReasonResumed = "Resumed"
	// ReasonPodCreated (Progressing): the Pod exists, and no step is running yet.
	ReasonPodCreated = "PodCreated"
	// ReasonNoScheduler (Progressing): no scheduler has handled the Pod.
	ReasonNoScheduler = "NoScheduler"
	// ReasonNodeNotResponding (Progressing): the kubelet of the Pod's node does not report the status of the Pod.
	ReasonNodeNotResponding = "NodeNotResponding"
	// ReasonInitContainerRunning (Progressing): an init container is running.
	ReasonInitContainerRunning = "InitContainerRunning"
	// ReasonSidecarNotStarted (Progressing): the startupProbe of a sidecar has not succeeded.
	ReasonSidecarNotStarted = "SidecarNotStarted"
	// ReasonContainersNotReady (Progressing): containers that the first step waits for are not ready.
	ReasonContainersNotReady = "ContainersNotReady"
	// ReasonPullingImage (Progressing): the kubelet is pulling an image.
	ReasonPullingImage = "PullingImage"
	// ReasonStepRunning (Progressing): a step is running.
	ReasonStepRunning = "StepRunning"
	// ReasonStepWaiting (Progressing): a step has finished, and the next one is not running yet.
	ReasonStepWaiting = "StepWaiting"
	// ReasonFinalStepRunning (Progressing): the steps that are not final have ended, and a final step is running or about to run.
	ReasonFinalStepRunning = "FinalStepRunning"
	// ReasonWorkspaceConflict (Progressing, Failed): a PersistentVolumeClaim with the name of the Task's workspace exists that the Task does not own.
	ReasonWorkspaceConflict = "WorkspaceConflict"
	// ReasonSpecInvalid (Failed): the spec can't be run as it is.
	ReasonSpecInvalid = "SpecInvalid"
)

// StepState is the state of a step.
type StepState string

const (
	// StepWaiting means that the step is not released, or that its container is not running yet.
	StepWaiting StepState = "Waiting"
	// StepRunning means that the step is released and running.
	StepRunning StepState = "Running"
	// StepSucceeded means that the command ended with exit code 0, or with one that means success by a rule in exitCodes.
	StepSucceeded StepState = "Succeeded"
	// StepFailed means that the command ended with another exit code, that it could not start, or that its inputs or outputs are invalid.
	StepFailed StepState = "Failed"
	// StepSkipped means that the sequence ended before the step was released, or that a condition in when did not hold.
	StepSkipped StepState = "Skipped"
)

// TaskStatus is the observed state of a Task.
type TaskStatus struct {
	// observedGeneration is the generation of the Task that this status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// phase summarizes the state of the Task: Pending, Running, Succeeded, Failed, Cancelled or Suspended.
	// +optional
	Phase TaskPhase `json:"phase,omitempty"`
	// podName is the name of the Pod that runs the steps. The first Pod has the name of the Task. The name of a later one ends in -retry-
	// and its number.
	// +optional
	PodName string `json:"podName,omitempty"`
	// podUID is the UID of that Pod. A Pod with the same name and another UID does not belong to the Task.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`
	// attempt is the number of the current Pod, counted from 1.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// attempts are the Pods before the current one, and how they failed.
	// +optional
	// +listType=atomic
	Attempts []AttemptStatus `json:"attempts,omitempty"`
	// order is the number of the last stage that is released. Without dependsOn, each step is a stage of its own.
	// +optional
	Order int32 `json:"order,omitempty"`
	// progress is the number of steps that have succeeded, of all steps, such as "2/3". It includes steps that failed with onError: Continue or
	// FailAtEnd, and steps that were skipped because a condition did not hold.
	// +optional
	Progress string `json:"progress,omitempty"`
	// currentStep is the name of the step that is running, that is next, or that failed. It has several names, separated by commas, if several
	// steps are running. It is empty when all steps have succeeded.
	// +optional
	CurrentStep string `json:"currentStep,omitempty"`
	// startTime is when taskflow first observed the Task without suspend. It is set again when a suspended Task is resumed.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// completionTime is when the last step ended or the Task failed.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// duration is the time from startTime to completionTime, such as "65s". It is set when the Task has finished.
	// +optional
	Duration string `json:"duration,omitempty"`
	// conditions are Complete, Failed and Suspended, as in a Job, and Progressing, whose reason tells what the Task does or waits for.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// steps are the states of the steps, in the order of the spec.
	// +optional
	// +listType=map
	// +listMapKey=name
	Steps []StepStatus `json:"steps,omitempty"`
}

// AttemptStatus describes an earlier Pod of a Task.
type AttemptStatus struct {
	// podName is the name of the Pod.
	PodName string `json:"podName"`
	// completionTime is when the Pod failed.
	CompletionTime metav1.Time `json:"completionTime"`
	// reason is a word in CamelCase for why the Pod failed.
	Reason string `json:"reason"`
	// message tells a person why the Pod failed.
	// +optional
	Message string `json:"message,omitempty"`
}

// StepStatus is the observed state of a step.
type StepStatus struct {
	// name is the name of the step.
	Name string `json:"name"`
	// state is Waiting, Running, Succeeded, Failed or Skipped.
	State StepState `json:"state"`
	// reason is a word in CamelCase for why the step is in this state: Completed, Finished, WhenFalse, Error, OOMKilled, TimedOut, Cancelled,
	// StartError, ImagePullBackOff and others.
	// +optional
	Reason string `json:"reason,omitempty"`
	// exitCode is the exit code of the step's command. It is set when the step's container has terminated, unless the step was skipped. The exit
	// code of the container differs if a rule in exitCodes or onError: Continue makes it 0.
	// +optional
	ExitCode *int32 `json:"exitCode,omitempty"`
	// retries is how many times the command was run again.
	// +optional
	Retries int32 `json:"retries,omitempty"`
	// startedAt is when the step's command started, not its container, which waits until the step is released. While the step is running, it
	// is an estimate: when the last step that it waits for ended, or when the container of the first step started.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// finishedAt is when the step's command ended.
	// +optional
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
	// duration is the time from startedAt to finishedAt, such as "350ms" or "65s". It is set when the step has ended.
	// +optional
	Duration string `json:"duration,omitempty"`
	// imageID is the digest of the image that the step ran.
	// +optional
	ImageID string `json:"imageID,omitempty"`
	// message tells a person more about the state.
	// +optional
	Message string `json:"message,omitempty"`
	// stage is 1 plus the greatest stage of the steps that the step depends on: steps of the same stage run side by side. It is set if a step of
	// the Task has dependsOn.
	// +optional
	Stage int32 `json:"stage,omitempty"`
	// dependsOn names the steps that must succeed before this one starts. It is set if a step of the Task has dependsOn.
	// +optional
	// +listType=atomic
	DependsOn []string `json:"dependsOn,omitempty"`
	// outputs are what the step wrote to the file that $TASKFLOW_OUTPUT names, as far as it fits into the termination message of its
	// container.
	// +optional
	Outputs map[string]string `json:"outputs,omitempty"`
	// omittedOutputs are the keys of the outputs that didn't fit. Inputs of later steps have them nevertheless.
	// +optional
	// +listType=atomic
	OmittedOutputs []string `json:"omittedOutputs,omitempty"`
}
