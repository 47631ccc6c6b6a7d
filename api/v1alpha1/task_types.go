package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The API server checks all of the rules (XValidation) whenever a Task's status is written, too, and for each field that one of them reads it
// copies the schemas of all fields beside it: some thirty of a container. So they read no more than they must:
//
//   - A rule for one field of a step, a sidecar or the template has that field's fieldPath, and self is the field: hack/crd moves it there.
//   - Rules that compare such fields are the Task's own. They read none of them once there is a Pod, since none of them changes then. That
//     they don't is checked only where status.conditions and status.steps are as before: no request changes both spec and status.

// The rules also must not cost too much by the API server's estimate, that of Kubernetes 1.30 included: it takes a value of unknown size for a large
// one. So messages name a step by its index in the list, whose names are bounded, and the timeouts, which it takes for strings of any length, are
// checked by functions that don't depend on the length.

// Task runs its steps one after another, each in a container of its own, in one Pod.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tf,categories=all
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`,description="Steps that have ended well, of all steps."
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.currentStep`,description="The step that runs, that is next, or that failed."
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.status.duration`,description="From the Task's start to its end."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters: it becomes a label of the Task's Pod"
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || [self.spec.steps.map(s, s.name) + (has(self.spec.sidecars) ? self.spec.sidecars.map(c, c.name) : [])].all(names, names.all(n, names.indexOf(n) == names.lastIndexOf(n)))",fieldPath=".spec",messageExpression=`'two steps or sidecars have the name "' + ([self.spec.steps.map(s, s.name) + (has(self.spec.sidecars) ? self.spec.sidecars.map(c, c.name) : [])].map(names, names.map(n, names.indexOf(n) == names.lastIndexOf(n)).indexOf(false))[0] < size(self.spec.steps) ? self.spec.steps[[self.spec.steps.map(s, s.name) + (has(self.spec.sidecars) ? self.spec.sidecars.map(c, c.name) : [])].map(names, names.map(n, names.indexOf(n) == names.lastIndexOf(n)).indexOf(false))[0]].name : self.spec.sidecars[[self.spec.steps.map(s, s.name) + (has(self.spec.sidecars) ? self.spec.sidecars.map(c, c.name) : [])].map(names, names.map(n, names.indexOf(n) == names.lastIndexOf(n)).indexOf(false))[0] - size(self.spec.steps)].name) + '": give each a name of its own'`
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || self.spec.steps.all(s, has(s.image) && size(s.image) > 0)",fieldPath=".spec.steps",messageExpression=`'the step "' + self.spec.steps[self.spec.steps.map(c, has(c.image) && size(c.image) > 0).indexOf(false)].name + '" has no image: set image'`
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || !has(self.spec.sidecars) || self.spec.sidecars.all(c, has(c.image) && size(c.image) > 0)",fieldPath=".spec.sidecars",messageExpression=`'the sidecar "' + self.spec.sidecars[self.spec.sidecars.map(c, has(c.image) && size(c.image) > 0).indexOf(false)].name + '" has no image: set image'`
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || self.spec.steps.all(s, !has(s.script) || !has(s.command))",fieldPath=".spec.steps",messageExpression=`'the step "' + self.spec.steps[self.spec.steps.map(c, !has(c.script) || !has(c.command)).indexOf(false)].name + '" has script and command: set only one of them'`
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || !has(self.spec.timeout) || !self.spec.?template.?spec.?activeDeadlineSeconds.hasValue()",fieldPath=".spec",message="timeout and template.spec.activeDeadlineSeconds have the same meaning: set only timeout"
// +kubebuilder:validation:XValidation:rule="self.?status.?attempt.hasValue() || self.spec.?template.?spec.?restartPolicy.orValue('Never') != 'OnFailure' || self.spec.steps.all(s, !has(s.onError) || s.onError != 'Continue')",fieldPath=".spec",messageExpression=`'the step "' + self.spec.steps[self.spec.steps.map(c, !has(c.onError) || c.onError != 'Continue').indexOf(false)].name + '" has onError: Continue, and template.spec.restartPolicy: OnFailure restarts a failed step forever: set only one of them'`
// +kubebuilder:validation:XValidation:rule="self.?status.?conditions.hasValue() && oldSelf.?status.?conditions.hasValue() && self.status.conditions != oldSelf.status.conditions || self.?status.?steps.hasValue() && oldSelf.?status.?steps.hasValue() && self.status.steps != oldSelf.status.steps || !oldSelf.?status.?attempt.hasValue() || self.spec.steps == oldSelf.spec.steps && has(self.spec.sidecars) == has(oldSelf.spec.sidecars) && (!has(self.spec.sidecars) || self.spec.sidecars == oldSelf.spec.sidecars) && has(self.spec.template) == has(oldSelf.spec.template) && (!has(self.spec.template) || self.spec.template == oldSelf.spec.template) && has(self.spec.timeout) == has(oldSelf.spec.timeout) && (!has(self.spec.timeout) || self.spec.timeout == oldSelf.spec.timeout)",fieldPath=".spec",messageExpression=`(self.spec.steps != oldSelf.spec.steps ? 'spec.steps' : has(self.spec.sidecars) != has(oldSelf.spec.sidecars) || has(self.spec.sidecars) && self.spec.sidecars != oldSelf.spec.sidecars ? 'spec.sidecars' : has(self.spec.template) != has(oldSelf.spec.template) || has(self.spec.template) && self.spec.template != oldSelf.spec.template ? 'spec.template' : 'spec.timeout') + " can't change once the Task has a Pod: create a new Task, or delete this one first"`
type Task struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What to run. The name of the Task has at most 63 characters.
	// +required
	Spec TaskSpec `json:"spec"`
	// What became of it. Written by taskflow.
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

// TaskSpec says what to run. Once the Task has a Pod, steps, sidecars, template and timeout are fixed.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.cancel) && self.cancel && has(self.suspend) && self.suspend)",message="cancel and suspend are both true: set only one of them"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || has(self.cancel) && self.cancel",message="cancel can't be taken back: create a new Task"
type TaskSpec struct {
	// The steps in the order in which they run, at most 100. Each starts when the one before it has ended with exit code 0;
	// after a failed one the rest are skipped.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="a Task needs at least one step"
	Steps []Step `json:"steps"`

	// The Pod that the steps run in: any field of a Pod template, such as volumes, securityContext or
	// imagePullSecrets. Containers are left out: they are the steps. The restart policy is Never
	// unless set to OnFailure.
	// +optional
	Template *PodTemplate `json:"template,omitempty"`

	// Containers that run beside the steps: started one after another before the first step (and past their startupProbe), and
	// ended after the last. How they end does not matter to the Task. Any field of a core/v1 Container but restartPolicy.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:XValidation:fieldPath=".name",rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name of a sidecar must be lower-case letters, digits and '-', start and end with a letter or digit, and have at most 63 characters"
	// +kubebuilder:validation:items:XValidation:fieldPath=".name",rule="!self.startsWith('taskflow-')",message="the name of a sidecar can't start with taskflow-: such names are taskflow's own"
	// +kubebuilder:validation:items:XValidation:fieldPath=".restartPolicy",rule="false",message="restartPolicy of a sidecar is Always: leave it out"
	Sidecars []corev1.Container `json:"sidecars,omitempty"`

	// How long the Task may take, such as 90s or 1h30m: from its start, which suspend resets, over all its Pods, and also while it waits for
	// an image, a quota or a node. Then what runs is ended and the Task has failed. At least one second. Default: no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="[type(self)] == [string]",message="timeout is a number without a unit: write it as 90s, 5m or 1h30m"
	// +kubebuilder:validation:XValidation:rule="[type(self)] != [string] || [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31].all(i, i >= size(self) || self.charAt(i) in ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] || i > 0 && (self.charAt(i) in ['.', 'h', 'm', 's'] && self.charAt(i - 1) in ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] || self.charAt(i) == 's' && self.charAt(i - 1) == 'm')) && (self.endsWith('h') || self.endsWith('m') || self.endsWith('s')) && duration(self) >= duration('1s') && duration(self) <= duration('99999h')",message="timeout must be a duration from 1s to 99999h, such as 90s, 5m or 1h30m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// How often a failed Pod is followed by a new one, which begins with the first step: after 10 seconds, and twice as long
	// each time, 6 minutes at most. It is created only when the failed Pod has ended. Default: 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	BackoffLimit int32 `json:"backoffLimit,omitempty"`

	// How many seconds after its end the Task is deleted, with its Pods, counted from when taskflow saw the end. Default: never.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`

	// Makes no Pod while true, and has no effect on a Pod that exists: so a Task may serve only those Pods, Jobs and CronJobs
	// that name it with the label taskflow.practice.com/task. Default: false.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// Ends the Task: the command that runs gets SIGTERM, and SIGKILL after the Pod's grace period; the other steps are
	// skipped, and the Pod stays with its logs. A Pod that no node has taken is deleted. Can't be taken back. Default: false.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// Step is one container of the sequence: any field of a core/v1 Container. A step without a command runs the one of
