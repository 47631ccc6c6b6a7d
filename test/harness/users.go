package harness

import (
	"context"
	"errors"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/test/wait"
)

// OperatorNamespace is where taskflow is installed.
const OperatorNamespace = "taskflow-system"

// OperatorUser is the operator's ServiceAccount as a user.
const OperatorUser = "system:serviceaccount:" + OperatorNamespace + ":taskflow-operator"

// As returns a client that impersonates the user.
func (c Cluster) As(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	config := rest.CopyConfig(c.Config)
	config.QPS, config.Burst = 100, 200
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	as, err := client.New(config, client.Options{Scheme: c.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return as
}

// AsOperator returns a client that impersonates the operator's ServiceAccount, with the rights that it has.
func (c Cluster) AsOperator(t *testing.T) client.Client {
	t.Helper()
	return c.As(t, OperatorUser, "system:serviceaccounts", "system:serviceaccounts:"+OperatorNamespace)
}

// WithClusterRole returns a client of a user with this role in the namespace and no other right. The role must include the right to create Tasks.
func (c Cluster) WithClusterRole(t *testing.T, namespace, role string) client.Client {
	t.Helper()
	user := c.bind(t, namespace, role, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role})
	return c.awaitRight(t, user, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Group: "api.practice.com", Resource: "tasks"})
}

// WithRights returns a client of a user with these rights in the namespace and no others. They must include the right to create Pods.
func (c Cluster) WithRights(t *testing.T, namespace, name string, rights ...rbacv1.PolicyRule) client.Client {
	t.Helper()
	c.Make(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rights})
	user := c.bind(t, namespace, name, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name})
	return c.awaitRight(t, user, authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "create", Resource: "pods"})
}

// bind gives a new user the role in the namespace.
func (c Cluster) bind(t *testing.T, namespace, name string, role rbacv1.RoleRef) (user string) {
	t.Helper()
	user = name + "-of-" + namespace
	c.Make(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		RoleRef:    role,
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
	return user
}

// awaitRight waits until the user has the right: the API server learns of a new binding a moment later.
func (c Cluster) awaitRight(t *testing.T, user string, right authorizationv1.ResourceAttributes) client.Client {
	t.Helper()
	as := c.As(t, user)
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
