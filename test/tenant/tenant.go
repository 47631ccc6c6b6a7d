// Package tenant gives tests namespaces of their own, and the cluster as users with few rights see it.
package tenant

import (
	"context"
	"errors"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// Namespace creates a namespace, waits for its ServiceAccount, and deletes the namespace when the test ends. The level is that of PodSecurity.
func Namespace(t *testing.T, cluster client.Client, prefix, level string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: prefix,
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": level},
	}}
	if err := cluster.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Delete(context.WithoutCancel(t.Context()), namespace); err != nil {
			t.Errorf("deleting the namespace: %v", err)
		}
	})
	wait.For(t, "the default ServiceAccount", func(ctx context.Context) error {
		return cluster.Get(ctx, client.ObjectKey{Namespace: namespace.Name, Name: "default"}, &corev1.ServiceAccount{})
	})
	return namespace.Name
}

// WithClusterRole returns the cluster as a user sees it who has one of the cluster's roles in the namespace, and nothing else. The role must
// let its user create Tasks.
func WithClusterRole(t *testing.T, cluster client.Client, namespace, role string) client.Client {
	t.Helper()
	bind(t, cluster, namespace, role, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role})
	return inForce(t, cluster, authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: "create", Group: "api.practice.com", Resource: "tasks",
	}, userName(namespace, role))
}

// WithRights returns the cluster as a user sees it who has these rights in the namespace, and nothing else. The right to create Pods must be
// among them.
func WithRights(t *testing.T, cluster client.Client, namespace, name string, rights ...rbacv1.PolicyRule) client.Client {
	t.Helper()
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rights}
	if err := cluster.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	bind(t, cluster, namespace, name, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name})
	return inForce(t, cluster, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Resource: "pods"}, userName(namespace, name))
}

// As returns the cluster as this user sees it.
func As(t *testing.T, cluster client.Client, user string, groups ...string) client.Client {
	t.Helper()
	config, err := ctrl.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	as, err := client.New(config, client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return as
}

func userName(namespace, role string) string { return role + "-of-" + namespace }

func bind(t *testing.T, cluster client.Client, namespace, name string, role rbacv1.RoleRef) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    role,
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: userName(namespace, name)}},
	}
	if err := cluster.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
}

// inForce waits until the user has the right.
func inForce(t *testing.T, cluster client.Client, right authorizationv1.ResourceAttributes, user string) client.Client {
	t.Helper()
	as := As(t, cluster, user)
	wait.For(t, "the role to be in force", func(ctx context.Context) error {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}
		err := as.Create(ctx, review)
		if err == nil && !review.Status.Allowed {
			err = errors.New("it isn't")
		}
		return err
	})
	return as
}