// its image.
//
// +kubebuilder:validation:XValidation:fieldPath=".name",rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name of a step must be lower-case letters, digits and '-', start and end with a letter or digit, and have at most 63 characters"
// +kubebuilder:validation:XValidation:fieldPath=".name",rule="!self.startsWith('taskflow-')",message="the name of a step can't start with taskflow-: such names are taskflow's own"
// +kubebuilder:validation:XValidation:fieldPath=".lifecycle.postStart",rule="false",message="lifecycle.postStart of a step would run before the step is released: put it into the step's command"
// +kubebuilder:validation:XValidation:fieldPath=".restartPolicy",rule="false",message="restartPolicy of a step isn't supported: set template.spec.restartPolicy"
// +kubebuilder:validation:XValidation:fieldPath=".restartPolicyRules",rule="false",message="restartPolicyRules of a step isn't supported: set template.spec.restartPolicy"
type Step struct {
	corev1.Container `json:",inline"`

	// A script to run instead of a command: its interpreter is named by the first line, such as "#!/usr/bin/env python3", and
	// /bin/sh without one. args are its arguments.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Script string `json:"script,omitempty"`

	// How long one run of the command may take, such as 90s or 1h30m. After it the command gets SIGTERM, and SIGKILL after
	// the Pod's grace period; the step has failed with exit code 124. Default: no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="[type(self)] == [string]",message="timeout is a number without a unit: write it as 90s, 5m or 1h30m"
	// +kubebuilder:validation:XValidation:rule="[type(self)] != [string] || [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31].all(i, i >= size(self) || self.charAt(i) in ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] || i > 0 && (self.charAt(i) in ['.', 'h', 'm', 's'] && self.charAt(i - 1) in ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'] || self.charAt(i) == 's' && self.charAt(i - 1) == 'm')) && (self.endsWith('h') || self.endsWith('m') || self.endsWith('s')) && duration(self) >= duration('1ms') && duration(self) <= duration('99999h')",message="timeout must be a duration from 1ms to 99999h, such as 90s, 5m or 1h30m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// What a failure of the step means: Stop ends the Task, Continue goes on with the next step. Default: Stop.
	// +optional
	OnError OnError `json:"onError,omitempty"`

	// How often the command is run again after it has failed, in the same container: after a second, and twice as long each
	// time, a minute at most. Default: 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Retries int32 `json:"retries,omitempty"`
}

