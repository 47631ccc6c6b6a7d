package entrypoint_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestRequestFor proves which request a container leads to.
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

// TestResolveAll proves that equal requests of a Pod are resolved once, that concurrency is bounded, and that a Pod with too many images,
// or too long commands, is refused for the excess ones.
func TestResolveAll(t *testing.T) {
	var now, most, asked atomic.Int32
	gate, open := make(chan struct{}), sync.Once{}
	resolve := func(_ context.Context, request entrypoint.Request) (entrypoint.Command, error) {
		asked.Add(1)
		n := now.Add(1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		if n == 8 {
			open.Do(func() { close(gate) }) // the bound is reached
		}
		<-gate
		now.Add(-1)
		if strings.HasPrefix(request.Image, "long") {
			return entrypoint.Command{Cmd: []string{strings.Repeat("x", 60<<10)}}, nil
		}
		return entrypoint.Command{Entrypoint: []string{request.Image}}, nil
	}
	var requests []entrypoint.Request
	for i := range 120 {
		image := fmt.Sprint("image", i%110)
		requests = append(requests, entrypoint.Request{Image: image})
	}
	commands, errs := entrypoint.ResolveAll(t.Context(), resolve, requests)
	for i, request := range requests {
		want := outcome{Command: entrypoint.Command{Entrypoint: []string{request.Image}}}
		if i >= 100 && i < 110 {
			want = outcome{Sentence: fmt.Sprintf("image %q is one of more than 100 images to resolve in the Pod; set command in more steps", request.Image)}
		}
		got := outcome{Command: commands[i]}
		if errs[i] != nil {
			got.Sentence = errs[i].Error()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request %d (-want +got):\n%s", i, diff)
		}
	}
	if asked.Load() != 100 || most.Load() > 8 {
		t.Errorf("%d look-ups, up to %d at a time; want 100, and at most 8", asked.Load(), most.Load())
	}

	requests = nil
	for i := range 20 {
		requests = append(requests, entrypoint.Request{Image: fmt.Sprint("long", i)})
	}
	_, errs = entrypoint.ResolveAll(t.Context(), resolve, requests)
	for i, err := range errs {
		if tooLong := err != nil && strings.Contains(err.Error(), "exceeds 1024 KiB together with those of the other steps"); tooLong != (i >= 17) {
			t.Errorf("command %d of 60 KiB: %v", i, err)
		}
	}
}

// TestSecretsAreReadOnce proves that a pull secret is read once for all images of a Pod, and that their number is bounded.
func TestSecretsAreReadOnce(t *testing.T) {
	var mutex sync.Mutex
	read := map[string]int{}
	resolver := newResolver(t, entrypoint.Options{Secrets: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
		mutex.Lock()
		defer mutex.Unlock()
		read[name]++
		return secrets{}.read(ctx, namespace, name)
	}})
	var requests []entrypoint.Request
	for i := range 10 {
		requests = append(requests, entrypoint.Request{Namespace: "default", Image: fmt.Sprintf("%s/app:v%d", deadHost, i), PullSecrets: []string{"a", "b"}})
	}
	entrypoint.ResolveAll(t.Context(), resolver.Resolve, requests)
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, read); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
	_, err := resolver.Resolve(t.Context(), entrypoint.Request{Image: deadHost + "/app", PullSecrets: make([]string, 33)})
	want := `image "` + deadHost + `/app" cannot be resolved: the Pod has more than 32 imagePullSecrets; set command, or at most 32 imagePullSecrets`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("33 pull secrets (-want +got):\n%s", diff)
	}
}
