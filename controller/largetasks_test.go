package controller

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// large makes a Task of 1.2 MB: 400,000 tolerations in its template.
func large(task *v1alpha1.Task) {
	task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Tolerations: make([]corev1.Toleration, 400_000)}}
}

// TestLargeTasksAreNotCached proves that thirteen suspended Tasks of 1.2 MB, and their large metadata, leave next to nothing in the cache.
func TestLargeTasksAreNotCached(t *testing.T) {
	const count, most = 13, 13 * 16 << 10
	memory := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	before := memory()
	var cached []any
	for range count {
		task := exampleTask(func(task *v1alpha1.Task) {
			large(task)
			task.Spec.Suspend = true
			task.Annotations = map[string]string{"note": strings.Repeat("x", 200_000)}
			task.Labels = map[string]string{"a": strings.Repeat("x", 200_000)}
		})
		object, err := stripTask(task)
		if err != nil {
			t.Fatal(err)
		}
		cached = append(cached, object)
	}
	kept := memory() - before
	t.Logf("%d Tasks keep %d bytes", count, kept)
	if kept > most {
		t.Errorf("%d Tasks keep %d bytes in the cache, want at most %d", count, kept, most)
	}
	runtime.KeepAlive(cached)
}

// TestLargeTasksRun proves that a Task whose spec the cache drops runs like any other.
func TestLargeTasksRun(t *testing.T) {
	large := func(task *v1alpha1.Task) {
		task.Spec.Template = &v1alpha1.PodTemplate{Spec: corev1.PodSpec{Tolerations: make([]corev1.Toleration, 2000)}}
	}
	cases := map[string]struct {
		task  func(*v1alpha1.Task)
		pod   edit // nil: there is none
		want  string
		reads int // of the whole Task
	}{
		"it is created":                  {func(*v1alpha1.Task) {}, nil, "Pending Waiting Waiting Waiting", 1},
		"suspended":                      {func(task *v1alpha1.Task) { task.Spec.Suspend = true }, nil, "Suspended ", 0},
		"cancelled":                      {cancel, nil, "Cancelled Skipped Skipped Skipped", 1},
		"its Pod runs":                   {func(*v1alpha1.Task) {}, containers(running("a"), running("b"), running("c")), "Running Running Waiting Waiting", 1},
		"its Pod runs, suspended":        {func(task *v1alpha1.Task) { task.Spec.Suspend = true }, containers(running("a"), running("b"), running("c")), "Running Running Waiting Waiting", 1},
		"its Pod runs, and was known":    {func(task *v1alpha1.Task) { hasPod(task); task.Status.Steps = observe(sequential()).steps }, containers(running("a"), running("b"), running("c")), "Running Running Waiting Waiting", 0},
		"its Pod was known, and is gone": {func(task *v1alpha1.Task) { hasPod(task); task.Status.Steps = observe(sequential()).steps }, nil, "Failed Skipped Skipped Skipped", 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var pods []*corev1.Pod
			if c.pod != nil {
				pods = append(pods, sequential(owned, onNode, c.pod))
			}
			w := newWorld(t, exampleTask(func(task *v1alpha1.Task) { large(task); c.task(task) }), pods...)
			reads := 0
			w.reconciler.Live = interceptor.NewClient(w.live, interceptor.Funcs{
				Get: func(ctx context.Context, live client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
					if _, is := object.(*v1alpha1.Task); is {
						reads++
					}
					return live.Get(ctx, key, object, options...)
				},
			})
			w.reconciler.Client = interceptor.NewClient(w.reconciler.Client.(client.WithWatch), interceptor.Funcs{
				Get: func(ctx context.Context, cached client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
					err := cached.Get(ctx, key, object, options...)
					if task, is := object.(*v1alpha1.Task); is && err == nil {
						_, err = stripTask(task)
					}
					return err
				},
			})
			if _, err := w.reconcile(); err != nil {
				t.Fatal(err)
			}
			task := w.task()
			if diff := cmp.Diff(c.want, string(task.Status.Phase)+" "+strings.Trim(states(task.Status.Steps), "[]")); diff != "" {
				t.Errorf("the status (-want +got):\n%s", diff)
			}
			if reads != c.reads {
				t.Errorf("the whole Task was read %d times, want %d", reads, c.reads)
			}
			if pod := w.pod("example"); name == "it is created" && (pod == nil || len(pod.Spec.Tolerations) != 2000 || pod.Annotations[contract.StepsAnnotation] != "a,b,c") {
				t.Errorf("the Pod is %v", pod)
			}
		})
	}
}

// BenchmarkIsLarger measures the cost of the bound for each change of a Task.
func BenchmarkIsLarger(b *testing.B) {
	task := exampleTask(nil)
	for b.Loop() {
		isLarger(&task.Spec, maxCachedSpec)
	}
}