// OnError is what a failure of a step means.
//
// +kubebuilder:validation:Enum=Stop;Continue
type OnError string

// Values of OnError.
const (
	OnErrorStop     OnError = "Stop"
	OnErrorContinue OnError = "Continue"
)

// PodTemplate is a core/v1 PodTemplateSpec whose containers are left out.
type PodTemplate struct {
	// Labels and annotations of the Pod.
	// +optional
	// +kubebuilder:validation:XValidation:fieldPath=".annotations",rule="!self.exists(key, key.startsWith('taskflow.practice.com/') && !(key in ['taskflow.practice.com/handoff', 'taskflow.practice.com/agent-delivery']))",messageExpression=`'template.metadata.annotations: ' + self.filter(key, key.startsWith('taskflow.practice.com/') && !(key in ['taskflow.practice.com/handoff', 'taskflow.practice.com/agent-delivery']))[0] + ' is set by taskflow: remove it; only taskflow.practice.com/handoff and taskflow.practice.com/agent-delivery can be set'`
	// +kubebuilder:validation:XValidation:fieldPath=".annotations",rule="!('taskflow.practice.com/handoff' in self) || self['taskflow.practice.com/handoff'] == 'controller'",messageExpression=`'template.metadata.annotations: taskflow.practice.com/handoff is "' + self['taskflow.practice.com/handoff'] + '": set it to controller, or remove it'`
	// +kubebuilder:validation:XValidation:fieldPath=".annotations",rule="!('taskflow.practice.com/agent-delivery' in self) || self['taskflow.practice.com/agent-delivery'] in ['init', 'image']",messageExpression=`'template.metadata.annotations: taskflow.practice.com/agent-delivery is "' + self['taskflow.practice.com/agent-delivery'] + '": set it to init or image, or remove it'`
	// +kubebuilder:validation:XValidation:fieldPath=".labels",rule="!self.exists(key, key.startsWith('taskflow.practice.com/'))",messageExpression=`'template.metadata.labels: ' + self.filter(key, key.startsWith('taskflow.practice.com/'))[0] + ' is set by taskflow: remove it'`
	Metadata metav1.ObjectMeta `json:"metadata,omitempty"`
	// The Pod's spec, without containers.
	// +optional
	// +kubebuilder:validation:XValidation:fieldPath=".containers",rule="size(self) == 0",message="template.spec.containers must be left out: the steps are the containers"
	// +kubebuilder:validation:XValidation:fieldPath=".restartPolicy",rule="self in ['Never', 'OnFailure']",message="template.spec.restartPolicy must be Never or OnFailure: steps must be able to finish"
	Spec corev1.PodSpec `json:"spec,omitempty"`
}

