package controller

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestObserve proves the next order and halt for each state that a Pod of three steps goes through.
func TestObserve(t *testing.T) {
	type seen struct {
		States            string
		Succeeded, Failed int
		Order             int
		Halt              string
	}
	cases := map[string]struct {
		pod  *corev1.Pod
		want seen
	}{
		"a fresh Pod": {
			sequential(phase(corev1.PodPending)),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"no order yet": {
			sequential(order(""), containers(running("a"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"helpers, and no kubelet has looked at the Pod": {
			sequential(order("0"), phase(corev1.PodPending)),
			seen{"Waiting Waiting Waiting", 0, -1, 0, ""},
		},
		"a helper that isn't up": {
			sequential(order("0"), containers(running("a"), waiting("helper", "ContainerCreating", ""), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 0, ""},
		},
		"a helper that runs and isn't ready": {
			sequential(order("0"), containers(running("a"), running("helper"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 0, ""},
		},
		"one of two helpers is ready": {
			sequential(order("0"), containers(running("a"), isReady(running("helper")), running("other"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 0, ""},
		},
		"the helpers are ready": {
			sequential(order("0"), containers(running("a"), isReady(running("helper")), isReady(running("other")), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"a helper has done its work": {
			sequential(order("0"), containers(running("a"), succeeded("helper"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"a helper fails before the first step": {
			sequential(order("0"), containers(running("a"), failedWith("helper", 3), running("b"), running("c"))),
			seen{"Skipped Skipped Skipped", 0, -1, 0, `helper "helper" failed with exit code 3 before the first step`},
		},
		"a helper fails before the first step, and is restarted": {
			sequential(order("0"), restartPolicy(corev1.RestartPolicyOnFailure), containers(running("a"), failedWith("helper", 3), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 0, ""},
		},
		"a helper is no longer ready, and the steps run": {
			sequential(containers(running("a"), running("helper"), running("b"), running("c"))),
			seen{"Running Waiting Waiting", 0, -1, 1, ""},
		},
		"a helper fails while the steps run: the Pod will fail, and the steps go on": {
			sequential(containers(succeeded("a"), failedWith("helper", 3), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the first step runs": {
			sequential(containers(running("a"), running("b"), running("c"))),
			seen{"Running Waiting Waiting", 0, -1, 1, ""},
		},
		"the first step has ended": {
			sequential(containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the first step has ended, and the annotation alone releases": {
			sequential(byAnnotation, containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the annotation alone releases, and the sequence is halted": {
			sequential(byAnnotation, halt("mine"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Skipped Skipped", 1, -1, 1, "mine"},
		},
		"the second is released by the annotation alone": {
			sequential(byAnnotation, order("2"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the first step has failed, and the next may run": {
			sequential(mayFail("a"), containers(failedWith("a", 1), running("b"), running("c"))),
			seen{"Failed Running Waiting", 1, -1, 2, ""},
		},
		"the agents are two steps ahead": {
			sequential(containers(succeeded("a"), succeeded("b"), succeeded("c"))),
			seen{"Succeeded Succeeded Succeeded", 3, -1, 3, ""},
		},
		"an agent is ahead of the kubelet, and its step has failed": {
			sequential(containers(running("a"), failedWith("b", 1), running("c"))),
			seen{"Running Failed Waiting", 0, -1, 1, ""},
		},
		"the second is released": {
			sequential(order("2"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"two steps ended before the first look": {
			sequential(containers(succeeded("a"), succeeded("b"), running("c"))),
			seen{"Succeeded Succeeded Running", 2, -1, 3, ""},
		},
		"all have ended": {
			sequential(order("3"), phase(corev1.PodSucceeded), containers(succeeded("a"), succeeded("b"), succeeded("c"))),
			seen{"Succeeded Succeeded Succeeded", 3, -1, 3, ""},
		},
		"a later step has ended, and the first hasn't": {
			sequential(containers(running("a"), succeeded("b"), running("c"))),
			seen{"Running Succeeded Waiting", 0, -1, 1, ""},
		},

		"a step failed": {
			sequential(order("2"), containers(succeeded("a"), failedWith("b", 1), running("c"))),
			seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 1`},
		},
		"a step was killed, reason Error": {
			sequential(containers(exited("a", 137, "Error", ""), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 137`},
		},
		"a step was killed, reason OOMKilled": {
			sequential(containers(exited("a", 137, "OOMKilled", ""), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 137 (OOMKilled)`},
		},
		"a step was killed, for an odd reason": {
			sequential(containers(exited("a", 137, "ContainerStatusUnknown", ""), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 137 (ContainerStatusUnknown)`},
		},
		"a step failed, reason Completed": {
			sequential(containers(exited("a", 3, "Completed", ""), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 3 (Completed)`},
		},
		"a step failed, without a reason": {
			sequential(containers(exited("a", 3, "", ""), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 3`},
		},
		"a step succeeded, reason Error": {
			sequential(containers(exited("a", 0, "Error", ""), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"a step's command can't start": {
			sequential(containers(exited("a", 127, "Error", contract.Record{
				FinishedAt: ended, ExitCode: 127, Reason: contract.ReasonStartError, Message: `"nope" was not found`,
			}.Marshal()), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 127 (StartError): "nope" was not found`},
		},
		"the agent in a mounted image can't be run": {
			sequential(mountsAgent, containers(exited("a", 128, contract.ReasonStartError, `exec: "/taskflow/bin/agent": no such file`), running("b"), running("c"))),
			seen{
				"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 128 (StartError): the node cannot run taskflow's agent from its image: ` +
					`annotate the Pod with taskflow.practice.com/agent-delivery: init (exec: "/taskflow/bin/agent": no such file)`,
			},
		},
		"a start that failed on a subPath": {
			sequential(containers(exited("a", 128, contract.ReasonStartError, `mounting "/pods/1/volume-subpaths/s/a/0": no such file or directory`), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 128 (StartError): an earlier step removed the directory of a subPath while the container was started: ` +
				`mount the whole volume instead, and use a path below it (mounting "/pods/1/volume-subpaths/s/a/0": no such file or directory)`},
		},
		"the agent in a mounted image runs, and a directory is missing": {
			sequential(mountsAgent, containers(exited("a", 128, contract.ReasonStartError, `chdir to "/nowhere": no such file`), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 128 (StartError): chdir to "/nowhere": no such file`},
		},
		"a step fails while it waits, and the first runs on": { // a halt would end what runs
			sequential(containers(running("a"), exited("b", 137, "OOMKilled", ""), running("c"))),
			seen{"Running Failed Waiting", 0, -1, 1, ""},
		},
		"and its turn comes": {
			sequential(containers(succeeded("a"), exited("b", 137, "OOMKilled", ""), running("c"))),
			seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 137 (OOMKilled)`},
		},
		"a step can't be started, and another one before it is still to come": {
			sequential(order("1"), containers(succeeded("a"), running("b"), exited("c", 128, "StartError", ""))),
			seen{"Succeeded Running Failed", 1, -1, 2, ""},
		},
		"records are cut, and steps that were skipped have none": {
			sequential(order("2"), containers(succeeded("a"), failedWith("b", 3), exited("c", 0, "Completed", `{"taskflow":{"finish`))),
			seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 3`},
		},
		"a step succeeded in a Pod that is being deleted": {
			sequential(order("1"), deleted, containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 1, ""},
		},
		"then the first ends": {
			sequential(halt("mine"), containers(succeeded("a"), exited("b", 137, "OOMKilled", ""), running("c"))),
			seen{"Succeeded Failed Skipped", 1, 1, 2, "mine"},
		},
		"the agents were ahead of the annotation, and a step failed": {
			sequential(containers(succeeded("a"), failedWith("b", 3), skipped("c"))),
			seen{"Succeeded Failed Skipped", 1, 1, 2, `step "b" failed with exit code 3`},
		},
		"the agents were ahead of the annotation, and the Task halted it": {
			sequential(halt("mine"), containers(succeeded("a"), succeeded("b"), skipped("c"))),
			seen{"Succeeded Succeeded Skipped", 2, -1, 2, "mine"},
		},
		"the annotation alone releases steps, and one failed before its turn": {
			sequential(byAnnotation, containers(succeeded("a"), failedWith("b", 137), running("c"))),
			seen{"Succeeded Failed Skipped", 1, 1, 1, `step "b" failed with exit code 137`},
		},
		"two have failed": {
			sequential(order("2"), containers(succeeded("a"), failedWith("b", 1), failedWith("c", 2))),
			seen{"Succeeded Failed Failed", 1, 1, 2, `step "b" failed with exit code 1`},
		},
		"the rest was skipped": {
			sequential(order("1"), halt("mine"), phase(corev1.PodFailed), containers(failedWith("a", 1), skipped("b"), skipped("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, "mine"},
		},

		"OnFailure: a failed step is started again": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), containers(failedWith("a", 1), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"OnFailure: a failed step waits for its start": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), containers(waiting("a", "CrashLoopBackOff", "back-off"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"OnFailure: a succeeded step does not": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"OnFailure: a step that failed after a halt isn't": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), halt("cancelled"), containers(failedWith("a", 143), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, "cancelled"},
		},
		"OnFailure: the Pod has failed": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), phase(corev1.PodFailed), containers(failedWith("a", 1), failedWith("b", 143), failedWith("c", 143))),
			seen{"Failed Failed Failed", 0, 0, 1, `step "a" failed with exit code 1`},
		},
		"OnFailure: the Pod is being deleted": {
			sequential(restartPolicy(corev1.RestartPolicyOnFailure), deleted, containers(failedWith("a", 143), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, `step "a" failed with exit code 143`},
		},

		"the annotation is ahead of the steps": {
			sequential(order("3"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Running", 1, -1, 3, ""},
		},
		"the annotation is ahead of all steps": {
			sequential(order("100"), containers(running("a"), running("b"), running("c"))),
			seen{"Running Running Running", 0, -1, 100, ""},
		},
		"the annotation is ahead, and a step failed": {
			sequential(order("3"), containers(succeeded("a"), failedWith("b", 1), running("c"))),
			seen{"Succeeded Failed Running", 1, 1, 3, `step "b" failed with exit code 1`},
		},
		"the annotation is no number": {
			sequential(order("two"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the annotation is below 1": {
			sequential(order("-3"), containers(running("a"), running("b"), running("c"))),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},

		"halt is set, and no step failed": {
			sequential(halt("somebody's reason"), containers(running("a"), running("b"), running("c"))),
			seen{"Running Skipped Skipped", 0, -1, 1, "somebody's reason"},
		},
		"halt is set, and the running step succeeds": {
			sequential(halt("somebody's reason"), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Skipped", 1, -1, 1, "somebody's reason"},
		},
		"halt is set, and a step failed for another reason": {
			sequential(halt("somebody's reason"), containers(failedWith("a", 1), running("b"), running("c"))),
			seen{"Failed Skipped Skipped", 0, 0, 1, "somebody's reason"},
		},
		"halt is empty": {
			sequential(halt(""), containers(succeeded("a"), running("b"), running("c"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},

		"the status lists the containers in another order": {
			sequential(order("2"), containers(running("c"), succeeded("a"), running("b"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"the steps are in another order than the containers": {
			sequential(annotated(contract.StepsAnnotation, "c, a"), order("2"), containers(running("a"), running("b"), succeeded("c"))),
			seen{"Succeeded Running", 1, -1, 2, ""},
		},
		"other containers fail, end and run": {
			sequential(containers(failedWith("x", 1), succeeded("a"), succeeded("y"), running("b"), running("c"), running("z"))),
			seen{"Succeeded Running Waiting", 1, -1, 2, ""},
		},
		"init containers have the steps' names": {
			sequential(func(pod *corev1.Pod) { pod.Status.InitContainerStatuses = []corev1.ContainerStatus{failedWith("a", 1)} }),
			seen{"Waiting Waiting Waiting", 0, -1, 1, ""},
		},
		"a step without a status": {
			sequential(containers(succeeded("a"), running("c"))),
			seen{"Succeeded Waiting Waiting", 1, -1, 2, ""},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := c.pod.DeepCopy()
			s := observe(c.pod)
			if diff := cmp.Diff(c.want, seen{states(s.steps), s.done, s.failed, s.order, s.halt}); diff != "" {
				t.Errorf("observe (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, c.pod); diff != "" {
				t.Errorf("observe changed its Pod (-before +after):\n%s", diff)
			}
		})
	}
}

// TestObserveRandomPods proves what must hold for any Pod: the order and the halt are never taken back, no step is released before its
// predecessors succeeded, after a halt the order follows only to steps that ended, and observe wants no further change once its wish is written.
func TestObserveRandomPods(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 7))
	for number := range 5000 {
		pod := randomPod(t, random)
		before, s := released(pod), observe(pod)
		steps := contract.ParseSteps(pod.Annotations[contract.StepsAnnotation])

		if s.order < before {
			t.Errorf("the order goes from %d back to %d", before, s.order)
		}
		if s.order > max(before, len(steps)) {
			t.Errorf("the order is %d for %d steps", s.order, len(steps))
		}
		for i := max(before, 0); i < s.order; i++ {
			for _, name := range steps[:i] {
				if !hasRunWell(pod, name) {
					t.Errorf("step %q is released before %q succeeded", steps[i], name)
				}
			}
		}
		if was := pod.Annotations[contract.HaltAnnotation]; was != "" && s.halt != was {
			t.Errorf("halt was %q, and is %q", was, s.halt)
		}
		if s.halt != "" && s.order != before && !hasEnded(s.steps[s.order-1]) {
			t.Errorf("the order goes from %d to %d after a halt, and step %q has not run", before, s.order, steps[s.order-1])
		}
		if s.failed >= 0 && s.halt == "" {
			t.Errorf("step %q has failed, and the sequence goes on", steps[s.failed])
		}
		written := pod.DeepCopy()
		order(strconv.Itoa(s.order))(written)
		halt(s.halt)(written)
		again := observe(written)
		if diff := cmp.Diff([]any{s.order, s.halt, s.done, s.failed}, []any{again.order, again.halt, again.done, again.failed}); diff != "" {
			t.Errorf("observe changes its mind after its wish is written (-first +second):\n%s", diff)
		}
		if t.Failed() {
			t.Fatalf("the errors above are about Pod %d: %s", number, pod)
		}
	}
}

// hasRunWell reports whether the command of a container ran and exited with 0.
func hasRunWell(pod *corev1.Pod, name string) bool {
	for _, status := range pod.Status.ContainerStatuses {
		if end := status.State.Terminated; status.Name == name && end != nil {
			record, ok := contract.ParseRecord(end.Message)
			return end.ExitCode == 0 && (!ok || record.Reason != contract.ReasonSkipped || pod.Annotations[contract.HaltAnnotation] == "")
		}
	}
	return false
}
