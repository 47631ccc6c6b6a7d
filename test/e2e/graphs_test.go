//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/graph"
)

// markingSpec returns a spec whose steps are the graph. They leave marks in the file "marks" of the directory when they begin and when they end. Those
// without predecessors wait for the file "go", because the kubelet starts one container after another.
func markingSpec(t *testing.T, g graph.Graph) (spec v1alpha1.TaskSpec, dir string) {
	t.Helper()
	const script = held + `
echo "begin $0 $EPOCHREALTIME" >>/journal/marks; sleep $1; echo "end $0 $EPOCHREALTIME" >>/journal/marks`
	dir, spec.Template = sharedDir(t)
	for i, node := range g {
		s := step(node.Name, script, v1alpha1.StepOptions{DependsOn: g.DependsOn(i)})
		s.Command = append(s.Command, node.Name, fmt.Sprint(node.Length.Seconds()))
		spec.Steps = append(spec.Steps, s)
	}
	return spec, dir
}

// runGraph runs the steps of a markingSpec, and returns their spans.
func runGraph(t *testing.T, run form, spec v1alpha1.TaskSpec, dir string) map[string]graph.Span {
	t.Helper()
	object := run(cluster.NewNamespace(t, "privileged"), spec)
	cluster.Make(t, object)
	awaitPodOf(t, object, "all containers to run", func(pod corev1.Pod) error {
		for _, status := range pod.Status.ContainerStatuses {
			if status.State.Running == nil {
				return fmt.Errorf("the container %s is %+v", status.Name, status.State)
			}
		}
		if len(pod.Status.ContainerStatuses) < len(spec.Steps) {
			return fmt.Errorf("the Pod is %s", pod.Status.Phase)
		}
		return os.WriteFile(filepath.Join(dir, "go"), nil, 0o600)
	})
	if !awaitEnd(t, object) {
		t.Errorf("the steps have not succeeded: %+v", object)
	}
	marks, err := os.ReadFile(filepath.Join(dir, "marks"))
	if err != nil {
		t.Fatal(err)
	}
	spans, err := graph.ParseMarks(string(marks))
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

// TestGraphs proves for 30 random graphs, by the steps' own clocks, that no step begins before its predecessors have ended, that independent steps
// run side by side, and that all take little longer than the longest path.
func TestGraphs(t *testing.T) {
	t.Parallel()
	kinds := []string{"Task", "Pod", "Job"}
	for seed := range uint64(30) {
		kind, delivery := kinds[seed%3], deliveries[seed%2]
		t.Run(fmt.Sprint(seed, " ", kind, " ", delivery), func(t *testing.T) {
			t.Parallel()
			g := graph.Random(seed)
			spec, dir := markingSpec(t, g)
			deliver(&spec, delivery)
			spans := runGraph(t, forms[kind], spec, dir)
			if wrong := g.Check(spans); len(wrong) > 0 {
				t.Errorf("the graph %v did not run as it should:\n%s", g, strings.Join(wrong, "\n"))
			}
			if g.Overlapping(spans) == 0 {
				t.Error("no steps ran side by side")
			}
		})
	}
}

// TestIgnoredEdgeIsSeen proves that the check of the graphs can fail: with an agent that ignores an edge, a step begins before a predecessor
// has ended.
func TestIgnoredEdgeIsSeen(t *testing.T) {
	defer useBrokenAgent(t)()
	g := graph.Graph{
		{Name: "short", Length: time.Second}, {Name: "long", Length: 3 * time.Second}, {Name: "join", After: []int{0, 1}, Length: time.Second},
	}
	for kind, run := range forms {
		spec, dir := markingSpec(t, g)
		for i := range spec.Steps {
			spec.Steps[i].Env = []corev1.EnvVar{{Name: "IGNORED_EDGE"}}
		}
		wrong := strings.Join(g.Check(runGraph(t, run, spec, dir)), "\n")
		if want := "before its predecessor long had ended"; !strings.Contains(wrong, want) || strings.Contains(wrong, "\n") {
			t.Errorf("%s: an edge was ignored, and the check found %q, want only %q", kind, wrong, want)
		}
	}
}