// TaskPhase is the state of a Task in one word.
type TaskPhase string

// Phases of a Task.
const (
	TaskPending   TaskPhase = "Pending"   // no step runs yet
	TaskRunning   TaskPhase = "Running"   // the Pod runs, or a step runs or has run
	TaskSucceeded TaskPhase = "Succeeded" // all steps ended well
	TaskFailed    TaskPhase = "Failed"    // a step failed, or the Task can't run
	TaskCancelled TaskPhase = "Cancelled" // ended by cancel
	TaskSuspended TaskPhase = "Suspended" // suspend is true and there is no Pod
)

// Types of a Task's conditions. Complete, Failed and Suspended mean what they mean on a Job, so that
// `kubectl wait --for=condition=Complete` works.
const (
	ConditionComplete    = "Complete"
	ConditionFailed      = "Failed"
	ConditionSuspended   = "Suspended"
	ConditionProgressing = "Progressing" // its reason says what the Task does, or what it waits for
)

// Reasons of a Task's conditions. Where the reason lies with the kubelet or the scheduler, theirs is used: ImagePullBackOff,
// ErrImagePull, InvalidImageName, CreateContainerConfigError, Unschedulable, Evicted and others.
const (
	ReasonStepsSucceeded       = "StepsSucceeded"       // Complete: every step ended well
	ReasonStepFailed           = "StepFailed"           // Failed: a step ended with another code than 0
	ReasonCancelled            = "Cancelled"            // Failed: cancel is true
	ReasonDeadlineExceeded     = "DeadlineExceeded"     // Failed: timeout is over; Progressing: the Pod is being ended for it
	ReasonRetrying             = "Retrying"             // Progressing: the Pod has failed, and another one follows
	ReasonPodTerminating       = "PodTerminating"       // Progressing: the failed Pod hasn't ended yet, and the next one waits for that
	ReasonImagePullBackOff     = "ImagePullBackOff"     // Progressing, Failed: an image can't be pulled
	ReasonPodFailed            = "PodFailed"            // Failed: the Pod failed, and gives no reason of its own
	ReasonPodDeleted           = "PodDeleted"           // Failed: somebody deleted the Pod before the steps had ended
	ReasonPodNameConflict      = "PodNameConflict"      // Failed: a Pod of the Task's name exists and isn't the Task's
	ReasonPodInvalid           = "PodInvalid"           // Failed: the API server finds the Pod invalid
	ReasonPodRefused           = "PodRefused"           // Progressing: a quota, a webhook or a policy refuses the Pod; Failed: taskflow's webhook isn't called
	ReasonEntrypointUnresolved = "EntrypointUnresolved" // Progressing, Failed: the command of a step's image isn't known
	ReasonSuspended            = "Suspended"            // Suspended, Progressing: suspend is true
	ReasonResumed              = "Resumed"              // Suspended is false: suspend was true and no longer is
	ReasonPodCreated           = "PodCreated"           // Progressing: the Pod exists, no step runs yet
	ReasonNoScheduler          = "NoScheduler"          // Progressing: no scheduler has handled the Pod
	ReasonNodeNotResponding    = "NodeNotResponding"    // Progressing: the kubelet of the Pod's node has not reported on the Pod
	ReasonInitContainerRunning = "InitContainerRunning" // Progressing: an init container runs
	ReasonSidecarNotStarted    = "SidecarNotStarted"    // Progressing: the startupProbe of a sidecar has not succeeded
	ReasonContainersNotReady   = "ContainersNotReady"   // Progressing: containers that the first step waits for are not ready
	ReasonPullingImage         = "PullingImage"         // Progressing: an image is being pulled
	ReasonStepRunning          = "StepRunning"          // Progressing: a step runs
	ReasonStepWaiting          = "StepWaiting"          // Progressing: between two steps
)

