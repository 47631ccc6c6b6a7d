//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// podsPerSecond is the rate of labelled Pods during a disturbance of the operator.
const podsPerSecond = 20

// load creates labelled Pods in dry runs: they pass admission and aren't stored.
type load struct {
	began   time.Time
	cancel  context.CancelFunc
	done    sync.WaitGroup
	mutex   sync.Mutex
	created int
	wrong   []failure
}

// failure is a Pod that wasn't created, or wasn't mutated.
type failure struct {
	began, ended time.Time
	err          error
}

var errUnmutated = errors.New("a Pod came through unmutated")

func createPods(t *testing.T, namespace string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{began: time.Now(), cancel: cancel}
	create := func() {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, GenerateName: "load-",
				Labels: map[string]string{contract.SequentialLabel: "true"},
			},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "step", Image: "busybox:1.28", Command: []string{"true"}}},
			},
		}
		began := time.Now()
		err := cluster.Create(ctx, pod, client.DryRunAll)
		if ctx.Err() != nil {
			return
		}
		if err == nil && (pod.Annotations[contract.OrderAnnotation] == "" || len(pod.Spec.InitContainers) == 0) {
			err = errUnmutated
		}
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.created++
		if err != nil {
			l.wrong = append(l.wrong, failure{began, time.Now(), err})
		}
	}
	l.done.Go(func() {
		ticker := time.NewTicker(time.Second / podsPerSecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				l.done.Go(create)
			}
		}
	})
	l.more(t)
	return l
}

// more waits until another second's Pods were created.
func (l *load) more(t *testing.T) {
	t.Helper()
	count := func() int {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		return l.created
	}
	before := count()
	wait.For(t, "more Pods", func(context.Context) error {
		if now := count(); now < before+podsPerSecond {
			return fmt.Errorf("%d Pods were created", now-before)
		}
		return nil
	})
}

// stop ends the load. The test fails for every Pod that wasn't created.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.stopBut(t, func(failure) bool { return false })
}

// stopBut ends the load. The test fails for every Pod that wasn't created, except for excused failures. An unmutated Pod is never excused.
func (l *load) stopBut(t *testing.T, excused func(failure) bool) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	wrong := slices.DeleteFunc(slices.Clone(l.wrong), func(f failure) bool { return !errors.Is(f.err, errUnmutated) && excused(f) })
	t.Logf("from %s on, %d Pods were created; of %d failures, %d are excused", l.began.Format(clock), l.created, len(l.wrong), len(l.wrong)-len(wrong))
	for i, f := range wrong {
		if i == 10 {
			t.Errorf("and %d more", len(wrong)-i)
			break
		}
		t.Errorf("%s to %s: %v", f.began.Format(clock), f.ended.Format(clock), f.err)
	}
}

const clock = "15:04:05.000"
