package main

import (
	"context"
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// TestUsername proves that the operator takes its username from the API server, and does not start without one: every request without a
// username would pass for its own.
func TestUsername(t *testing.T) {
	const account = "system:serviceaccount:taskflow-system:taskflow-operator"
	for name, c := range map[string]struct {
		says  string
		fails error
		want  string
	}{
		"a ServiceAccount": {says: account, want: account},
		"no name":          {},
		"an error":         {fails: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			server := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{
				Create: func(_ context.Context, _ client.WithWatch, object client.Object, _ ...client.CreateOption) error {
					object.(*authenticationv1.SelfSubjectReview).Status.UserInfo.Username = c.says
					return c.fails
				},
			}).Build()
			got, err := username(t.Context(), server)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("username = %q, %v, want %q", got, err, c.want)
			}
		})
	}
}
