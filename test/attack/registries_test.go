//go:build e2e

package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// The attacker runs a registry, and a tenant uses its images in Tasks and Pods whose steps have no command.

const (
	clusterRegistry = "198.18.0.1:5000" // the registry of test/cluster
	hostAddress     = "198.18.0.2"      // this machine, as the operator reaches it
)

// plainRegistry returns an address to which the operator may connect without TLS (test/e2e/operator.yaml). Each test has its own.
func plainRegistry(n int) string { return fmt.Sprintf("%s:%d", hostAddress, 5001+n) }

// serveHTTP serves a registry without TLS until the test ends, and returns its address.
func serveHTTP(t *testing.T, address string, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler}
	go func() { _ = server.Serve(listener) }() // until the test closes it
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// tarPit accepts connections, never answers, and counts the open ones.
type tarPit struct {
	address string
	open    atomic.Int64
}

func newTarPit(t *testing.T) *tarPit {
	t.Helper()
	listener, err := net.Listen("tcp", hostAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	pit := &tarPit{address: listener.Addr().String()}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			pit.open.Add(1)
			go func() {
				defer pit.open.Add(-1)
				defer connection.Close()
				_, _ = io.Copy(io.Discard, connection) // until the client closes it
			}()
		}
	}()
	return pit
}

// lookedUp returns a step without a command.
func lookedUp(name, image string) corev1.Container {
	return corev1.Container{Name: name, Image: image, ImagePullPolicy: corev1.PullAlways, Args: []string{"1"}}
}

// TestSilentRegistries has a tenant create 100 Tasks whose images are in registries that accept connections and never answer. Another
// tenant's Tasks take at most 1.5 times as long as without them, with a command and with one that is looked up.
func TestSilentRegistries(t *testing.T) {
	const attackers, rounds, bound = 100, 3, 1.5
	before := replicas(t)
	pit := newTarPit(t)
	attacker, victim := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	steps := map[string]corev1.Container{
		"with a command": harness.Shell("only", "true"),
		"looked up":      lookedUp("only", "devopscube/kubernetes-job-demo:latest"),
	}
	took := map[string][2][]time.Duration{}
	measure := func(beside int) {
		for kind, step := range steps {
			times := took[kind]
			times[beside] = append(times[beside], duration(t, harness.NewTask(victim, fmt.Sprintf("task-%d", len(times[0])+len(times[1])), step)))
			took[kind] = times
			if err := cluster.DeleteAllOf(t.Context(), &v1alpha1.Task{}, client.InNamespace(victim)); err != nil {
				t.Fatal(err)
			}
			awaitNone(t, victim)
		}
	}
	measure(0) // the first one pulls the image
	took = map[string][2][]time.Duration{}
	for round := range rounds {
		measure(0)
		for i := range attackers {
			cluster.Make(t, harness.NewTask(attacker, fmt.Sprintf("silent-%d-%d", round, i), lookedUp("only", fmt.Sprintf("%s/app/%d:%d", pit.address, i, round))))
		}
		wait.For(t, "the registry to be asked", func(context.Context) error {
			if pit.open.Load() == 0 {
				return errors.New("it isn't")
			}
			return nil
		})
		measure(1)
		if err := cluster.DeleteAllOf(t.Context(), &v1alpha1.Task{}, client.InNamespace(attacker)); err != nil {
			t.Fatal(err)
		}
		awaitNone(t, attacker)
		wait.For(t, "the look-ups to end", func(context.Context) error {
			if open := pit.open.Load(); open > 0 {
				return fmt.Errorf("%d are still open", open)
			}
			return nil
		})
	}
	for kind, times := range took {
		without, beside := median(times[0]), median(times[1])
		ratio := beside.Seconds() / without.Seconds()
		t.Logf("a Task %s: %s without the attack, %s beside it: %.2f times as long (%v, %v)", kind, without, beside, ratio, times[0], times[1])
		if ratio > bound {
			t.Errorf("a Task %s took %.2f times as long beside the attack, more than %.1f", kind, ratio, bound)
		}
	}
	wantUnharmed(t, before)
}

// duration creates a Task and returns the time until it succeeded.
func duration(t *testing.T, task *v1alpha1.Task) time.Duration {
	t.Helper()
	cluster.Make(t, task)
	return waited(t, 5*time.Minute, "end of the Task", func(ctx context.Context) (bool, error) {
		err := cluster.Get(ctx, client.ObjectKeyFromObject(task), task)
		return task.Status.Phase == v1alpha1.TaskSucceeded, err
	}).Round(time.Millisecond)
}

