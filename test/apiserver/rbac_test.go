//go:build apiserver

package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/wait"
)

const operator = "system:serviceaccount:taskflow-system:taskflow-operator"

// applyRoles creates the roles in files of config/, except those that skip selects.
func applyRoles(t *testing.T, skip func(*unstructured.Unstructured) bool, files ...string) {
	t.Helper()
	for _, file := range files {
		content, err := os.ReadFile("../../config/" + file)
		if err != nil {
			t.Fatal(err)
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
		for {
			object := &unstructured.Unstructured{}
			if err := decoder.Decode(object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if object.GetKind() == "" || skip(object) {
				continue
			}
			cluster.Make(t, object)
			t.Cleanup(func() {
				if err := cluster.Delete(context.WithoutCancel(t.Context()), object); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// access is one request that a user makes.
type access struct{ verb, group, resource, subresource, namespace, name string }

func allowed(ctx context.Context, user string, groups []string, a access) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: a.verb, Group: a.group, Resource: a.resource, Subresource: a.subresource, Namespace: a.namespace, Name: a.name,
		},
	}}
	err := cluster.Create(ctx, review)
	return review.Status.Allowed, err
}

// TestOperatorsRights proves what the roles of config/ allow and deny the operator: in all namespaces with a ClusterRoleBinding, and in one
// namespace with a RoleBinding instead.
func TestOperatorsRights(t *testing.T) {
	one, other := cluster.NewNamespace(t, "privileged"), cluster.NewNamespace(t, "privileged")
	err := cluster.Create(t.Context(), namespaceNamed("taskflow-system"))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	const tasks, admission, own = "api.practice.com", "admissionregistration.k8s.io", "taskflow-system"
	everywhere := map[access]bool{
		{"list", "", "pods", "", one, ""}:                          true,
		{"watch", "", "pods", "", one, ""}:                         true,
		{"create", "", "pods", "", one, ""}:                        true,
		{"patch", "", "pods", "", one, "pod"}:                      true,
		{"delete", "", "pods", "", one, "pod"}:                     true, // a Pod that the webhook hasn't mutated
		{"create", "", "pods", "exec", one, "pod"}:                 false,
		{"get", "", "secrets", "", one, "pull"}:                    true, // pull secrets of a Pod with steps, one by one
		{"list", "", "secrets", "", one, ""}:                       false,
		{"watch", "", "secrets", "", one, ""}:                      false,
		{"update", "", "secrets", "", one, "pull"}:                 false,
		{"create", "", "serviceaccounts", "token", one, "default"}: false,
		{"watch", tasks, "tasks", "", one, ""}:                     true,
		{"patch", tasks, "tasks", "status", one, "task"}:           true,
		{"create", tasks, "tasks", "", one, ""}:                    false,
		{"create", "", "persistentvolumeclaims", "", one, ""}:      true, // a Task's workspace
		{"get", "", "persistentvolumeclaims", "", one, "claim"}:    true,
		{"list", "", "persistentvolumeclaims", "", one, ""}:        false,
		{"delete", "", "persistentvolumeclaims", "", one, "claim"}: false,
		{"update", "", "persistentvolumeclaims", "", one, "claim"}: false,
		{"create", "events.k8s.io", "events", "", one, ""}:         true,
		{"list", "events.k8s.io", "events", "", one, ""}:           true, // events of a Pod that doesn't start
		{"watch", "events.k8s.io", "events", "", one, ""}:          false,

		{"watch", "", "secrets", "", own, "taskflow-webhook-cert"}:                   true,
		{"update", "", "secrets", "", own, "taskflow-webhook-cert"}:                  true,
		{"create", "", "secrets", "", own, ""}:                                       true,
		{"list", "", "secrets", "", own, ""}:                                         false,
		{"update", "", "secrets", "", own, "other"}:                                  false,
		{"watch", admission, "mutatingwebhookconfigurations", "", "", "taskflow"}:    true,
		{"update", admission, "mutatingwebhookconfigurations", "", "", "taskflow"}:   true,
		{"update", admission, "mutatingwebhookconfigurations", "", "", "other"}:      false,
		{"create", admission, "mutatingwebhookconfigurations", "", "", ""}:           false,
		{"watch", admission, "validatingwebhookconfigurations", "", "", "taskflow"}:  true,
		{"update", admission, "validatingwebhookconfigurations", "", "", "taskflow"}: true,
		{"update", admission, "validatingwebhookconfigurations", "", "", "other"}:    false,
		{"update", admission, "validatingadmissionpolicies", "", "", ""}:             false,
		{"update", "coordination.k8s.io", "leases", "", own, "taskflow-operator"}:    true,
		{"update", "coordination.k8s.io", "leases", "", "kube-system", "other"}:      false,
		{"create", "authentication.k8s.io", "tokenreviews", "", "", ""}:              true,
		{"escalate", "rbac.authorization.k8s.io", "clusterroles", "", "", ""}:        false,
		{"watch", "", "nodes", "", "", ""}:                                           true, // to learn the versions of kubelets and runtimes
		{"get", "", "nodes", "proxy", "", ""}:                                        false,
		{"patch", "", "nodes", "", "", ""}:                                           false,
	}
	check := func(t *testing.T, want map[access]bool) {
		t.Helper()
		wait.For(t, "the roles to be in force", func(ctx context.Context) error {
			got := map[access]bool{}
			for a := range want {
				var err error
				if got[a], err = allowed(ctx, operator, nil, a); err != nil {
					return err
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				return fmt.Errorf("the rights (-want +got):\n%s", diff)
			}
			return nil
		})
	}
	files := []string{"rbac/controllers.yaml", "rbac/operator.yaml", "rbac/nodes.yaml", "rbac/bindings.yaml", "own-certificates/role.yaml", "own-certificates/bindings.yaml"}
	t.Run("all namespaces", func(t *testing.T) {
		applyRoles(t, func(*unstructured.Unstructured) bool { return false }, files...)
		check(t, everywhere)
	})
	t.Run("one namespace", func(t *testing.T) {
		applyRoles(t, func(object *unstructured.Unstructured) bool {
			return object.GetKind() == "ClusterRoleBinding" && object.GetName() == "taskflow-operator"
		}, files...)
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: one, Name: "taskflow-operator"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "taskflow-operator"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "taskflow-system", Name: "taskflow-operator"}},
		}
		cluster.Make(t, binding)
		want := map[access]bool{}
		for a, yes := range everywhere {
			want[a] = yes
			if a.namespace == one {
				a.namespace = other
				want[a] = false
				a.namespace = "" // in all namespaces
				want[a] = false
			}
		}
		check(t, want)
	})
}

// TestUsersRights proves that users who may view or edit in a namespace have the same right on Tasks, and not on their status.
func TestUsersRights(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	applyRoles(t, func(*unstructured.Unstructured) bool { return false }, "rbac/users.yaml")
	for _, role := range []string{"view", "edit"} {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "taskflow-" + role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: role}},
		}
		cluster.Make(t, binding)
		var clusterRole rbacv1.ClusterRole
		if err := cluster.Get(t.Context(), client.ObjectKey{Name: "taskflow-" + role}, &clusterRole); err != nil {
			t.Fatal(err)
		}
		if clusterRole.Labels["rbac.authorization.k8s.io/aggregate-to-"+role] != "true" {
			t.Errorf("taskflow-%s isn't part of %s", role, role)
		}
	}
	want := map[string]map[string]bool{
		"view": {"get": true, "list": true, "watch": true, "create": false, "update": false, "patch": false, "delete": false, "patch status": false},
		"edit": {"create": true, "update": true, "patch": true, "delete": true, "deletecollection": true, "patch status": false},
	}
	wait.For(t, "the roles to be in force", func(ctx context.Context) error {
		got := map[string]map[string]bool{}
		for user, verbs := range want {
			got[user] = map[string]bool{}
			for what := range verbs {
				a := access{what, "api.practice.com", "tasks", "", namespace, "task"}
				if what == "patch status" {
					a.verb, a.subresource = "patch", "status"
				}
				yes, err := allowed(ctx, user, nil, a)
				if err != nil {
					return err
				}
				got[user][what] = yes
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("the rights (-want +got):\n%s", diff)
		}
		return nil
	})
}
