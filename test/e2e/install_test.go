//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// These tests change the installation itself, so none of them is parallel.

// TestInstallAndRemove proves for each variant that the documented command installs it, that the sample Task runs and survives the loss of
// the operator's Pods, and that removal leaves no trace, even after an installation for some namespaces that has run a Task. Tasks stay by
// default. cert-manager's real controllers renew the certificate without a failed call. After a change of the variant, the former owner of
// the certificate releases it.
func TestInstallAndRemove(t *testing.T) {
	needCertManager(t)
	wait.For(t, "the operator to be available", rolledOut)
	flags, own, withCertManager := operatorFlags(t), manifests(t, "default"), manifests(t, "certmanager")
	t.Cleanup(func() { // restores the installation for the next tests
		if t.Failed() { // the variant may be any
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

// runSample runs the sample Task as the README does, and once more after all of the operator's Pods were deleted. It also waits until the API server
// calls the webhook for Tasks.
func runSample(t *testing.T) *v1alpha1.Task {
	t.Helper()
	sample := &v1alpha1.Task{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "example-taskflow"}}
	run := func() {
		kubectl(t, nil, "delete", "--ignore-not-found", "--cascade=foreground", "-f", samples+"/task.yaml")
		kubectl(t, nil, "apply", "-f", samples+"/task.yaml")
		cluster.AwaitTask(t, sample, "the sample Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	}
	run()
	kubectl(t, nil, "-n", harness.OperatorNamespace, "delete", "pods", "--all") // this waits until they are gone
	wait.For(t, "the operator to be back", rolledOut)
	run()
	wait.For(t, "the refusal of a broken Task", refusesBrokenTasks(sample.Namespace))
	return sample
}

// refusesBrokenTasks returns a function that returns an error unless the webhook refuses a Task whose steps can't work together.
func refusesBrokenTasks(namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		task := harness.NewTask(namespace, "broken", harness.Shell("first", "true"))
		task.Spec.Steps[0].DependsOn = []string{"second"}
		const want = `spec.steps[0].dependsOn[0]: there is no step "second" in the list`
		if err := cluster.Create(ctx, task, client.DryRunAll); err == nil || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("the error is %q, want one with %q", fmt.Sprint(err), want)
		}
		return nil
	}
}

// awaitOwnCertificate waits until both replicas serve the operator's own certificate, and fails if cert-manager writes the Secret again.
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
		t.Error("the authority was created again: another program writes the Secret, too")
	}
}

// manifests renders an overlay of config/ with the image, the flags and the configuration of the installed operator.
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
			added := slices.DeleteFunc(own[1:], func(arg string) bool { return slices.Contains(operator.Args, arg) }) // the first flag is the agent's image
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
	command := exec.CommandContext(context.WithoutCancel(t.Context()), "../../hack/undeploy.sh")
	command.Env = append(os.Environ(), "CRD="+crd)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("undeploy: %v\n%s", err, output)
	}
	assertNoAlarm(t, output)
}

// leftovers fails the test for each object of the manifests that still exists, except for one kind.
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

// onlyLeft returns an error unless the remaining objects of taskflow are those wanted: objects with its name in any namespace, and objects
// in its namespace that not every namespace has.
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
