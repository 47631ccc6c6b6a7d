//go:build e2e

package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"context"
	"errors"
	"syscall"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/node"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestPkillFindsNoAgent proves that a step which ends processes by words of their command lines ends no agent: neither its own nor that of
// a later step whose command has the same words.
func TestPkillFindsNoAgent(t *testing.T) {
	t.Parallel()
	// This does what "pkill -f worker" and "pkill agent" do, which the image lacks. The shell reads the words from a file, so its own
	// command line doesn't have them.
	const script = `cat >/tmp/script <<'END'
for process in /proc/[0-9]*; do
	if grep -q worker $process/cmdline 2>/dev/null || grep -qx agent $process/comm 2>/dev/null; then kill ${process#/proc/}; fi
done
sleep 1; echo survived
END
exec sh /tmp/script`
	for name, shared := range map[string]bool{"own-processes": false, "shared-processes": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := harness.Shell("a", script), harness.Shell("b", "echo b has run")
			a.Command, b.Command = append(a.Command, "worker"), append(b.Command, "worker")
			pod := harness.NewSequentialPod(cluster.NewNamespace(t, "baseline"), name, a, b)
			pod.Spec.ShareProcessNamespace = new(shared)
			cluster.Make(t, pod)
			cluster.AwaitPod(t, pod, corev1.PodSucceeded)
			got := cluster.Log(t, pod.Namespace, pod.Name, "a") + cluster.Log(t, pod.Namespace, pod.Name, "b")
			if diff := cmp.Diff("survived\nb has run\n", got); diff != "" {
				t.Errorf("the logs (-want +got):\n%s", diff)
			}
		})
	}
}

// firstAgent is the command line of a first step's agent.
const firstAgent = contract.AgentTitle + " 1\x00"

// killProcess kills the process of a Pod whose command line has this part.
func killProcess(t *testing.T, key client.ObjectKey, part string) {
	t.Helper()
	if err := syscall.Kill(findProcess(t, key, part), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func findProcess(t *testing.T, key client.ObjectKey, part string) (pid int) {
	t.Helper()
	var pod corev1.Pod
	if err := cluster.Get(t.Context(), key, &pod); err != nil {
		t.Fatal(err)
	}
	pid, err := node.FindProcess(pod.UID, part)
	if err != nil {
		t.Fatalf("%s: %v", pod.Name, err)
	}
	return pid
}

// kill kills a process, and returns when the last of its threads has ended. Until then the process keeps its ports, although it may be a
// zombie.
func kill(t *testing.T, pid int) {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the process to end", func(context.Context) error {
		ended, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
		if err == nil && ended == 0 {
			return errors.New("it has threads yet")
		}
		return err
	})
}
