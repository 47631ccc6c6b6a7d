//go:build e2e

package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/test/harness"
)

// A step that ends processes by their words ends no agent: not its own, and none of a later step whose command has the same words.
func TestPkillFindsNoAgent(t *testing.T) {
	t.Parallel()
	// What "pkill -f worker" and "pkill agent" do, which the image lacks. The shell that looks for the words has them in a file, and not in
	// its own command line.
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
