//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ownWebhookPolicy returns the policy for configurations of another name: the suite has one of the usual name, called by URL.
func ownWebhookPolicy(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile("../../config/policy/own_webhook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(content, []byte("resourceNames: [taskflow]"), []byte("resourceNames: ["+name+"]"), 1)
}

const ownWebhookRefusal = "the operator changes clientConfig.caBundle and clientConfig.service.path alone"

// TestOperatorsRightOnItsTasksWebhook proves the same as TestOperatorsRightOnItsWebhook for the webhook that validates Tasks.
func TestOperatorsRightOnItsTasksWebhook(t *testing.T) {
	configuration, err := tasksWebhookConfiguration()
	if err != nil {
		t.Fatal(err)
	}
	configuration.Name = "own-tasks-webhook"
	for i := range configuration.Webhooks { // no Task matches them
		configuration.Webhooks[i].NamespaceSelector = named("nowhere")
	}
	cluster.Make(t, configuration)
	t.Cleanup(func() { _ = cluster.Delete(context.WithoutCancel(t.Context()), configuration) })
	change := func(as client.Client, edit func(*admissionv1.ValidatingWebhook)) error {
		var now admissionv1.ValidatingWebhookConfiguration
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(configuration), &now); err != nil {
			t.Fatal(err)
		}
		edit(&now.Webhooks[0])
		return as.Update(t.Context(), &now, client.DryRunAll)
	}
	operators := cluster.As(t, operator, "system:masters")
	secrets := func(w *admissionv1.ValidatingWebhook) {
		w.Rules[0].APIGroups, w.Rules[0].Resources = []string{""}, []string{"secrets"}
	}
	installPolicyContent(t, ownWebhookPolicy(t, configuration.Name), "", func() error { return change(operators, secrets) })
	fail := admissionv1.Fail
	for name, c := range map[string]struct {
		as      client.Client
		edit    func(*admissionv1.ValidatingWebhook)
		refused bool
	}{
		"nothing": {operators, func(*admissionv1.ValidatingWebhook) {}, false},
		"authorities": {operators, func(w *admissionv1.ValidatingWebhook) {
			w.ClientConfig.CABundle = environment.WebhookInstallOptions.LocalServingCAData
		}, false},
		"the path":                   {operators, func(w *admissionv1.ValidatingWebhook) { w.ClientConfig.Service.Path = new("/validate-tasks/0") }, false},
		"another service":            {operators, func(w *admissionv1.ValidatingWebhook) { w.ClientConfig.Service.Name = "mine" }, true},
		"rules":                      {operators, secrets, true},
		"namespaces":                 {operators, func(w *admissionv1.ValidatingWebhook) { w.NamespaceSelector = nil }, true},
		"conditions":                 {operators, func(w *admissionv1.ValidatingWebhook) { w.MatchConditions = nil }, true},
		"failure policy":             {operators, func(w *admissionv1.ValidatingWebhook) { w.FailurePolicy = &fail }, true},
		"timeout":                    {operators, func(w *admissionv1.ValidatingWebhook) { w.TimeoutSeconds = new(int32(30)) }, true},
		"rules, by an administrator": {cluster, secrets, false},
	} {
		err := change(c.as, c.edit)
		if refused := apierrors.IsForbidden(err) && strings.Contains(err.Error(), ownWebhookRefusal); refused != c.refused || err != nil && !refused {
			t.Errorf("%s: %v, want a refusal: %t", name, err, c.refused)
		}
	}
}