// StepState is the state of a step in one word.
type StepState string

// States of a step.
const (
	StepWaiting   StepState = "Waiting"   // not released, or its container isn't up
	StepRunning   StepState = "Running"   // released and running
	StepSucceeded StepState = "Succeeded" // ended with exit code 0
	StepFailed    StepState = "Failed"    // ended otherwise, or could not start
	StepSkipped   StepState = "Skipped"   // not run, since the sequence ended before it
)

// TaskStatus is what became of a Task.
type TaskStatus struct {
	// The generation of the spec that this status is of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Pending, Running, Succeeded, Failed, Cancelled or Suspended.
	// +optional
	Phase TaskPhase `json:"phase,omitempty"`
	// The Pod that the steps run in. It has the Task's name; a later one ends in -retry- and its number.
	// +optional
	PodName string `json:"podName,omitempty"`
	// The UID of that Pod: another one of its name isn't the Task's.
	// +optional
	PodUID types.UID `json:"podUID,omitempty"`
	// The number of the Pod, from 1.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// The Pods before this one, and how they failed.
	// +optional
	// +listType=atomic
	Attempts []AttemptStatus `json:"attempts,omitempty"`
	// The steps 1 to this one are released, or have run.
	// +optional
	Order int32 `json:"order,omitempty"`
	// Steps that have ended well, of all steps: "2/3".
	// +optional
	Progress string `json:"progress,omitempty"`
	// The step that runs, that is next, or that failed. Empty when all have ended well.
	// +optional
	CurrentStep string `json:"currentStep,omitempty"`
	// When the Task was first seen and not suspended. Resuming it sets it anew.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// When the last step ended, or the Task failed.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// From startTime to completionTime, once the Task has ended: "65s".
	// +optional
	Duration string `json:"duration,omitempty"`
	// Complete, Failed and Suspended, as a Job has them; and Progressing, whose reason says what the Task waits for.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Each step, in order.
	// +optional
	// +listType=map
	// +listMapKey=name
	Steps []StepStatus `json:"steps,omitempty"`
}

// AttemptStatus is what became of an earlier Pod of the Task.
type AttemptStatus struct {
	// The Pod's name.
	PodName string `json:"podName"`
	// When it failed.
	CompletionTime metav1.Time `json:"completionTime"`
	// Why it failed, in one word.
	Reason string `json:"reason"`
	// Why it failed, for people.
	// +optional
	Message string `json:"message,omitempty"`
}

// StepStatus is what became of a step.
type StepStatus struct {
	// The step's name.
	Name string `json:"name"`
	// Waiting, Running, Succeeded, Failed or Skipped.
	State StepState `json:"state"`
	// Why it is in this state, in one word: Completed, Error, OOMKilled, TimedOut, Cancelled, StartError, ImagePullBackOff, ...
	// +optional
	Reason string `json:"reason,omitempty"`
	// The exit code, once the step's container has ended.
	// +optional
	ExitCode *int32 `json:"exitCode,omitempty"`
	// How often the command was run again.
	// +optional
	Retries int32 `json:"retries,omitempty"`
	// When the step's command started: not its container, which waits for its turn. While the step runs, it is the end of the step before,
	// or the start of the first step's container.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// When the step's command ended.
	// +optional
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
	// From startedAt to finishedAt, once the step has ended: "350ms", "65s".
	// +optional
	Duration string `json:"duration,omitempty"`
	// The digest of the image that the step ran.
	// +optional
	ImageID string `json:"imageID,omitempty"`
	// More, for people.
	// +optional
	Message string `json:"message,omitempty"`
}
