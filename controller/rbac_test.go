package controller

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestSecretsRight proves that the operator may get Secrets and ServiceAccounts, and may neither list nor watch them: it reads those that a Pod
// names, and a stolen token can't find the others.
func TestSecretsRight(t *testing.T) {
	content, err := os.ReadFile("../config/rbac/controllers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal(document, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, resource := range []string{"secrets", "serviceaccounts", "*"} {
				if role.Kind == "ClusterRole" && slices.Contains(rule.Resources, resource) {
					got[resource] = append(got[resource], rule.Verbs...)
				}
			}
		}
	}
	if diff := cmp.Diff(map[string][]string{"secrets": {"get"}, "serviceaccounts": {"get"}}, got); diff != "" {
		t.Errorf("verbs (-want +got):\n%s", diff)
	}
}
