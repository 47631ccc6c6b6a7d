package main

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=selfsubjectreviews,verbs=create

// username returns the operator's own username as admission requests have it, whatever its ServiceAccount is called, and also outside of a
// cluster.
func username(ctx context.Context, c client.Client) (string, error) {
	var review authenticationv1.SelfSubjectReview
	if err := c.Create(ctx, &review); err != nil {
		return "", fmt.Errorf("reading the operator's own username: %w", err)
	}
	if review.Status.UserInfo.Username == "" {
		return "", errors.New("the API server reports no username for the operator: give the operator a ServiceAccount")
	}
	return review.Status.UserInfo.Username, nil
}