func awaitNone(t *testing.T, namespace string) {
	t.Helper()
	wait.For(t, "the Tasks and Pods to be gone", func(ctx context.Context) error {
		var tasks v1alpha1.TaskList
		var pods corev1.PodList
		if err := errors.Join(cluster.List(ctx, &tasks, client.InNamespace(namespace)), cluster.List(ctx, &pods, client.InNamespace(namespace))); err != nil {
			return err
		}
		if len(tasks.Items)+len(pods.Items) > 0 {
			return fmt.Errorf("there are %d Tasks and %d Pods", len(tasks.Items), len(pods.Items))
		}
		return nil
	})
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

// hostileRegistries are handlers with harmful answers. Each ends when the client closes the connection.
var hostileRegistries = map[string]http.HandlerFunc{
	"header bomb": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Repeat("a", 9<<20)+`"`)
		w.WriteHeader(http.StatusNotFound)
	},
	"header bomb at the door": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Repeat("a", 9<<20)+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	},
	"endless manifest": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		_, _ = io.WriteString(w, `{"schemaVersion":2,"a":"`)
		pour(r.Context(), w, strings.Repeat("a", 64<<10), 0)
	},
	"endless refusal": func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		pour(r.Context(), w, strings.Repeat("secret of the registry ", 3000), 0)
	},
	"slow drip": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		pour(r.Context(), w, " ", 200*time.Millisecond)
	},
}

// pour writes the same bytes forever.
func pour(ctx context.Context, w http.ResponseWriter, what string, each time.Duration) {
	for ctx.Err() == nil {
		if _, err := io.WriteString(w, what); err != nil {
			return
		}
		if each > 0 {
			w.(http.Flusher).Flush()
			select {
			case <-time.After(each):
			case <-ctx.Done():
			}
		}
	}
}

// TestHostileRegistries has a tenant create Tasks and Pods with 20 images each of registries that send 9 MB of header, an endless manifest
// or error, or one byte now and then. The operator's memory stays below half of its limit, and a tenant's Pod is admitted soon. Each Task
// reports in a short sentence that its image can't be looked up, without text of the registry.
func TestHostileRegistries(t *testing.T) {
	const images = 20
	for i, kind := range []string{"header bomb", "header bomb at the door", "endless manifest", "endless refusal", "slow drip"} {
		t.Run(kind, func(t *testing.T) {
			before := replicas(t)
			host := serveHTTP(t, plainRegistry(i), hostileRegistries[kind])
			namespace := cluster.NewNamespace(t, "baseline")
			var admissions sync.WaitGroup
			for n := range images {
				image := fmt.Sprintf("%s/app/%d:1", host, n)
				cluster.Make(t, harness.NewTask(namespace, fmt.Sprintf("task-%d", n), lookedUp("only", image)))
				admissions.Go(func() {
					if err := cluster.Create(t.Context(), harness.NewSequentialPod(namespace, fmt.Sprintf("pod-%d", n), lookedUp("only", image))); err == nil {
						t.Errorf("a Pod with the image %s was admitted", image)
					} else if len(err.Error()) > 1024 || strings.Contains(err.Error(), "aaaa") || strings.Contains(err.Error(), "secret of") {
						t.Errorf("the refusal has %d bytes: %.400s", len(err.Error()), err)
					}
				})
			}
			admitPods(t, 20, 5*time.Second)
			admissions.Wait()
			for n := range images {
				message := unresolved(t, harness.NewTask(namespace, fmt.Sprintf("task-%d", n)))
				if len(message) > 1024 || strings.Contains(message, "aaaa") || strings.Contains(message, "secret of") {
					t.Errorf("the message has %d bytes: %.400s", len(message), message)
				}
			}
			wantUnharmed(t, before)
		})
	}
}

// unresolved waits until a Task reports why it has no Pod, and returns the message.
func unresolved(t *testing.T, task *v1alpha1.Task) string {
	t.Helper()
	status := cluster.AwaitTask(t, task, "the Task to say why it has no Pod", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonEntrypointUnresolved && condition.Message != ""
	})
	return meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing).Message
}

// TestHangingImage has a tenant name an image that its registry never sends, although it sends all others. Pods of another tenant with
// images of the same registry are admitted.
func TestHangingImage(t *testing.T) {
	behind := imageRegistry(t, "others/app:1")
	host := serveHTTP(t, plainRegistry(5), func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/hanging/") {
			<-r.Context().Done()
			return
		}
		behind.ServeHTTP(w, r)
	})
	attacker, victim := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	create := func(namespace string, n int, image string) error {
		pod := harness.NewSequentialPod(namespace, fmt.Sprintf("pod-%d", n), lookedUp("only", host+image))
		return cluster.Create(t.Context(), pod, client.DryRunAll)
	}
	if err := create(victim, 0, "/others/app:1"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var attack sync.WaitGroup
	for n := range 6 {
		attack.Go(func() {
			for {
				if err := create(attacker, n, fmt.Sprintf("/hanging/app-%d:1", n)); err == nil {
					t.Error("a Pod with an image that is never sent was admitted")
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for n := range 14 {
		if err := create(victim, n, "/others/app:1"); err != nil {
			t.Errorf("another tenant's Pod: %v", err)
		}
		<-ticker.C
	}
	close(stop)
	attack.Wait()
}
