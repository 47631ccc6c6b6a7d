//go:build apiserver

package apiserver

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestLargePodsAreRefused proves that the creator of a Pod that is too large for the webhook is told so, even if the webhook doesn't read
// the request. With the API server's defaults, the review of a Pod of 1 MiB has several MiB.
func TestLargePodsAreRefused(t *testing.T) {
	namespace := cluster.NewNamespace(t, "privileged")
	for count, text := range map[int]string{
		1100:  "spec.containers: 1100 entries, and a sequential Pod may have 1000",
		30000: "the webhook accepts at most 4194304",
	} {
		var containers []corev1.Container
		for i := range count {
			containers = append(containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: "a"})
		}
		err := cluster.Create(t.Context(), podWithLabels(namespace, "large", sequentialLabel(), containers...), client.DryRunAll)
		if err == nil || apierrors.IsInternalError(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%d containers: %.300v, want a refusal with %q", count, err, text)
		}
	}
}
