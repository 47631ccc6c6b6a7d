package entrypoint_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestRequestFor proves what is asked for on behalf of a container.
func TestRequestFor(t *testing.T) {
	cases := map[string]struct {
		pod       corev1.PodSpec
		container corev1.Container
		want      entrypoint.Request
	}{
		"an image": {
			container: corev1.Container{Image: "busybox"},
			want:      entrypoint.Request{Namespace: "default", Image: "busybox"},
		},
		"all there is": {
			pod: corev1.PodSpec{
				NodeSelector:     map[string]string{"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"},
				ImagePullSecrets: []corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}},
			},
			container: corev1.Container{Image: "busybox", ImagePullPolicy: corev1.PullAlways, Args: []string{""}},
			want: entrypoint.Request{
				Namespace: "default", Image: "busybox", PullPolicy: corev1.PullAlways, PullSecrets: []string{"a", "b"},
				Architecture: "arm64", HasArgs: true,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, entrypoint.RequestFor("default", &c.pod, &c.container)); diff != "" {
				t.Errorf("RequestFor (-want +got):\n%s", diff)
			}
		})
	}
}
