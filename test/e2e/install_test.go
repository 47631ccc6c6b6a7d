//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// These tests change the installation itself, so none of them runs beside another.

// podsPerSecond is how many labelled Pods are created while something happens to the operator.
const podsPerSecond = 20

// TestNoPodIsRefusedOrUnmutated proves that while labelled Pods are created all the time, none is refused and none comes through without
// its agent, whatever happens to the operator as long as one replica is alive. The operator has its own --shutdown-delay, not the short
// one of the test cluster. PEERS row 22.
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
		released() // else the other one waits until the Lease has run out
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

// leaderAndOther are the names of the operator's two Pods.
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

// evict is what draining a node does with a Pod.
func evict(t *testing.T, name string) error {
	t.Helper()
	return cluster.Clientset.CoreV1().Pods(harness.OperatorNamespace).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: harness.OperatorNamespace}})
}

// watchReleased waits until the leader gives its Lease back.
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

// killReplica kills a replica's process, so that nothing of it ends well, neither the calls that it was answering nor those that are sent
// to it until its address has left its Service.
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
	wait.For(t, "another leader", func(context.Context) error { // the other replica, or the process that comes after this one
		if now := leaderIdentity(t); now == wasLeader || now == "" {
			return fmt.Errorf("the leader is %q", now)
		}
		return nil
	})
}

// watchLeaving waits until the webhook's Services have the address of a Pod no longer, and says when that was.
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

// TestAPIServerIsRestarted proves that no labelled Pod comes through unmutated while the API server comes back, when it may not know
// the webhook yet; that none is refused as soon as it says that it is ready; and that the operator goes on by itself.
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

// watchReady tells when the API server is ready again, after a time when it is not.
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

// TestInstallAndRemove proves that each variant installs with the documented command, runs the sample Task, survives the loss of its Pods, and
// goes without a trace, also where it is for some namespaces alone and has run a Task there; that Tasks stay unless told otherwise; that cert-manager's real
// controllers renew the certificate without one call that fails; and that whoever kept the certificate in the variant before lets go
// of it. PEERS row 22.
func TestInstallAndRemove(t *testing.T) {
	needCertManager(t)
	wait.For(t, "the operator to be available", rolledOut)
	flags, own, withCertManager := operatorFlags(t), manifests(t, "default"), manifests(t, "certmanager")
	t.Cleanup(func() { // as it was, for the tests that follow
		if t.Failed() { // it is of any variant
			undeploy(t, "keep")
		}
		deploy(t, flags, "default", "")
	})

	kept := runSample(t)
	checked := askForPods(t, cluster.NewNamespace(t, "baseline"))
	undeploy(t, "keep")
	checked()
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(kept), kept); err != nil {
		t.Errorf("the Task is gone: %v", err)
	}
	leftovers(t, own, "CustomResourceDefinition")
	wait.For(t, "nothing to be left", onlyLeft())

	if output, err := tryToDeploy(t, flags, "certmanager", ""); err == nil || !bytes.Contains(output, []byte("cert-manager isn't in this cluster")) {
		t.Errorf("deploying without cert-manager: %v\n%s", err, output)
	}
	startCertManager(t)
	deploy(t, flags, "certmanager", "")
	runSample(t)
	one, two := cluster.NewNamespace(t, "baseline"), cluster.NewNamespace(t, "baseline")
	t.Run("renewals", func(t *testing.T) {
		load := createPods(t, one)
		for _, name := range []string{"taskflow-webhook", "taskflow-webhook", "taskflow-ca", "taskflow-webhook"} {
			renew(t, name)
		}
		awaitServed(t)
		load.stop(t)
	})

	deploy(t, flags, "default", "")
	awaitOwnCertificate(t)
	task := harness.NewTask(one, "own", harness.Shell("only", "true"))
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	deploy(t, flags, "certmanager", one+","+two)
	task = harness.NewTask(two, "watched", harness.Shell("only", "true"))
	cluster.Make(t, task)
	cluster.AwaitTask(t, task, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	var role rbacv1.Role
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-operator-certificates"}, &role); !apierrors.IsNotFound(err) {
		t.Errorf("the operator may still write the certificate that cert-manager keeps: %v", err)
	}

	undeploy(t, "remove")
	leftovers(t, withCertManager, "")
	wait.For(t, "nothing to be left", onlyLeft())
}

