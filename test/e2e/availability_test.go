//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestNoPodIsRefusedOrUnmutated proves that no labelled Pod is refused or stays unmutated, regardless of what happens to the operator, as
// long as one replica is alive. Pods are created all the time. The operator has its default --shutdown-delay, not the short one of the test
// cluster.
func TestNoPodIsRefusedOrUnmutated(t *testing.T) {
	putBack := changeOperator(t, func(operator *corev1.Container) { operator.Args = withoutFlag(operator.Args, shutdownDelay) })
	namespace := cluster.NewNamespace(t, "baseline")
	t.Run("the leader is drained", func(t *testing.T) {
		load := createPods(t, namespace)
		before, other := leaderAndOther(t)
		released := watchReleased(t)
		if err := evict(t, before); err != nil {
			t.Fatal(err)
		}
		if err := evict(t, other); !apierrors.IsTooManyRequests(err) {
			t.Errorf("while one replica is on its way out, the other one is evicted, too: %v", err)
		}
		released() // otherwise the other one waits until the Lease expires
		wait.For(t, "another leader", func(context.Context) error {
			if now := leader(t); now == before || now == "" {
				return fmt.Errorf("the leader is %q", now)
			}
			return nil
		})
		wait.For(t, "the operator to be available", rolledOut)
		load.stop(t)
	})
	t.Run("each replica is killed", func(t *testing.T) {
		load := createPods(t, namespace)
		leader, other := leaderAndOther(t)
		killReplica(t, other)
		load.more(t)
		killReplica(t, leader)
		load.more(t)
		load.stop(t)
	})
	t.Run("the certificate is lost", func(t *testing.T) {
		load := createPods(t, namespace)
		secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: certificateSecret.Namespace, Name: certificateSecret.Name}}
		if err := cluster.Delete(t.Context(), &secret); err != nil {
			t.Fatal(err)
		}
		awaitServed(t)
		load.stop(t)
	})
	t.Run("rolling update", func(t *testing.T) {
		load := createPods(t, namespace)
		putBack()
		load.stop(t)
	})
}

const shutdownDelay = "--shutdown-delay"

// leaderAndOther returns the names of the operator's two Pods.
func leaderAndOther(t *testing.T) (first, other string) {
	t.Helper()
	wait.For(t, "a leader and another replica", func(ctx context.Context) error {
		first = leader(t)
		var pods corev1.PodList
		if err := cluster.List(ctx, &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
			return err
		}
		names := map[string]bool{}
		for _, pod := range pods.Items {
			names[pod.Name] = true
			if pod.Name != first {
				other = pod.Name
			}
		}
		if len(names) != 2 || !names[first] {
			return fmt.Errorf("the Pods are %v, and the leader is %q", names, first)
		}
		return nil
	})
	return first, other
}

// evict evicts a Pod, as draining a node does.
func evict(t *testing.T, name string) error {
	t.Helper()
	return cluster.Clientset.CoreV1().Pods(harness.OperatorNamespace).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: harness.OperatorNamespace}})
}

// watchReleased returns a function that waits until the leader has released its Lease.
func watchReleased(t *testing.T) func() {
	t.Helper()
	leases, err := cluster.Watch(t.Context(), &coordinationv1.LeaseList{}, client.InNamespace(harness.OperatorNamespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leases.Stop)
	return func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := watchtools.UntilWithoutRetry(ctx, leases, func(event watch.Event) (bool, error) {
			lease, ok := event.Object.(*coordinationv1.Lease)
			return ok && ptr.Deref(lease.Spec.HolderIdentity, "") == "", nil
		}); err != nil {
			t.Errorf("the leader has gone without giving its Lease back: %v", err)
		}
	}
}

// killReplica kills a replica's process. It can finish nothing: neither the calls that it was answering, nor those that it gets until its
// address has left its Service.
func killReplica(t *testing.T, name string) {
	t.Helper()
	wasLeader := leaderIdentity(t)
	if !strings.HasPrefix(wasLeader, name+"_") {
		wasLeader = ""
	}
	left := watchLeaving(t, name)
	killed := time.Now()
	killProcess(t, client.ObjectKey{Namespace: harness.OperatorNamespace, Name: name}, "--agent-image=")
	t.Logf("the address left the Service after %s", left().Sub(killed).Round(time.Millisecond))
	wait.For(t, "the operator to be available", rolledOut)
	wait.For(t, "another leader", func(context.Context) error { // the other replica, or the restarted process
		if now := leaderIdentity(t); now == wasLeader || now == "" {
			return fmt.Errorf("the leader is %q", now)
		}
		return nil
	})
}

// watchLeaving returns a function that waits until the webhook's Services no longer have the address of a Pod, and returns when that was.
func watchLeaving(t *testing.T, pod string) (left func() time.Time) {
	t.Helper()
	endpoints, err := cluster.Watch(t.Context(), &discoveryv1.EndpointSliceList{}, client.InNamespace(harness.OperatorNamespace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(endpoints.Stop)
	return func() time.Time {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := watchtools.UntilWithoutRetry(ctx, endpoints, func(event watch.Event) (bool, error) {
			slice, ok := event.Object.(*discoveryv1.EndpointSlice)
			return ok && strings.HasPrefix(slice.Labels[discoveryv1.LabelServiceName], "taskflow-webhook-") && slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
				return e.TargetRef.Name == pod && !ptr.Deref(e.Conditions.Ready, true)
			}), nil
		}); err != nil {
			t.Fatalf("the address of %s is still in its Service: %v", pod, err)
		}
		return time.Now()
	}
}

// TestAPIServerIsRestarted proves that no labelled Pod stays unmutated while the API server starts, when it may not know the webhook yet.
// As soon as it is ready, it refuses none. The operator continues by itself.
func TestAPIServerIsRestarted(t *testing.T) {
	wait.For(t, "the operator to be available", rolledOut)
	namespace := cluster.NewNamespace(t, "baseline")
	load := createPods(t, namespace)
	killed := time.Now()
	ready := watchReady(t)
	restart(t, "kube-apiserver")
	since := <-ready
	t.Logf("the API server was ready after %s", since.Sub(killed).Round(time.Millisecond))
	load.more(t)
	wait.For(t, "the operator to be available", rolledOut)
	load.stopBut(t, func(f failure) bool { return f.ended.After(killed) && f.began.Before(since) })
	task := harness.NewTask(namespace, "afterwards", harness.Shell("only", "true"))
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
}

// watchReady returns a channel that gets the time at which the API server is ready again after an interruption.
func watchReady(t *testing.T) <-chan time.Time {
	t.Helper()
	again := make(chan time.Time, 1)
	go func() {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for wasReady := true; t.Context().Err() == nil; <-ticker.C {
			err := cluster.Clientset.RESTClient().Get().AbsPath("/readyz").MaxRetries(0).Timeout(time.Second).Do(t.Context()).Error()
			if err == nil && !wasReady {
				again <- time.Now()
				return
			}
			wasReady = wasReady && err == nil
		}
	}()
	return again
}

// leader returns the name of the Pod that runs the controllers.
func leader(t *testing.T) string {
	t.Helper()
	name, _, _ := strings.Cut(leaderIdentity(t), "_")
	return name
}

// leaderIdentity distinguishes the leader from an earlier process in the same Pod.
func leaderIdentity(t *testing.T) string {
	t.Helper()
	var lease coordinationv1.Lease
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-operator"}, &lease); err != nil {
		t.Fatal(err)
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// losePods deletes all Pods of the operator at once.
func losePods(t *testing.T) {
	t.Helper()
	if err := cluster.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(harness.OperatorNamespace), client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
}
