package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The comments of types and fields in this file are the text of `kubectl explain`. The CEL rules that validate a Task are in
// hack/crd/rules.go, by field: `make generate` adds them to the CustomResourceDefinition.

// Task runs its steps one after another, or side by side, in a single Pod. Each step is a container of that Pod.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tf,categories=all
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress`,description="Steps that have succeeded or that a condition has skipped, of all steps."
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.currentStep`,description="The steps that are running, or the step that is next or that failed."
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

// TaskSpec describes what a Task runs. The fields suspend, cancel, cancelFinally, backoffLimit and ttlSecondsAfterFinished can change. All others
// are immutable once the Task has a Pod.
type TaskSpec struct {
	// steps are the containers to run, in this order. A Task has from 1 to 100 steps. A step starts when the step before it succeeds, or,
	// if it has dependsOn, when the steps that it names succeed. If a step fails, no further step starts, except for final steps, unless the
	// failed step has onError: Continue or FailAtEnd. Steps that run beside the failed one run to their end.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Steps []Step `json:"steps"`

	// stepTemplate holds what all steps share. A field of a step takes precedence. Lists such as env and volumeMounts are merged by name or
	// mountPath, as kubectl apply merges them.
	// +optional
	StepTemplate *StepTemplate `json:"stepTemplate,omitempty"`

	// params are environment variables of all steps. A variable of the same name in the env of a step takes precedence. So does one in the
	// container of a Pod that names the Task. A Task has at most 100.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=100
	Params []Param `json:"params,omitempty"`

	// workspace is a directory that all steps share. It is mounted at /workspace. A step whose workingDir is not set, neither in the step nor
	// in its image, runs in it.
	// +optional
	Workspace *Workspace `json:"workspace,omitempty"`

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
	// terminates the Pod, and the Task fails. If the Task has final steps, taskflow first ends only the other steps: see finallyTimeout. Must be between 1s and 99999h. Unset means no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// finallyTimeout limits how much longer the final steps may run after timeout has expired, such as 90s or 1h30m. Then the Pod is terminated.
	// Takes effect only together with timeout. Must be between 1s and 99999h. Defaults to 5m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	FinallyTimeout *metav1.Duration `json:"finallyTimeout,omitempty"`

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
	// started are skipped, except for final steps: see cancelFinally. The Pod and its logs are kept, unless the Pod is not scheduled yet: then it is deleted. cancel can't be set back to
	// false. Defaults to false.
	// +optional
	Cancel bool `json:"cancel,omitempty"`

	// cancelFinally ends the final steps, too. Without it, they run after cancel. Takes effect only together with cancel, and can't be set
	// back to false. Defaults to false.
	// +optional
	CancelFinally bool `json:"cancelFinally,omitempty"`
}

// StepTemplate holds what all steps share.
type StepTemplate struct {
	// image is the image of steps without one.
	// +optional
	Image string `json:"image,omitempty"`
	// imagePullPolicy is Always, Never or IfNotPresent.
	// +optional
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// workingDir is the directory in which commands run.
	// +optional
	WorkingDir string `json:"workingDir,omitempty"`
	// env are environment variables.
	// +optional
	// +listType=map
	// +listMapKey=name
	Env []corev1.EnvVar `json:"env,omitempty"`
	// envFrom are sources of environment variables.
	// +optional
	// +listType=atomic
	EnvFrom []corev1.EnvFromSource `json:"envFrom,omitempty"`
	// volumeMounts are mounts of the volumes in template.spec.volumes.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`
	// resources are requests and limits.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// securityContext holds security options.
	// +optional
	SecurityContext *corev1.SecurityContext `json:"securityContext,omitempty"`
	// timeout limits the duration of one run of a command. See steps[].timeout.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// retries is how many times a failed command is run again. See steps[].retries.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Retries *int32 `json:"retries,omitempty"`
}

// Param is an environment variable of all steps.
type Param struct {
	// name is the name of the environment variable: letters, digits and '_', not starting with a digit.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// value is its value. Defaults to an empty string.
	// +optional
	Value string `json:"value,omitempty"`
}

// Workspace is the directory that all steps share. Without fields, it is an emptyDir, which ends with the Pod.
type Workspace struct {
	// size makes the workspace a PersistentVolumeClaim of this size, with the access mode ReadWriteOnce. The claim belongs to the Task, is kept
	// between attempts, and is deleted with the Task. In a Pod that names the Task, the claim belongs to the Pod.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// storageClassName is the StorageClass of the claim. Takes effect only together with size. Defaults to the default StorageClass.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
	// claimName is the name of a PersistentVolumeClaim that exists. It can't be set together with size.
	// +optional
	ClaimName string `json:"claimName,omitempty"`
}

// PodTemplate is a core/v1 PodTemplateSpec without containers.
type PodTemplate struct {
	// metadata holds the labels and annotations of the Pod.
	// +optional
	Metadata metav1.ObjectMeta `json:"metadata,omitempty"`
	// spec is the specification of the Pod, without containers.
	// +optional
	Spec corev1.PodSpec `json:"spec,omitempty"`
}