// runSample runs the sample Task as the README does, and once more after somebody has deleted all of the operator's Pods.
func runSample(t *testing.T) *v1alpha1.Task {
	t.Helper()
	sample := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "example-taskflow"}}
	run := func() {
		kubectl(t, nil, "delete", "--ignore-not-found", "--cascade=foreground", "-f", samples+"/task.yaml")
		kubectl(t, nil, "apply", "-f", samples+"/task.yaml")
		cluster.AwaitTask(t, sample, "the sample Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	}
	run()
	kubectl(t, nil, "-n", harness.OperatorNamespace, "delete", "pods", "--all") // and waits until they are gone
	wait.For(t, "the operator to be back", rolledOut)
	run()
	return sample
}

// awaitOwnCertificate waits until both replicas serve what the operator has made, and fails where cert-manager writes the Secret again.
func awaitOwnCertificate(t *testing.T) {
	t.Helper()
	var secret corev1.Secret
	wait.For(t, "an authority of the operator's own", func(ctx context.Context) error {
		if err := cluster.Get(ctx, certificateSecret, &secret); err != nil {
			return err
		}
		if len(secret.Data["ca.key"]) == 0 {
			return errors.New("there is no ca.key")
		}
		return nil
	})
	awaitServed(t)
	made := secret.Data["ca.key"]
	if err := cluster.Get(t.Context(), certificateSecret, &secret); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, secret.Data["ca.key"]) {
		t.Error("the authority was made once more: somebody else writes the Secret, too")
	}
}

// manifests renders an overlay of config/ with the image, the flags and the configuration of the operator that is installed.
func manifests(t *testing.T, overlay string) []byte {
	t.Helper()
	operator := installedOperator(t)
	var config corev1.ConfigMap
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-config"}, &config); err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	for _, object := range decode(t, kubectl(t, nil, "kustomize", "../../config/"+overlay)) {
		switch object.GetKind() {
		case "ConfigMap":
			if err := unstructured.SetNestedStringMap(object.Object, config.Data, "data"); err != nil {
				t.Fatal(err)
			}
		case "Deployment":
			containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
			if err != nil {
				t.Fatal(err)
			}
			container, _ := containers[0].(map[string]any)
			own, _, err := unstructured.NestedStringSlice(container, "args")
			if err != nil {
				t.Fatal(err)
			}
			added := slices.DeleteFunc(own[1:], func(arg string) bool { return slices.Contains(operator.Args, arg) }) // the first one is the agent's image
			container["image"], container["args"] = operator.Image, anySlice(slices.Concat(operator.Args, added))
			if err := unstructured.SetNestedSlice(object.Object, containers, "spec", "template", "spec", "containers"); err != nil {
				t.Fatal(err)
			}
		}
		line, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		content.WriteString("---\n")
		content.Write(line)
	}
	return content.Bytes()
}

func anySlice(values []string) []any {
	var all []any
	for _, value := range values {
		all = append(all, value)
	}
	return all
}

func decode(t *testing.T, content []byte) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
}

func kubectl(t *testing.T, input []byte, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), "kubectl", args...)
	command.Stdin = bytes.NewReader(input)
	var errs bytes.Buffer
	command.Stderr = &errs
	output, err := command.Output()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return output
}

func undeploy(t *testing.T, crd string) {
	t.Helper()
	output, err := exec.CommandContext(context.WithoutCancel(t.Context()), "../../hack/undeploy.sh", crd).CombinedOutput()
	if err != nil {
		t.Fatalf("undeploy: %v\n%s", err, output)
	}
	assertNoAlarm(t, output)
}

// leftovers fails the test for each object of the manifests that is still there, but for one kind.
func leftovers(t *testing.T, manifests []byte, but string) {
	t.Helper()
	for _, object := range decode(t, manifests) {
		err := cluster.Get(t.Context(), client.ObjectKeyFromObject(object), object)
		gone := apierrors.IsNotFound(err) || meta.IsNoMatchError(err)
		if object.GetKind() == but && gone {
			t.Errorf("%s %s is gone", object.GetKind(), object.GetName())
		}
		if object.GetKind() != but && !gone {
			t.Errorf("%s %s is still there (%v)", object.GetKind(), object.GetName(), err)
		}
	}
}

