// Package contract defines what the webhook, the agent and the controllers agree on: the labels and annotations of a sequential Pod, its
// volumes and paths, the agent's command line, and the record of a step. Each is defined here, once.
//
// Pods in flight outlive an upgrade of the operator. So a release may add to this package, and never changes what is here.
//
// The agent contains this package, and one agent is in memory for each step that waits. So the package uses the standard library only, and
// code that the agent calls uses neither fmt nor packages built on it, such as encoding/json and flag: they would be a fifth of the agent.
//
// # Glossary
//
// One word for one thing, in code, API, messages and documents:
//
//   - Task: an object of the kind Task, which runs its steps in Pods of its own. Not a Pod, and not a step.
//   - sequential Pod: a Pod whose labels ask for order (SequentialLabel or TaskLabel). Not necessarily gated yet.
//   - gated Pod: a sequential Pod that the webhook has mutated: the agent is in front of each step's command. Not a Pod with scheduling gates.
//   - step: a container of the sequence, with a number from 1. Not each container of the Pod.
//   - predecessor: a step that another one depends on directly, by dependsOn or as the step before it. Not each step that runs earlier.
//   - stage: 1 plus the greatest stage of a step's predecessors. Steps of one stage can run side by side. Not the step's number,
//     although both are equal in a plain sequence.
//   - final step: a step with finally: true, which runs after all others, however they ended. Not the last step of a sequence without such steps.
//   - helper: a regular container of a sequential Pod that is not a step. Not a sidecar.
//   - sidecar: an init container with restartPolicy Always, as in Kubernetes. Not a helper.
//   - agent: the program that is process 1 of a step's container. Not the command, and not part of the operator.
//   - command: the process that the step's author wants to run, a child of the agent. Not the container's command line, which is the agent's.
//   - gate: the place where an agent waits for its step's turn. Not a scheduling gate, and not a probe.
//   - release: to let the command of a step run. Not a version, and not the start of the container.
//   - order: the annotation that releases stages 1 to k, written by the controller. Not the list of steps.
//   - halt: the annotation with which the controller says, finally, that no further step starts. Not a signal to the step that runs, unless
//     the step is to be cancelled.
//   - hand-off: the release of the next step by an agent, through its record. Not a release by the controller.
//   - record: how a step ended, written by its agent. Not proof: the kubelet's report outranks it.
//   - attempt: one Pod of a Task. A Task with backoffLimit n has at most n+1. Not a retry.
//   - retry: another run of the command by the agent, in the same container. Not a restart, and not a new Pod.
//   - restart: another start of the container by the kubelet. Not a retry.
//   - condition: a test in when, of how an earlier step ended. Not a condition in the status of a Task.
//   - output: a key with a value that a step wrote for later steps to OutputFile. Not its log, and not its files in a volume.
//   - input: an environment variable with an output of an earlier step. Not a file, and not text in a command.
//   - param: an environment variable of all steps of a Task, spec.params. Not an input: its value is known before the Pod exists.
//   - workspace: the directory that all steps of a Task share, spec.workspace. Not the run directory, which is taskflow's.
//   - succeeded, failed, skipped: the three ends of a step. A skipped step never ran, because the sequence had ended or a condition
//     did not hold. Not states of the container.
//   - interrupted: ended because the container was told to stop, by deletion, eviction or cancel. Not failed by itself, even with an exit code.
//   - terminating: being ended from outside, said of a Pod. Not terminal: a terminal Pod has ended.
//   - cancel: spec.cancel of a Task. Not suspend, which only prevents Pods.
//   - timeout, deadline: a timeout bounds one run of a step's command, the deadline (spec.timeout) a whole Task. Not a grace period.
//   - start grace period: how long a container may fail to start before its Task fails. Not the grace period of a Pod's termination.
//   - delivery: how the agent gets into a Pod: by an init container or as an image volume. Not how the command gets into its image.
//   - entrypoint: what an image runs by its configuration. The operator resolves it from the registry. Not the step's command field.
//
// # To add a field to a step
//
//   - api/v1alpha1/step_types.go: the field of Step, with its unit and default. Then run make generate, which writes the CRD.
//   - hack/crd/rules.go: the CEL rule that validates the field, if a bound isn't enough.
//   - internal/contract/options.go: the field of StepOptions, unless the field only changes the container.
//   - internal/podspec/options.go: from the step to the options. A list of steps in an annotation needs nothing else.
//   - internal/podspec/checklist.go, internal/podspec/checkvalues.go: what can't work, one sentence each, for Tasks and Pods alike.
//   - charts/taskflow/templates/webhook/validating_webhook.yaml: the condition on which the webhook is called for Tasks. A test fails without it.
//   - internal/podspec/effective.go: if stepTemplate has the field, too.
//   - internal/podspec/merge.go: how a Pod that names the Task overrides the field, if it changes the container.
//   - internal/podspec/flags.go: from the options to the agent's flags.
//   - internal/contract/agentflags.go: the flag of the agent, and its validation.
//   - agent/step.go: what the agent does with it.
//   - docs/tasks.md, docs/flow.md and their translations, docs/tasks.zh-CN.md and docs/flow.zh-CN.md: the row of the table.
//   - config/samples: an example, if the field deserves one; test/e2e/samples_test.go runs it.
//
// # To add an annotation
//
//   - internal/contract/annotations.go: the constant, with its values, its writers and its readers.
//   - charts/taskflow/templates/policy/annotations.yaml and charts/taskflow/templates/policy/keys.yaml: who may write it. Then run make generate,
//     which renders config/policy. A test fails if a key is missing there.
//   - charts/taskflow/templates/policy/templates.yaml: which values of a template are refused early, if users may write it.
//   - internal/podspec/validate.go: which values are refused at admission.
//   - hack/crd/rules.go: the rules for the metadata of a template, if the template of a Task may have it.
//   - controller/cache.go: the list of annotations that the cache keeps, if a controller reads it.
//   - docs/pods.md and docs/pods.zh-CN.md: the row of the table.
//
// # To add a reason
//
//   - api/v1alpha1/status_types.go: the constant, if it is a reason of a condition.
//   - internal/contract/record.go: the constant, if an agent gives it.
//   - internal/entrypoint/reasons.go: the constant, if a look-up gives it.
//   - controller/situations.go: the row of the decision table, if a Task waits or fails for it.
//   - controller/startup.go: what a Pod waits for while it starts, and the events of the kubelet that say so.
//   - controller/events.go: the event, if it is a reason of an event.
//   - test/docs/testdata/reasons.txt: the list that keeps reasons stable. A reason that is in a release never changes its meaning.
//   - docs/reasons.md and docs/reasons.zh-CN.md: what it means and what to do. A test fails if a reason is missing there.
package contract
