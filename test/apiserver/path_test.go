//go:build apiserver

package apiserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/taskflow/taskflow-operator/certs"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// Prefixes of paths without an answer: one breaks the connection, one waits.
const (
	hangsUp = "/test-hangs-up/"
	hangs   = "/test-hangs/"
)

func registerSilent(server ctrlwebhook.Server) {
	server.Register(hangsUp, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	server.Register(hangs, http.HandlerFunc(hang))
}

var errNotYet = errors.New("not yet")

// TestPathIsToldToNobody proves that a user whose Pod is refused because the webhook can't be called doesn't learn the webhook's path,
// regardless of how the call fails. The API server shows the URL of a webhook whose failurePolicy is Fail, as the last case proves.
func TestPathIsToldToNobody(t *testing.T) {
	secret := strings.Repeat("5e", 32)
	unused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "https://" + unused.Addr().String()
	if err := unused.Close(); err != nil {
		t.Fatal(err)
	}
	answering := func(handler http.HandlerFunc) string {
		server := httptest.NewTLSServer(handler) // the API server trusts its certificate only if the case says so
		t.Cleanup(server.Close)
		return server.URL
	}
	untrusted := answering(func(http.ResponseWriter, *http.Request) {})
	const trusted = ""
	for name, c := range map[string]struct {
		address string
		path    string // at this process's server
		policy  admissionv1.FailurePolicyType
		last    string // the address of the last webhooks
		told    bool
		text    string
	}{
		"no server listens":               {address: closed, policy: admissionv1.Ignore, text: "no replica of taskflow's webhook"},
		"no server listens, nowhere":      {address: closed, policy: admissionv1.Ignore, last: closed, text: "failed calling webhook"},
		"another certificate":             {address: untrusted, policy: admissionv1.Ignore, text: "no replica of taskflow's webhook"},
		"the path isn't known":            {address: trusted, path: "/mutate-pods/", policy: admissionv1.Ignore, text: "no replica of taskflow's webhook"},
		"the connection breaks":           {address: trusted, path: hangsUp, policy: admissionv1.Ignore, text: "no replica of taskflow's webhook"},
		"it takes too long":               {address: trusted, path: hangs, policy: admissionv1.Ignore, text: "no replica of taskflow's webhook"},
		"as it was, with the policy Fail": {address: closed, policy: admissionv1.Fail, told: true, text: "failed calling webhook"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := cluster.NewNamespace(t, "privileged")
			configuration, err := webhookConfiguration()
			if err != nil {
				t.Fatal(err)
			}
			configuration.Name = "a-" + namespace
			for i := range configuration.Webhooks {
				w := &configuration.Webhooks[i]
				path := c.path
				if path == "" {
					path = "/mutate-pods/"
				}
				w.NamespaceSelector = named(namespace)
				switch {
				case w.ClientConfig.Service.Path == nil:
					w.ClientConfig = served(path + secret)
					if c.address != trusted {
						w.ClientConfig.URL = new(c.address + path + secret)
					}
					w.FailurePolicy, w.TimeoutSeconds = &c.policy, new(int32(1))
				case c.last != "":
					w.ClientConfig = served(certs.UnmutatedPath)
					w.ClientConfig.URL = new(c.last + certs.UnmutatedPath)
				default:
					w.ClientConfig = served(certs.UnmutatedPath)
				}
			}
			createWebhooks(t, configuration)
			var refusal error
			wait.For(t, "the refusal", func(ctx context.Context) error {
				refusal = cluster.Create(ctx, podWithLabels(namespace, "pod", sequentialLabel(), echo("a")), client.DryRunAll)
				if refusal == nil {
					return errNotYet
				}
				return nil
			})
			if told := strings.Contains(refusal.Error(), secret); told != c.told {
				t.Errorf("the path is told: %t, want %t: %v", told, c.told, refusal)
			}
			if !strings.Contains(refusal.Error(), c.text) {
				t.Errorf("the refusal is %v\nwant one with %q", refusal, c.text)
			}
		})
	}
}

// TestWhoReadsThePath proves that the roles which Kubernetes has for users don't allow to read the webhook configurations, which have the
// paths.
func TestWhoReadsThePath(t *testing.T) {
	for role, want := range map[string]bool{"view": false, "edit": false, "admin": false, "system:basic-user": false, "system:discovery": false, "cluster-admin": true} {
		user := "reader-" + strings.ReplaceAll(role, ":", "-")
		bindRole(t, user, role)
		for _, verb := range []string{"get", "list", "watch", "update", "patch"} {
			for _, resource := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
				review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
					User: user, Groups: []string{"system:authenticated"},
					ResourceAttributes: &authorizationv1.ResourceAttributes{
						Group: admissionv1.GroupName, Resource: resource, Verb: verb, Name: "taskflow",
					},
				}}
				cluster.Make(t, review)
				if review.Status.Allowed != want {
					t.Errorf("the ClusterRole %s allows to %s %s: %t, want %t", role, verb, resource, review.Status.Allowed, want)
				}
			}
		}
	}
}

// bindRole binds a ClusterRole to a user for the whole cluster, and waits until it is in force.
func bindRole(t *testing.T, user, role string) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	marker := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		Rules:      []rbacv1.PolicyRule{{NonResourceURLs: []string{"/bound"}, Verbs: []string{"get"}}},
	}
	known := binding.DeepCopy()
	for _, object := range []client.Object{binding, marker} {
		cluster.Make(t, object)
	}
	known.RoleRef.Name = marker.Name // created later: once the API server knows this binding, it knows both
	cluster.Make(t, known)
	t.Cleanup(func() {
		for _, object := range []client.Object{binding, known, marker} {
			_ = cluster.Delete(context.WithoutCancel(t.Context()), object)
		}
	})
	wait.For(t, "the binding", func(ctx context.Context) error {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/bound", Verb: "get"},
		}}
		if err := cluster.Create(ctx, review); err != nil {
			return err
		}
		if !review.Status.Allowed {
			return errNotYet
		}
		return nil
	})
}

// hang sends no answer until the API server gives up.
func hang(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(10 * time.Second):
	}
}