// onlyLeft says what the cluster has of taskflow, of any kind: what has its name, wherever it is, and what is in its namespace and not every
// namespace's. It is an error unless it is what is wanted.
func onlyLeft(want ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		groups, err := cluster.Clientset.Discovery().ServerPreferredResources()
		if err != nil {
			return err
		}
		var left []string
		for _, group := range groups {
			version, err := schema.ParseGroupVersion(group.GroupVersion)
			if err != nil {
				return err
			}
			for _, resource := range group.APIResources {
				if resource.Kind == "Event" || !slices.Contains(resource.Verbs, "list") {
					continue
				}
				list := &metav1.PartialObjectMetadataList{}
				list.SetGroupVersionKind(version.WithKind(resource.Kind + "List"))
				if err := cluster.List(ctx, list); err != nil {
					return fmt.Errorf("listing %s: %w", resource.Name, err)
				}
				for _, object := range list.Items {
					everyNamespaces := resource.Kind == "ServiceAccount" && object.Name == "default" || resource.Kind == "ConfigMap" && object.Name == "kube-root-ca.crt"
					if strings.HasPrefix(object.Name, "taskflow") || object.Namespace == harness.OperatorNamespace && !everyNamespaces {
						left = append(left, strings.TrimSpace(resource.Kind+" "+object.Name+" "+object.Namespace))
					}
				}
			}
		}
		if diff := cmp.Diff(want, left); diff != "" {
			return fmt.Errorf("what is left (-want +got):\n%s", diff)
		}
		return nil
	}
}

// needCertManager skips a test where hack/test.sh hasn't built it.
func needCertManager(t *testing.T) {
	t.Helper()
	if os.Getenv("CERT_MANAGER") == "" {
		t.Skip(`CERT_MANAGER is not set: eval "$(go run -C test/cluster . cert-manager)"`)
	}
}

// startCertManager runs cert-manager's controllers and the cainjector until the test ends.
func startCertManager(t *testing.T) {
	t.Helper()
	crds := os.Getenv("CERT_MANAGER_CRDS")
	kubectl(t, nil, "apply", "--server-side", "-f", crds)
	t.Cleanup(func() { kubectl(t, nil, "delete", "-f", crds) })
	kubectl(t, nil, "wait", "--for=condition=Established", "--timeout=60s", "-f", crds)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	program := exec.CommandContext(ctx, os.Getenv("CERT_MANAGER"), os.Getenv("KUBECONFIG"))
	program.Cancel = func() error { return program.Process.Signal(os.Interrupt) }
	program.WaitDelay = 20 * time.Second
	var log bytes.Buffer
	program.Stdout, program.Stderr = &log, &log
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = program.Wait()
		if t.Failed() {
			t.Logf("cert-manager's log:\n%s", log.Bytes()[max(0, log.Len()-8000):])
		}
	})
}

var certificateKind = schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"}

// renew asks cert-manager for another certificate, as `cmctl renew` does, and waits until there is one.
func renew(t *testing.T, name string) {
	t.Helper()
	certificate := &unstructured.Unstructured{}
	certificate.SetGroupVersionKind(certificateKind)
	key := client.ObjectKey{Namespace: harness.OperatorNamespace, Name: name}
	if err := cluster.Get(t.Context(), key, certificate); err != nil {
		t.Fatal(err)
	}
	before, _, _ := unstructured.NestedInt64(certificate.Object, "status", "revision")
	conditions, _, _ := unstructured.NestedSlice(certificate.Object, "status", "conditions")
	conditions = append(conditions, map[string]any{
		"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test wants another one",
		"lastTransitionTime": metav1.Now().UTC().Format(time.RFC3339),
	})
	content, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Status().Patch(t.Context(), certificate, client.RawPatch(types.MergePatchType, content)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "a renewal of "+name, func(ctx context.Context) error {
		if err := cluster.Get(ctx, key, certificate); err != nil {
			return err
		}
		if now, _, _ := unstructured.NestedInt64(certificate.Object, "status", "revision"); now <= before {
			return fmt.Errorf("the revision is %d", now)
		}
		return nil
	})
}

// leader is the name of the Pod that runs the controllers.
func leader(t *testing.T) string {
	t.Helper()
	name, _, _ := strings.Cut(leaderIdentity(t), "_")
	return name
}

// leaderIdentity tells the leader from a process that ran in the same Pod before.
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

// load creates labelled Pods, in a dry run: they go through admission as all do, and then nowhere.
type load struct {
	began   time.Time
	cancel  context.CancelFunc
	done    sync.WaitGroup
	mutex   sync.Mutex
	created int
	wrong   []failure
}

// failure is a Pod that wasn't created, or not as it should be.
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

// more waits for another second's Pods.
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

// stop ends it. The test fails for every Pod that wasn't created.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.stopBut(t, func(failure) bool { return false })
}

// stopBut ends it. The test fails for every Pod that wasn't created, but where there is an excuse; for an unmutated one there is none.
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