// TestOperatorsRightOnItsWebhook proves that the operator's ServiceAccount can change the authorities and the paths of its webhook
// configuration and nothing else: neither the objects, nor the addresses, nor the failurePolicy.
func TestOperatorsRightOnItsWebhook(t *testing.T) {
	configuration, err := webhookConfiguration()
	if err != nil {
		t.Fatal(err)
	}
	for i := range configuration.Webhooks { // no Pod matches them
		configuration.Webhooks[i].NamespaceSelector = named("nowhere")
	}
	configuration.Annotations = map[string]string{"cert-manager.io/inject-ca-from": "taskflow-system/taskflow-webhook"}
	configuration.Name = "own-webhook"
	createWebhooks(t, configuration)
	operators := cluster.As(t, operator, "system:masters")
	change := func(as client.Client, edit func(*admissionv1.MutatingWebhookConfiguration)) error {
		var now admissionv1.MutatingWebhookConfiguration
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(configuration), &now); err != nil {
			t.Fatal(err)
		}
		edit(&now)
		return as.Update(t.Context(), &now, client.DryRunAll)
	}
	with := func(edit func(*admissionv1.MutatingWebhook)) func(*admissionv1.MutatingWebhookConfiguration) {
		return func(c *admissionv1.MutatingWebhookConfiguration) { edit(&c.Webhooks[0]) }
	}
	everything := with(func(w *admissionv1.MutatingWebhook) {
		w.Rules = append(w.Rules, admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.OperationAll},
			Rule:       admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: []string{"secrets"}},
		})
	})
	installPolicyContent(t, ownWebhookPolicy(t, configuration.Name), "", func() error { return change(operators, everything) })

	fail, ignore := admissionv1.Fail, admissionv1.Ignore
	for name, c := range map[string]struct {
		as      client.Client
		edit    func(*admissionv1.MutatingWebhookConfiguration)
		refused bool
	}{
		"nothing": {operators, func(*admissionv1.MutatingWebhookConfiguration) {}, false},
		"authorities": {operators, with(func(w *admissionv1.MutatingWebhook) {
			w.ClientConfig.CABundle = environment.WebhookInstallOptions.LocalServingCAData
		}), false},
		"the path":   {operators, with(func(w *admissionv1.MutatingWebhook) { w.ClientConfig.Service.Path = new("/mutate-pods/0") }), false},
		"the port":   {operators, with(func(w *admissionv1.MutatingWebhook) { w.ClientConfig.Service.Port = new(int32(444)) }), true},
		"rules":      {operators, everything, true},
		"objects":    {operators, with(func(w *admissionv1.MutatingWebhook) { w.ObjectSelector = &metav1.LabelSelector{} }), true},
		"namespaces": {operators, with(func(w *admissionv1.MutatingWebhook) { w.NamespaceSelector = &metav1.LabelSelector{} }), true},
		"conditions": {operators, with(func(w *admissionv1.MutatingWebhook) { w.MatchConditions = nil }), true},
		"match policy": {operators, with(func(w *admissionv1.MutatingWebhook) {
			exact := admissionv1.Exact
			w.MatchPolicy = &exact
		}), true},
		"failure policy": {operators, with(func(w *admissionv1.MutatingWebhook) {
			if *w.FailurePolicy == fail {
				w.FailurePolicy = &ignore
			} else {
				w.FailurePolicy = &fail
			}
		}), true},
		"another service": {operators, with(func(w *admissionv1.MutatingWebhook) {
			w.ClientConfig.Service = &admissionv1.ServiceReference{Namespace: "default", Name: "mine"}
		}), true},
		"another URL": {operators, with(func(w *admissionv1.MutatingWebhook) {
			w.ClientConfig.URL, w.ClientConfig.Service = new("https://example.com/x"), nil
		}), true},
		"timeout":  {operators, with(func(w *admissionv1.MutatingWebhook) { w.TimeoutSeconds = new(int32(30)) }), true},
		"one less": {operators, func(c *admissionv1.MutatingWebhookConfiguration) { c.Webhooks = c.Webhooks[1:] }, true},
		"one more": {operators, func(c *admissionv1.MutatingWebhookConfiguration) {
			more := *c.Webhooks[0].DeepCopy()
			more.Name = "more.taskflow.practice.com"
			c.Webhooks = append(c.Webhooks, more)
		}, true},
		"another order": {operators, func(c *admissionv1.MutatingWebhookConfiguration) {
			c.Webhooks[0], c.Webhooks[1] = c.Webhooks[1], c.Webhooks[0]
		}, true},
		"whose authorities": {operators, func(c *admissionv1.MutatingWebhookConfiguration) {
			c.Annotations = map[string]string{"cert-manager.io/inject-ca-from": "default/mine"}
		}, true},
		"an owner": {operators, func(c *admissionv1.MutatingWebhookConfiguration) {
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "x", UID: "x"}}
		}, true},
		"rules, by an administrator": {cluster, everything, false},
	} {
		err := change(c.as, c.edit)
		if refused := apierrors.IsForbidden(err) && strings.Contains(err.Error(), ownWebhookRefusal); refused != c.refused || err != nil && !refused {
			t.Errorf("%s: %v, want a refusal: %t", name, err, c.refused)
		}
	}
}
