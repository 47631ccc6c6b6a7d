package main

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=selfsubjectreviews,verbs=create

// username returns the name that the API server knows the operator by, as admission requests have it: whatever the operator's
// ServiceAccount is called, and if it runs outside of the cluster.
func username(ctx context.Context, c client.Client) (string, error) {
	var review authenticationv1.SelfSubjectReview
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("asking the API server for the operator's own username: %w", err)
	}
	if review.Status.UserInfo.Username == "" {
		return "", errors.New("the API server doesn't know the operator's username: give the operator a ServiceAccount")
	}
	return review.Status.UserInfo.Username, nil
}
