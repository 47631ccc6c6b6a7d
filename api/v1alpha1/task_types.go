package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The comments of types and fields in this file are the text of `kubectl explain`. The CEL rules that validate a Task are in
// hack/crd/rules.go, by field: `make generate` adds them to the CustomResourceDefinition.

// Task runs its steps one after another in a single Pod. Each step is a container of that Pod.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tf,categories=all
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`,description="Steps that have succeeded, of all steps."
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.currentStep`,description="The step that is running, that is next, or that failed."
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.status.duration`,description="Time from the Task's start to its end."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Task struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec describes what the Task runs. The name of the Task has at most 63 characters.
	// +required
	Spec TaskSpec `json:"spec"`
	// status is the observed state of the Task. Only taskflow writes it.
	// +optional
	Status TaskStatus `json:"status,omitempty"`
}

// TaskList is a list of Tasks.
//
// +kubebuilder:object:root=true
type TaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Task `json:"items"`
}

// TaskSpec describes what a Task runs. The fields steps, sidecars, template and timeout are immutable once the Task has a Pod.
type TaskSpec struct {
	// steps are the containers to run, in this order. A Task has from 1 to 100 steps. A step starts when the step before it
	// succeeds. If a step fails, the remaining steps are skipped, unless the failed step has onError: Continue.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Steps []Step `json:"steps"`

	// template describes the Pod that runs the steps. It takes any field of a Pod template, such as volumes, securityContext or
	// imagePullSecrets, but no containers: the steps are the containers. restartPolicy is Never or OnFailure. Defaults to Never.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`

	// sidecars are containers that run beside the steps. A sidecar takes any field of a core/v1 Container but restartPolicy,
	// which is Always. Sidecars start one after another, each when the startupProbe of the previous one has succeeded, before the first
	// step. They are terminated after the last step. How a sidecar ends does not change the result of the Task. A Task has at most 20.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Sidecars []corev1.Container `json:"sidecars,omitempty"`

	// timeout limits the duration of the Task, such as 90s or 1h30m. It counts from the start of the Task, or from when the Task was last
	// resumed, over all attempts. It includes the time that the Task waits for an image, a quota or a node. When it expires, taskflow
	// terminates the Pod, and the Task fails. Must be between 1s and 99999h. Unset means no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// backoffLimit is how many times a failed Pod is replaced by a new one, which begins with the first step. The new Pod is created
	// after the failed one has terminated and after a delay of 10 seconds, which doubles each time up to 6 minutes. Defaults to 0: the
	// first failure fails the Task.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	BackoffLimit int32 `json:"backoffLimit,omitempty"`

	// ttlSecondsAfterFinished is the number of seconds after which a finished Task is deleted, together with its Pods. It counts from when
	// taskflow observed the end of the Task. 0 means that the Task is deleted as soon as it finishes. Unset means that it is never deleted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`

	// suspend stops taskflow from creating Pods for the Task. It does not affect a Pod that exists. A Task that is always suspended can
	// serve the Pods, Jobs and CronJobs that name it in the label taskflow.practice.com/task. Defaults to false.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// cancel ends the Task. The running command receives SIGTERM, and SIGKILL when the Pod's grace period has passed. The steps that have not
	// started are skipped. The Pod and its logs are kept, unless the Pod is not scheduled yet: then it is deleted. cancel can't be set back to
	// false. Defaults to false.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// Step is one container of the sequence. It takes the fields of a core/v1 Container. Without a command, it runs the entrypoint of its image.
type Step struct {
	corev1.Container `json:",inline"`

	// script is a script to run instead of a command, with args as its arguments. Its first line names the interpreter, such as
	// "#!/usr/bin/env python3". Without such a line, /bin/sh runs it. It has at most 65536 characters.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Script string `json:"script,omitempty"`

	// timeout limits the duration of one run of the command, such as 90s or 1h30m. When it expires, the command receives SIGTERM, and SIGKILL
	// when the Pod's grace period has passed. The step then fails with exit code 124. Must be between 1ms and 99999h. Unset means no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// onError specifies what happens when the step fails. Stop fails the Task and skips the remaining steps. Continue goes on with the next
	// step. Defaults to Stop.
	// +optional
	OnError OnError `json:"onError,omitempty"`

	// retries is how many times a failed command is run again in the same container. The delay before it is one second, and doubles each
	// time up to one minute. Defaults to 0: the first failure fails the step.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Retries int32 `json:"retries,omitempty"`
}

// OnError specifies what happens when a step fails.
//
// +kubebuilder:validation:Enum=Stop;Continue
type OnError string

const (
	// OnErrorStop fails the Task and skips the remaining steps.
	OnErrorStop OnError = "Stop"
	// OnErrorContinue goes on with the next step.
	OnErrorContinue OnError = "Continue"
)

// PodTemplate is a core/v1 PodTemplateSpec without containers.
type PodTemplate struct {
	// metadata holds the labels and annotations of the Pod.
	// +optional
	Metadata metav1.ObjectMeta `json:"metadata,omitempty"`
	// spec is the specification of the Pod, without containers.
	// +optional
	Spec corev1.PodSpec `json:"spec,omitempty"`
}

// TaskPhase summarizes the state of a Task.
type TaskPhase string

const (
	// TaskPending means that no step is running yet.
	TaskPending TaskPhase = "Pending"
	// TaskRunning means that the Pod is running, or that a step is running or has run.
	TaskRunning TaskPhase = "Running"
	// TaskSucceeded means that all steps succeeded, or failed with onError: Continue.
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
)

// StepState is the state of a step.
type StepState string

const (
	// StepWaiting means that the step is not released, or that its container is not running yet.
	StepWaiting StepState = "Waiting"
	// StepRunning means that the step is released and running.
	StepRunning StepState = "Running"
	// StepSucceeded means that the command ended with exit code 0.
	StepSucceeded StepState = "Succeeded"
	// StepFailed means that the command ended with another exit code, or that it could not start.
	StepFailed StepState = "Failed"
	// StepSkipped means that the sequence ended before the step was released.
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
	// order is the number of the last step that is released. The steps before it have run.
	// +optional
	Order int32 `json:"order,omitempty"`
	// progress is the number of steps that have succeeded, of all steps, such as "2/3".
	// +optional
	Progress string `json:"progress,omitempty"`
	// currentStep is the name of the step that is running, that is next, or that failed. It is empty when all steps have succeeded.
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
	// reason is a word in CamelCase for why the step is in this state: Completed, Error, OOMKilled, TimedOut, Cancelled, StartError,
	// ImagePullBackOff and others.
	// +optional
	Reason string `json:"reason,omitempty"`
	// exitCode is the exit code of the step. It is set when the step's container has terminated.
	// +optional
	ExitCode *int32 `json:"exitCode,omitempty"`
	// retries is how many times the command was run again.
	// +optional
	Retries int32 `json:"retries,omitempty"`
	// startedAt is when the step's command started, not its container, which waits until the step is released. While the step is running, it
	// is an estimate: when the step before ended, or when the container of the first step started.
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
}
