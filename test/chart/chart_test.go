// Package chart tests the Helm chart: it installs the same objects as config/, each value changes only what it should, and wrong values are rejected.
package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	root      = "../.."
	chart     = "charts/taskflow"
	namespace = "taskflow-system"
)

// images are values without a default in the chart. These are the names in config/.
var images = []string{"--set=images.operator=taskflow/operator", "--set=images.agent=taskflow/agent"}

var kustomize, helm = tool("kustomize"), tool("helm")

// TestMain opens all files that the tools read, because Go reuses a cached test result unless a file that the test itself opened has changed.
func TestMain(m *testing.M) {
	for _, dir := range []string{"charts", "config", "hack"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			return file.Close()
		})
		if err != nil {
			fmt.Fprintf(os.Stderr, "opening the source of the chart: %v\n", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// tool returns a function that runs one of hack/'s tools in the root of the repository. The first call builds the tool.
func tool(name string) func(args ...string) ([]byte, error) {
	build := sync.OnceValues(func() (string, error) {
		output, err := run("go", "tool", "-modfile=hack/"+name+".mod", "-n", name)
		return strings.TrimSpace(string(output)), err
	})
	return func(args ...string) ([]byte, error) {
		program, err := build()
		if err != nil {
			return nil, err
		}
		return run(program, args...)
	}
}

// run returns the standard output of a command. Its error contains the standard error.
func run(program string, args ...string) ([]byte, error) {
	command := exec.Command(program, args...)
	command.Dir = root
	var errs bytes.Buffer
	command.Stderr = &errs
	output, err := command.Output()
	if err != nil {
		return output, fmt.Errorf("%w\n%s", err, &errs)
	}
	return output, nil
}

// objects are the objects of a manifest by kind, namespace and name.
type objects map[string]map[string]any

func parse(t *testing.T, manifest []byte) objects {
	t.Helper()
	all := objects{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 { // the document has only comments
			continue
		}
		key := fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
		if all[key] != nil {
			t.Errorf("the manifest has two objects %s", key)
		}
		all[key] = object.Object
	}
}

func overlay(t *testing.T, names ...string) objects {
	t.Helper()
	all := objects{}
	for _, name := range names {
		manifest, err := kustomize("build", "config/"+name)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, parse(t, manifest))
	}
	return all
}

func template(t *testing.T, namespace string, values ...string) objects {
	t.Helper()
	manifest, err := helm(slices.Concat([]string{"template", "taskflow", chart, "--namespace", namespace}, images, values)...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, manifest)
}

func compare(t *testing.T, want, got objects) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("the objects (-want +got):\n%s", diff)
	}
	for key := range want {
		if diff := cmp.Diff(want[key], got[key]); diff != "" && got[key] != nil {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

// TestSameAsKustomize proves that the chart installs the same objects as config/ in each variant, with two exceptions: Helm itself creates the
// namespace, and the CRD has an annotation that keeps it when the release is uninstalled.
func TestSameAsKustomize(t *testing.T) {
	cases := map[string]struct {
		overlays, values []string
	}{
		"own certificates": {[]string{"default"}, nil},
		"cert-manager":     {[]string{"certmanager"}, []string{"--set=certificates=certManager"}},
		"with Prometheus":  {[]string{"default", "prometheus"}, []string{"--set=serviceMonitor.enabled=true"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := overlay(t, c.overlays...)
			delete(want, "Namespace /taskflow-system")
			crd := want["CustomResourceDefinition /tasks.api.practice.com"]
			if err := unstructured.SetNestedField(crd, "keep", "metadata", "annotations", "helm.sh/resource-policy"); err != nil {
				t.Fatal(err)
			}
			compare(t, want, template(t, namespace, c.values...))
		})
	}
}

// TestAnotherNamespace proves that taskflow can be installed into any namespace: no object refers to the usual one.
func TestAnotherNamespace(t *testing.T) {
	for _, certificates := range []string{"own", "certManager"} {
		values := slices.Concat(images, []string{"--set=serviceMonitor.enabled=true", "--set=certificates=" + certificates})
		usual, err := helm(slices.Concat([]string{"template", "taskflow", chart, "--namespace", namespace}, values)...)
		if err != nil {
			t.Fatal(err)
		}
		other, err := helm(slices.Concat([]string{"template", "taskflow", chart, "--namespace", "elsewhere"}, values)...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.ReplaceAll(string(usual), namespace, "elsewhere"), string(other)); diff != "" {
			t.Errorf("certificates: %s (-in taskflow-system +in elsewhere):\n%s", certificates, diff)
		}
	}
}

const (
	crd     = "CustomResourceDefinition /tasks.api.practice.com"
	webhook = "MutatingWebhookConfiguration /taskflow"
	tasks   = "ValidatingWebhookConfiguration /taskflow"
)

// deployments are the Deployments of the two replicas.
var deployments = []string{"Deployment taskflow-system/taskflow-operator-a", "Deployment taskflow-system/taskflow-operator-b"}

// TestValues proves what each value changes, and that everything else stays the same.
func TestValues(t *testing.T) {
	replicas := func(change func(any) any, path ...any) func(objects) {
		return func(all objects) {
			for _, name := range deployments {
				set(t, all[name], change, path...)
			}
		}
	}
	arg := func(args ...any) func(objects) { return replicas(added(args...), container("args")...) }
	podSpec := func(field string, value any) func(objects) {
		return replicas(replaced(value), "spec", "template", "spec", field)
	}
	account := map[string]any{"kind": "ServiceAccount", "name": "taskflow-operator", "namespace": namespace}
	bindingIn := func(namespace string) map[string]any {
		return map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
			"metadata": map[string]any{"name": "taskflow-operator", "namespace": namespace},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "taskflow-operator"},
			"subjects": []any{account},
		}
	}
	dashboard, err := os.ReadFile(root + "/charts/taskflow/files/taskflow.json")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		values []string
		edit   func(objects)
	}{
		"images.operator": {
			[]string{"--set=images.operator=ghcr.io/me/operator@sha256:0"},
			replicas(replaced("ghcr.io/me/operator@sha256:0"), container("image")...),
		},
		"images.agent": {
			[]string{"--set=images.agent=ghcr.io/me/agent:v1"},
			replicas(replaced([]any{"--agent-image=ghcr.io/me/agent:v1", "--config=/etc/taskflow/config.yaml"}), container("args")...),
		},
		"images.pullSecrets": {[]string{"--set-json=images.pullSecrets=[{\"name\":\"mine\"}]"}, podSpec("imagePullSecrets", []any{map[string]any{"name": "mine"}})},
		"crds.enabled":       {[]string{"--set=crds.enabled=false"}, func(all objects) { delete(all, crd) }},
		"crds.keep": {
			[]string{"--set=crds.keep=false"},
			func(all objects) {
				unstructured.RemoveNestedField(all[crd], "metadata", "annotations", "helm.sh/resource-policy")
			},
		},
		"resources": {
			[]string{"--set=resources.limits.memory=1Gi"},
			replicas(replaced("1Gi"), container("resources", "limits", "memory")...),
		},
		"agent": {
			[]string{"--set=agent.requests.memory=1Mi,agent.requests.cpu=1m,agent.limits.cpu=1"},
			arg("--agent-limits=cpu=1", "--agent-requests=cpu=1m,memory=1Mi"),
		},
		"agent.delivery": {[]string{"--set=agent.delivery=auto"}, arg("--agent-delivery=auto")},
		"log":            {[]string{"--set=log.level=debug,log.format=console"}, arg("--log-level=debug", "--log-format=console")},
		"args":           {[]string{"--set=args={--start-grace-period=1m,--agent-medium=Memory}"}, arg("--start-grace-period=1m", "--agent-medium=Memory")},
		"watchNamespaces": {
			[]string{"--set=watchNamespaces={a,b}"},
			func(all objects) {
				arg("--watch-namespace=a,b")(all)
				delete(all, "ClusterRoleBinding /taskflow-operator")
				all["RoleBinding a/taskflow-operator"], all["RoleBinding b/taskflow-operator"] = bindingIn("a"), bindingIn("b")
				for key, object := range overlay(t, "namespaced") {
					if key == "ValidatingAdmissionPolicy /taskflow-unwatched" {
						set(t, object, func(any) any {
							return []any{map[string]any{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": []any{"a", "b"}}}
						}, "spec", "matchConstraints", "namespaceSelector", "matchExpressions")
					}
					all[key] = object
				}
				for name, count := range map[string]int{webhook: 6, tasks: 2} {
					for i := range count {
						set(t, all[name], added(map[string]any{"key": "kubernetes.io/metadata.name", "operator": "In", "values": []any{"a", "b"}}),
							"webhooks", i, "namespaceSelector", "matchExpressions")
					}
				}
			},
		},
		"config": {
			[]string{"--set=config.images.tagTTL=1m"},
			func(all objects) {
				set(t, all["ConfigMap taskflow-system/taskflow-config"], replaced("images:\n  tagTTL: 1m\n"), "data", "config.yaml")
			},
		},
		"priorityClassName": {
			[]string{"--set=priorityClassName=mine"},
			func(all objects) {
				delete(all, "PriorityClass /taskflow-operator")
				delete(all, "ValidatingAdmissionPolicy /taskflow-priority")
				delete(all, "ValidatingAdmissionPolicyBinding /taskflow-priority")
				podSpec("priorityClassName", "mine")(all)
			},
		},
		"nodeSelector": {[]string{"--set=nodeSelector.pool=system"}, podSpec("nodeSelector", map[string]any{"pool": "system"})},
		"tolerations":  {[]string{"--set=tolerations[0].operator=Exists"}, podSpec("tolerations", []any{map[string]any{"operator": "Exists"}})},
		"affinity": {
			[]string{"--set-json=affinity={\"nodeAffinity\":{\"preferredDuringSchedulingIgnoredDuringExecution\":[]}}"},
			podSpec("affinity", map[string]any{"nodeAffinity": map[string]any{"preferredDuringSchedulingIgnoredDuringExecution": []any{}}}),
		},
		"networkPolicy.enabled": {
			[]string{"--set=networkPolicy.enabled=false"},
			func(all objects) { delete(all, "NetworkPolicy taskflow-system/taskflow-operator") },
		},
		"networkPolicy.From": {
			[]string{
				"--set-json=networkPolicy.webhookFrom=[{\"ipBlock\":{\"cidr\":\"10.0.0.1/32\"}}]",
				"--set-json=networkPolicy.metricsFrom=[{\"podSelector\":{}},{\"namespaceSelector\":{}}]",
			},
			func(all objects) {
				policy := all["NetworkPolicy taskflow-system/taskflow-operator"]
				set(t, policy, replaced([]any{map[string]any{"ipBlock": map[string]any{"cidr": "10.0.0.1/32"}}}), "spec", "ingress", 0, "from")
				set(t, policy, replaced([]any{map[string]any{"podSelector": map[string]any{}}, map[string]any{"namespaceSelector": map[string]any{}}}), "spec", "ingress", 1, "from")
			},
		},
		"dashboard": {
			[]string{"--set=dashboard.enabled=true,dashboard.labels.mine=yes"},
			func(all objects) {
				all["ConfigMap taskflow-system/taskflow-dashboard"] = map[string]any{
					"apiVersion": "v1", "kind": "ConfigMap",
					"metadata": map[string]any{
						"name": "taskflow-dashboard", "namespace": namespace,
						"labels": map[string]any{"grafana_dashboard": "1", "mine": "yes"},
					},
					"data": map[string]any{"taskflow.json": string(dashboard)},
				}
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			want := template(t, namespace)
			c.edit(want)
			compare(t, want, template(t, namespace, c.values...))
		})
	}
}

func container(fields ...any) []any {
	return slices.Concat([]any{"spec", "template", "spec", "containers", 0}, fields)
}

func replaced(value any) func(any) any { return func(any) any { return value } }

func added(values ...any) func(any) any {
	return func(list any) any { return slices.Concat(list.([]any), values) }
}

// set changes the field at a path of field names and list indexes.
func set(t *testing.T, object any, change func(any) any, path ...any) {
	t.Helper()
	for ; len(path) > 1; path = path[1:] {
		switch step := path[0].(type) {
		case string:
			object = object.(map[string]any)[step]
		case int:
			object = object.([]any)[step]
		}
	}
	last := path[0].(string)
	object.(map[string]any)[last] = change(object.(map[string]any)[last])
}

// TestRefused proves the error messages for wrong and missing values.
func TestRefused(t *testing.T) {
	usual := append([]string{"--namespace", namespace}, images...)
	cases := map[string]struct {
		args []string
		want string
	}{
		"no operator image":    {[]string{"--namespace", namespace, images[1]}, "images.operator is missing: set it to the operator's image, as `make images` prints it"},
		"no agent image":       {[]string{"--namespace", namespace, images[0]}, "images.agent is missing: set it to the agent's image, as `make images` prints it"},
		"the default one":      {images, "the namespace default can't be taskflow's: taskflow ignores the Pods of its own namespace; install it with --namespace taskflow-system --create-namespace"},
		"the cluster's own":    {append([]string{"--namespace=kube-system"}, images...), "the namespace kube-system can't be taskflow's"},
		"unknown value":        {append(usual, "--set=replica=2"), "additional properties 'replica' not allowed"},
		"unknown part":         {append(usual, "--set=log.colour=red"), "at '/log': additional properties 'colour' not allowed"},
		"unknown certificates": {append(usual, "--set=certificates=certmanager"), "at '/certificates': value must be one of 'own', 'certManager'"},
		"unknown level":        {append(usual, "--set=log.level=loud"), "at '/log/level': value must be one of '', 'debug', 'info', 'warn', 'error'"},
		"unknown format":       {append(usual, "--set=log.format=xml"), "at '/log/format': value must be one of '', 'json', 'console'"},
		"unknown delivery":     {append(usual, "--set=agent.delivery=volume"), "at '/agent/delivery': value must be one of '', 'init', 'image', 'auto'"},
		"not a namespace":      {append(usual, "--set=watchNamespaces={a b}"), "at '/watchNamespaces/0': 'a b' does not match pattern"},
		"not a flag":           {append(usual, "--set=args={debug}"), "at '/args/0': 'debug' does not match pattern '^--[a-z]'"},
		"not a quantity":       {append(usual, "--set=agent.requests.cpu=much"), "at '/agent/requests/cpu': 'much' does not match pattern"},
		"unknown resource":     {append(usual, "--set=agent.limits.gpu=1"), "at '/agent/limits': additional properties 'gpu' not allowed"},
		"unknown part of file": {append(usual, "--set=config.image.timeout=1s"), "at '/config': additional properties 'image' not allowed"},
		"not a boolean":        {append(usual, "--set-string=crds.keep=no"), "at '/crds/keep': got string, want boolean"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := helm(append([]string{"template", "taskflow", chart}, c.args...)...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v\nwant one with %s", err, c.want)
			}
		})
	}
}

// TestLint proves that helm lint reports no problem.
func TestLint(t *testing.T) {
	output, err := helm(append([]string{"lint", "--strict", "--quiet", chart, "--namespace", namespace}, images...)...)
	if err != nil {
		t.Errorf("helm lint: %v\n%s", err, output)
	}
}
