package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Step is one container of the sequence. It takes the fields of a core/v1 Container. Without a command, it runs the entrypoint of its image.
type Step struct {
	corev1.Container `json:",inline"`

	// script is a script to run instead of a command, with args as its arguments. Its first line names the interpreter, such as
	// "#!/usr/bin/env python3". Without such a line, /bin/sh runs it. It has at most 65536 characters.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Script string `json:"script,omitempty"`

	StepOptions `json:",inline"`
}

// StepOptions are what a step has beyond its container: when it runs, and what its end means. They are the same on a step of a Task and on an
// entry of the annotation taskflow.practice.com/steps of a Pod.
type StepOptions struct {
	// timeout limits the duration of one run of the command, such as 90s or 1h30m. When it expires, the command receives SIGTERM, and SIGKILL
	// when the Pod's grace period has passed. The step then fails with exit code 124. Must be between 1ms and 99999h. Unset means no limit.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// onError specifies what happens when the step fails. Stop fails the Task, and no further step starts. Continue goes on as if the step had
	// succeeded. FailAtEnd goes on, too, and the Task fails in the end. Defaults to Stop.
	// +optional
	OnError OnError `json:"onError,omitempty"`

	// retries is how many times a failed command is run again in the same container. The delay before it is one second, and doubles each
	// time up to one minute. Defaults to stepTemplate.retries, else 0: the first failure fails the step.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Retries *int32 `json:"retries,omitempty"`

	// exitCodes are rules for exit codes of the command. An exit code without a rule means success if it is 0, and failure otherwise. A step
	// has at most 20.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	ExitCodes []ExitCodeRule `json:"exitCodes,omitempty"`

	// dependsOn names the steps that must succeed before this one starts. They must stand before it in the list. Steps that don't depend on each
	// other run side by side. A step counts as succeeded, too, if it failed with onError: Continue or FailAtEnd, or if it was skipped because of
	// a condition. An empty list means that the step starts at once. Unset means the step before it in the list.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=63
	DependsOn []string `json:"dependsOn,omitzero"`

	// when are conditions that must all hold when the turn of the step comes. If one does not, the step is skipped with the reason WhenFalse, and
	// the sequence goes on as if the step had succeeded. A step has at most 20.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	When []Condition `json:"when,omitempty"`

	// inputs are environment variables of the command with outputs of earlier steps. A step writes its outputs as lines KEY=value to the file that
	// the environment variable TASKFLOW_OUTPUT names. They are read when the command starts. A step has at most 100.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Inputs []Input `json:"inputs,omitempty"`

	// finally makes the step a final step. It runs after all steps that are not final have ended, even if one failed, the Task was
	// cancelled or its timeout has expired. Final steps stand at the end of the list and run one after another. Their environment has
	// TASKFLOW_STATUS, which is Succeeded, Failed or Cancelled, and TASKFLOW_FAILED_STEP, the name of the step that failed first. A final step
	// that fails makes the Task fail, unless it has onError: Continue. Defaults to false.
	// +optional
	Finally bool `json:"finally,omitempty"`
}

// ExitCodeRule says what some exit codes of a command mean.
type ExitCodeRule struct {
	// in are the exit codes, from 0 to 255.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=255
	In []int32 `json:"in"`
	// then is what they mean. Succeed: the step has succeeded. Finish: the step has succeeded, and the sequence ends here with success: the
	// remaining steps are skipped. Fail: the step has failed, and retries don't apply. Retry: the step has failed, and only
	// exit codes with this rule are retried.
	// +required
	Then ExitCodeAction `json:"then"`
}

// ExitCodeAction is what an exit code means.
//
// +kubebuilder:validation:Enum=Succeed;Finish;Fail;Retry
type ExitCodeAction string

const (
	// ExitCodeSucceed means that the step has succeeded.
	ExitCodeSucceed ExitCodeAction = "Succeed"
	// ExitCodeFinish means that the step has succeeded and ends the sequence.
	ExitCodeFinish ExitCodeAction = "Finish"
	// ExitCodeFail means that the step has failed and is not retried.
	ExitCodeFail ExitCodeAction = "Fail"
	// ExitCodeRetry means that the step has failed and may be retried. Once a step has such a rule, other exit codes are not retried.
	ExitCodeRetry ExitCodeAction = "Retry"
)

// Condition tests how an earlier step ended: either its state, its exit code or one of its outputs.
type Condition struct {
	// step is the name of a step that this step depends on, directly or not. A final step can name every step that is not final, and every final
	// step before it.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step"`
	// state tests how the step has ended.
	// +optional
	State *StateTest `json:"state,omitempty"`
	// exitCode tests the exit code of the step's command. No test holds for a step that was skipped.
	// +optional
	ExitCode *ExitCodeTest `json:"exitCode,omitempty"`
	// output is the key of an output of the step, which in or notIn tests.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Output string `json:"output,omitempty"`
	// in holds if the output has one of these values.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	In []string `json:"in,omitempty"`
	// notIn holds if the output has none of these values, or if the step has no such output.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	NotIn []string `json:"notIn,omitempty"`
}

// StateTest tests how a step has ended. Exactly one of its fields is set.
type StateTest struct {
	// in holds if the step has ended in one of these states: Succeeded, Failed or Skipped.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum=Succeeded;Failed;Skipped
	In []StepState `json:"in,omitempty"`
	// notIn holds if the step has ended in another state: Succeeded, Failed or Skipped.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:items:Enum=Succeeded;Failed;Skipped
	NotIn []StepState `json:"notIn,omitempty"`
}

// ExitCodeTest tests an exit code. Exactly one of its fields is set.
type ExitCodeTest struct {
	// in holds if the exit code is one of these.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=255
	In []int32 `json:"in,omitempty"`
	// notIn holds if the exit code is none of these.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=255
	NotIn []int32 `json:"notIn,omitempty"`
}

// Input is an environment variable with an output of an earlier step.
type Input struct {
	// name is the name of the environment variable: letters, digits and '_', not starting with a digit. Defaults to output.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// step is the name of a step that this step depends on, directly or not. A final step can name every step that is not final, and every final
	// step before it.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Step string `json:"step"`
	// output is the key of the output.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Output string `json:"output"`
	// default is the value if the step has no such output. Unset means that this step then fails.
	// +optional
	Default *string `json:"default,omitempty"`
}

// OnError specifies what happens when a step fails.
//
// +kubebuilder:validation:Enum=Stop;Continue;FailAtEnd
type OnError string

const (
	// OnErrorStop fails the Task and skips the remaining steps.
	OnErrorStop OnError = "Stop"
	// OnErrorContinue goes on as if the step had succeeded.
	OnErrorContinue OnError = "Continue"
	// OnErrorFailAtEnd goes on, and the Task fails in the end.
	OnErrorFailAtEnd OnError = "FailAtEnd"
)