// certificateSecret is where the webhook's certificate is, whoever keeps it.
var certificateSecret = client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-webhook-cert"}

// awaitServed waits until both replicas serve the certificate of the Secret.
func awaitServed(t *testing.T) {
	t.Helper()
	wait.For(t, "both replicas to serve the certificate", func(ctx context.Context) error {
		var secret corev1.Secret
		if err := cluster.Get(ctx, certificateSecret, &secret); err != nil {
			return err
		}
		return servedByAll(ctx, secret.Data["tls.crt"])
	})
}

// servedByAll says whether every replica serves this certificate.
func servedByAll(ctx context.Context, certificate []byte) error {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return errors.New("there is no certificate")
	}
	var pods corev1.PodList
	if err := cluster.List(ctx, &pods, client.InNamespace(harness.OperatorNamespace)); err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Status.PodIP == "" || pod.DeletionTimestamp != nil {
			continue
		}
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} // which one it is, is asked below
		connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, "9443"))
		if err != nil {
			return err
		}
		served := connection.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw
		_ = connection.Close()
		if !bytes.Equal(served, block.Bytes) {
			return fmt.Errorf("the Pod %s serves another certificate", pod.Name)
		}
	}
	return nil
}

// TestMetricsAreGuarded proves that nobody gets the metrics but over TLS, with a token, and with leave; and that who asks as the
// ServiceMonitor says gets them, the bound among them that the operator has found for its memory.
func TestMetricsAreGuarded(t *testing.T) {
	wait.For(t, "the operator to be available", rolledOut)
	namespace := cluster.NewNamespace(t, "baseline")
	token := func(account string) string {
		object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
		cluster.Make(t, object)
		request := &authenticationv1.TokenRequest{}
		if err := cluster.SubResource("token").Create(t.Context(), object, request); err != nil {
			t.Fatal(err)
		}
		return request.Status.Token
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-metrics-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "taskflow-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "prometheus"}},
	}
	cluster.Make(t, binding)
	t.Cleanup(func() { _ = cluster.Delete(context.WithoutCancel(t.Context()), binding) })

	scraper, address := scraperOf(t)
	scrape := func(token string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		response, err := scraper.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	reader := token("prometheus")
	for name, c := range map[string]struct {
		token string
		code  int
		body  string
	}{
		"no token":      {"", http.StatusUnauthorized, "send a bearer token"},
		"a wrong token": {"nonsense", http.StatusUnauthorized, "does not know this token"},
		"without leave": {token("somebody"), http.StatusForbidden, "taskflow-metrics-reader"},
		"with leave":    {reader, http.StatusOK, `taskflow_tasks{phase="Running"}`},
		"Go's own":      {reader, http.StatusOK, "go_gc_gomemlimit_bytes 2.14748364e+08"}, // two fifths of config/manager's limit
	} {
		code, body := scrape(c.token)
		if code != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s: the answer is %d, want %d with %q: %.300s", name, code, c.code, c.body, body)
		}
	}
}

// scraperOf finds what Prometheus finds by the ServiceMonitor: where the metrics are, and a client that trusts what serves them.
func scraperOf(t *testing.T) (scraper *http.Client, address string) {
	t.Helper()
	var monitor struct {
		Spec struct {
			Selector  metav1.LabelSelector
			Endpoints []struct {
				Port, Scheme string
				TLSConfig    struct {
					ServerName string
					CA         struct{ Secret corev1.SecretKeySelector }
				}
			}
		}
	}
	content, err := os.ReadFile("../../config/prometheus/service_monitor.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &monitor); err != nil {
		t.Fatal(err)
	}
	endpoint := monitor.Spec.Endpoints[0]
	var services corev1.ServiceList
	if err := cluster.List(t.Context(), &services, client.InNamespace(harness.OperatorNamespace), client.MatchingLabels(monitor.Spec.Selector.MatchLabels)); err != nil {
		t.Fatal(err)
	}
	for _, service := range services.Items {
		for _, port := range service.Spec.Ports {
			if port.Name == endpoint.Port {
				address = fmt.Sprintf("%s://%s/metrics", endpoint.Scheme, net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	if address == "" || len(services.Items) != 1 {
		t.Fatalf("the ServiceMonitor finds %d Services, want 1 with the port %q", len(services.Items), endpoint.Port)
	}
	var secret corev1.Secret
	ca := endpoint.TLSConfig.CA.Secret
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: ca.Name}, &secret); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data[ca.Key])
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, ServerName: endpoint.TLSConfig.ServerName, MinVersion: tls.VersionTLS12,
	}}}, address
}
